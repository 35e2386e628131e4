//! Models that take bottlenecks.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use burn_lora_adapter::DEFAULT_NAME;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{
    BlockBottlenecks, Bottleneck, BottleneckConfig, BottleneckError, BottleneckPlacement,
    BottleneckSet,
};
use crate::slot::{Slot, check_word};
use crate::task::PeftTask;

/// A model whose blocks have places for bottlenecks.
pub trait Host: Module + PeftTask {
    /// The width of what goes through its blocks.
    fn d_model(&self) -> usize;

    /// Where the base is.
    fn device_of_base(&self) -> Device;

    /// Changes the bottlenecks of every block.
    fn map_blocks(self, change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks) -> Self;

    /// Those of the first block.
    fn first_block(&self) -> Option<&BlockBottlenecks>;
}

/// Bottleneck adapters, in every model of this crate: small networks with a residual of their own, inside every block.
///
/// An encoder with a decoder has them in the blocks of both; what is after attention is after that to the sequence itself.
///
/// A model holds several sets under different names, of which one acts: [`Self::add_bottlenecks`] and what follows it; or one for each row
/// of a batch ([`WithRows`](crate::WithRows)). A set that is given no name is [`DEFAULT_NAME`]'s.
pub trait WithBottlenecks: Host {
    /// Puts fresh bottlenecks into every block, in the place of those of [`DEFAULT_NAME`]: trainable f32 parameters beside a model that
    /// stays as it is. Fresh ones change nothing.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration.
    fn with_bottlenecks(
        self,
        config: &BottleneckConfig,
        seed: u64,
    ) -> Result<Self, BottleneckError> {
        put(self, DEFAULT_NAME, config, seed)
    }

    /// Adds a fresh set under a name, which acts from now on in the place of the one that did.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, a name that is taken, and one that is empty or has a dot.
    fn add_bottlenecks(
        self,
        name: &str,
        config: &BottleneckConfig,
        seed: u64,
    ) -> Result<Self, BottleneckError> {
        checked(&self, |slot| slot.check_new(name))?;
        put(self, name, config, seed)
    }

    /// The names of all sets, in the order in which they came.
    fn bottleneck_names(&self) -> Vec<&str> {
        self.first_block().map_or(Vec::new(), Slot::names)
    }

    /// Lets another set act. Switching back reproduces.
    ///
    /// # Errors
    ///
    /// A name that there is not.
    fn activate_bottlenecks(self, name: &str) -> Result<Self, BottleneckError> {
        checked(&self, |slot| slot.known(name).map(drop))?;
        Ok(self.map_blocks(&mut |slot| slot.activate(name)))
    }

    /// Gives a set another name.
    ///
    /// # Errors
    ///
    /// A name that there is not, and a new one that is taken, is empty or has a dot.
    fn rename_bottlenecks(self, from: &str, to: &str) -> Result<Self, BottleneckError> {
        checked(&self, |slot| slot.known(from).map(drop))?;
        checked(&self, |slot| slot.check_new(to))?;
        Ok(self.map_blocks(&mut |slot| slot.rename(from, to)))
    }

    /// Takes a set away. Where it acted, none does.
    ///
    /// # Errors
    ///
    /// A name that there is not.
    fn delete_bottlenecks(self, name: &str) -> Result<Self, BottleneckError> {
        checked(&self, |slot| slot.known(name).map(drop))?;
        Ok(self.map_blocks(&mut |slot| slot.delete(name)))
    }

    /// Takes all bottlenecks away.
    fn without_bottlenecks(self) -> Self {
        self.map_blocks(&mut Slot::emptied)
    }

    /// Leaves the bottlenecks out of what is computed, which is then what the model computes without them, or takes them back in.
    fn with_bottlenecks_enabled(self, enabled: bool) -> Self {
        self.map_blocks(&mut |slot| slot.enabled(enabled))
    }

    /// Where the bottlenecks are that act, or would if they were enabled, if there are any.
    fn bottlenecks(&self) -> Option<BottleneckPlacement> {
        let chosen = self.first_block().and_then(Slot::chosen);
        chosen.map(|set| set.config.placement)
    }

