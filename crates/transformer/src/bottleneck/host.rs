//! Models that take bottlenecks, and the bottlenecks of one of their blocks.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{Bottleneck, BottleneckConfig, BottleneckError, BottleneckPlacement};
use crate::named::{Named, unnamed_module};
use crate::part_methods::PART_MODULES;
use crate::task::PeftTask;

/// The bottlenecks of one block.
#[derive(Debug, Clone, Default)]
pub struct BlockBottlenecks {
    after_attention: Option<Named<Bottleneck>>,
    after_inner: Option<Named<Bottleneck>>,
    beside_inner: Option<Named<Bottleneck>>,
}

unnamed_module!(BlockBottlenecks {
    after_attention,
    after_inner,
    beside_inner
});

impl BlockBottlenecks {
    fn fresh(placement: BottleneckPlacement, mut fresh: impl FnMut() -> Bottleneck) -> Self {
        let [_, after_attention, after_inner, beside_inner] = PART_MODULES;
        let mut named = |name| Some(Named::new(name, fresh()));
        let mut block = Self::default();
        match placement {
            BottleneckPlacement::Houlsby => {
                block.after_attention = named(after_attention);
                block.after_inner = named(after_inner);
            }
            BottleneckPlacement::Pfeiffer => block.after_inner = named(after_inner),
            BottleneckPlacement::Parallel => block.beside_inner = named(beside_inner),
        }
        block
    }

    fn placement(&self) -> Option<BottleneckPlacement> {
        match (&self.after_attention, &self.after_inner, &self.beside_inner) {
            (Some(_), ..) => Some(BottleneckPlacement::Houlsby),
            (_, Some(_), _) => Some(BottleneckPlacement::Pfeiffer),
            (.., Some(_)) => Some(BottleneckPlacement::Parallel),
            _ => None,
        }
    }

    /// What attention adds, with the bottleneck behind it.
    pub(crate) fn after_attention(&self, change: Tensor<3>) -> Tensor<3> {
        through(&self.after_attention, change)
    }

    /// What an inner layer makes of its input, with the bottlenecks at it.
    pub(crate) fn at_inner(
        &self,
        x: Tensor<3>,
        inner: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let beside = self.beside_inner.as_ref();
        let beside = beside.map(|bottleneck| bottleneck.change(x.clone()));
        let change = inner(x);
        let change = match beside {
            Some(beside) => change + beside,
            None => change,
        };
        through(&self.after_inner, change)
    }

    #[cfg(test)]
    pub(crate) fn after_inner(&self) -> Option<&Bottleneck> {
        self.after_inner.as_deref()
    }
}

fn through(bottleneck: &Option<Named<Bottleneck>>, change: Tensor<3>) -> Tensor<3> {
    match bottleneck {
        Some(bottleneck) => bottleneck.forward(change),
        None => change,
    }
}

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
pub trait WithBottlenecks: Host {
    /// Puts fresh bottlenecks into every block, in the place of those that there were: trainable f32 parameters beside a model that
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
        let d_model = self.d_model();
        config.check(d_model)?;
        let (device, rng) = (self.device_of_base(), &mut ChaCha8Rng::seed_from_u64(seed));
        Ok(self.map_blocks(&mut |_| {
            let fresh = || Bottleneck::init(d_model, config, &device, rng);
            BlockBottlenecks::fresh(config.placement, fresh)
        }))
    }

    /// Takes the bottlenecks away.
    fn without_bottlenecks(self) -> Self {
        self.map_blocks(&mut |_| BlockBottlenecks::default())
    }

    /// Where the bottlenecks are, if there are any.
    fn bottlenecks(&self) -> Option<BottleneckPlacement> {
        self.first_block().and_then(BlockBottlenecks::placement)
    }

    /// Writes the bottlenecks, which `config` made, to a folder, and returns the size of the weights in bytes. Beside them is the head
    /// of a model that classifies.
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
        super::files::save(self, dir, config, fields)
    }

    /// Reads bottlenecks from a folder that [`Self::save_bottlenecks`] wrote, in the place of those that there were, and the head that it
    /// holds.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every one of the tensors.
    fn load_bottlenecks(self, dir: &Path) -> Result<(Self, BottleneckConfig), BottleneckError> {
        super::files::load(self, dir)
    }
}

impl<M: Host> WithBottlenecks for M {}
