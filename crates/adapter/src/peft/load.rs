use std::fs;
use std::path::Path;

use burn::module::Module;
use serde_json::{Map, Value};

use super::CONFIG_FILE;
use super::config::PeftConfig;
use super::contents::read_contents;
use super::keys::layer_key;
use super::tensors;
use crate::attach::{check_biases, check_name};
use crate::config::LoraConfig;
use crate::error::{AdapterError, TensorFault};
use crate::initial::Initialization;
use crate::lifecycle::delete;
use crate::plan::{Planned, plan};
use crate::reach::all_stacks;

/// Reads a PEFT folder and attaches its adapter to a module under `name`. Its parameters become f32.
///
/// The folder's configuration says which method it is and where the adapter goes, and which modules are in the folder as a
/// whole and take the place of the module's own; the file must then hold exactly the tensors that this needs. Returns the
/// configuration beside the module.
///
/// A folder that was saved in the middle of PiSSA or OLoRA has factors over a base without what they started from. PEFT takes
/// that out of the base again; here the base stays as it is, and the adapter becomes the LoRA of twice the rank that does the
/// same ([`to_plain`](crate::to_plain)), which the configuration then describes.
///
/// # Errors
/// The module is untouched and the error lists every fault when the configuration cannot be read, asks for what is not
/// supported or does not fit the module, and when a tensor is missing, unexpected, of another shape or not finite.
pub fn load<M: Module>(
    module: M,
    name: &str,
    folder: &Path,
) -> Result<(M, LoraConfig), AdapterError> {
    let ReadPlan {
        config,
        plan,
        start,
    } = read_plan(&module, folder)?;
    check_name(&module, name)?;
    check_biases(&module, &config)?;
    let contents = read_contents(&module, folder, plan, config)?;
    let contents = contents.over_base(&module, start.as_ref())?;
    contents.put(module, name)
}

/// Exchanges the adapter `name` of a module for that of a PEFT folder, of any rank and alpha, in one go.
///
/// A layer that the folder leaves out has no adapter afterwards; one that the module has not adapted is refused, for who serves
/// a model has decided which layers may change.
///
/// # Errors
/// As [`load`], but for missing tensors; [`AdapterError::NoAdapter`] without an adapter of this name.
pub fn hot_swap<M: Module>(
    module: M,
    name: &str,
    folder: &Path,
) -> Result<(M, LoraConfig), AdapterError> {
    let ReadPlan {
        config,
        mut plan,
        start,
    } = read_plan(&module, folder)?;
    let present = all_stacks(&module);
    let has = |path: &str| {
        let mut present = present.iter().filter(|weight| weight.path == path);
        present.any(|weight| weight.stack.method(name).is_some())
    };
    let unexpected = plan.iter().filter(|planned| !has(&planned.path));
    let layers: Vec<String> = unexpected.map(|planned| planned.path.clone()).collect();
    // Checked by the file, since a configuration may name more than it has.
    let (path, file) = tensors::read(folder)?;
    let strangers: Vec<TensorFault> = plan
        .iter()
        .filter(|planned| layers.contains(&planned.path))
        .flat_map(|planned| {
            let keys = planned.specs().into_iter();
            keys.map(|spec| (layer_key(planned.module_path(), &spec.key), spec.file_shape))
        })
        .filter(|(key, _)| file.contains_key(key))
        .map(|(key, shape)| TensorFault::Unexpected {
            key,
            shape,
            nearest: None,
        })
        .collect();
    if !strangers.is_empty() {
        return Err(AdapterError::Tensors {
            path,
            faults: strangers,
        });
    }
    plan.retain(|planned| {
        let keys = planned.specs().into_iter();
        let mut keys = keys.map(|spec| layer_key(planned.module_path(), &spec.key));
        // A bias that is scaled with its weight has no tensor of its own.
        keys.len() == 0 || keys.any(|key| file.contains_key(&key))
    });
    let contents = read_contents(&module, folder, plan, config)?;
    let contents = contents.over_base(&module, start.as_ref())?;
    let module = delete(module, name)?;
    contents.put(module, name)
}

/// What a folder's configuration means for a module.
struct ReadPlan {
    config: LoraConfig,
    plan: Vec<Planned>,
    /// What the factors started from, if the base is to lose it.
    start: Option<Initialization>,
}

fn read_plan<M: Module>(module: &M, folder: &Path) -> Result<ReadPlan, AdapterError> {
    let config = read_config(folder)?;
    if !config.unsupported.is_empty() {
        return Err(AdapterError::Unsupported {
            path: folder.join(CONFIG_FILE),
            features: config.unsupported,
        });
    }
    let start = config.start;
    let config = config.adapter;
    let plan = plan(module, &config)?;
    Ok(ReadPlan {
        config,
        plan,
        start,
    })
}

/// Reads the configuration of a PEFT folder.
///
/// # Errors
/// [`AdapterError::Io`] without the file; [`AdapterError::ConfigFile`] when it is no PEFT configuration: every field that is
/// wrong.
pub fn read_config(folder: &Path) -> Result<PeftConfig, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(AdapterError::io(&path))?;
    let map: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| AdapterError::ConfigFile {
            path: path.clone(),
            reason: format!("not a PEFT configuration: {error}"),
        })?;
    PeftConfig::read(map).map_err(|faults| AdapterError::ConfigFile {
        path,
        reason: format!("not a PEFT configuration: {}", faults.join("; ")),
    })
}