    /// What the set of a name is, if there is one.
    fn bottleneck_config(&self, name: &str) -> Option<BottleneckConfig> {
        Some(self.first_block()?.get(name)?.config)
    }

    /// Writes the bottlenecks that act, which `config` made, to a folder, and returns the size of the weights in bytes. Beside them is the
    /// head of a model that classifies.
    ///
    /// # Errors
    ///
    /// Without bottlenecks, when `config` is of others, when a number is not finite, and those of the system.
    fn save_bottlenecks(
        &self,
        dir: &Path,
        config: &BottleneckConfig,
        base_model: Option<&str>,
    ) -> Result<u64, BottleneckError> {
        let base = ("base_model_name_or_path".to_string(), json!(base_model));
        self.save_bottlenecks_with(dir, config, &Map::from_iter([base]))
    }

    /// As [`Self::save_bottlenecks`], with fields of the configuration: `base_model_name_or_path`, `task_type`, and
    /// `modules_to_save`, whose parameters are beside the bottlenecks in the place of the head's.
    ///
    /// # Errors
    ///
    /// As [`Self::save_bottlenecks`].
    fn save_bottlenecks_with(
        &self,
        dir: &Path,
        config: &BottleneckConfig,
        fields: &Map<String, Value>,
    ) -> Result<u64, BottleneckError> {
        let chosen = self.first_block().and_then(Slot::chosen);
        let set = chosen.ok_or_else(|| refused("the model has none to save".to_string()))?;
        if set.config != *config {
            let found = set.config;
            return Err(refused(format!("the model has {found:?}, not {config:?}")));
        }
        super::files::save(self, set, dir, fields)
    }

    /// As [`Self::save_bottlenecks`], of the set of a name, whichever acts.
    ///
    /// # Errors
    ///
    /// A name that there is not, and those of [`Self::save_bottlenecks`].
    fn save_named_bottlenecks(
        &self,
        name: &str,
        dir: &Path,
        base_model: Option<&str>,
    ) -> Result<u64, BottleneckError> {
        let none = BlockBottlenecks::default();
        let block = self.first_block().unwrap_or(&none);
        let set = block.known(name).map_err(refused)?;
        let base = ("base_model_name_or_path".to_string(), json!(base_model));
        super::files::save(self, set, dir, &Map::from_iter([base]))
    }

    /// Reads bottlenecks from a folder that [`Self::save_bottlenecks`] wrote, in the place of those of [`DEFAULT_NAME`], and the head that
    /// it holds.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every one of the tensors.
    fn load_bottlenecks(self, dir: &Path) -> Result<(Self, BottleneckConfig), BottleneckError> {
        super::files::load(self, DEFAULT_NAME, dir)
    }

    /// As [`Self::load_bottlenecks`], under a name, in the place of the set of that name.
    ///
    /// # Errors
    ///
    /// A name that is empty or has a dot, and those of [`Self::load_bottlenecks`].
    fn load_named_bottlenecks(
        self,
        name: &str,
        dir: &Path,
    ) -> Result<(Self, BottleneckConfig), BottleneckError> {
        check_word(name).map_err(refused)?;
        super::files::load(self, name, dir)
    }
}

impl<M: Host> WithBottlenecks for M {}

fn refused(fault: String) -> BottleneckError {
    let faults = vec![fault];
    BottleneckError::Config { faults }
}

/// Asks the first block, which has the names that all have.
fn checked<M: Host>(
    model: &M,
    check: impl Fn(&BlockBottlenecks) -> Result<(), String>,
) -> Result<(), BottleneckError> {
    let none = BlockBottlenecks::default();
    check(model.first_block().unwrap_or(&none)).map_err(refused)
}

pub(super) fn put<M: Host>(
    model: M,
    name: &str,
    config: &BottleneckConfig,
    seed: u64,
) -> Result<M, BottleneckError> {
    let d_model = model.d_model();
    config.check(d_model)?;
    let (device, rng) = (model.device_of_base(), &mut ChaCha8Rng::seed_from_u64(seed));
    Ok(model.map_blocks(&mut |slot| {
        let fresh = || Bottleneck::init(d_model, config, &device, rng);
        slot.with(BottleneckSet::fresh(name, *config, fresh))
    }))
}
