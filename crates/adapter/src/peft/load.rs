use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use serde_json::{Map, Value};

use super::CONFIG_FILE;
use super::config::PeftConfig;
use super::contents::{Contents, File, contents_of};
use super::groups::ungroup;
use super::inspect::{A, B, split};
use super::keys::{PREFIX, layer_key};
use super::tensors;
use crate::attach::{check_biases, check_name};
use crate::config::LoraConfig;
use crate::error::{AdapterError, TensorFault, nearest, noted};
use crate::initial::Initialization;
use crate::lifecycle::delete;
use crate::method::MethodConfig;
use crate::plan::{Planned, check_targets, plan};
use crate::reach::all_stacks;
use crate::sites::sites;
use crate::view::View;

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
/// supported or does not fit the module, and when a tensor is missing, unexpected, of another shape or not finite. Where both the
/// configuration and tensors are at fault, it is [`AdapterError::Several`]; which tensors there should be, a wrong configuration
/// does not tell.
pub fn load<M: Module>(
    module: M,
    name: &str,
    folder: &Path,
) -> Result<(M, LoraConfig), AdapterError> {
    let mut errors = Vec::new();
    let file = read_file(&module, folder);
    let read = noted(read_plan(&module, folder, &file), &mut errors);
    errors.extend(check_name(&module, name).err());
    if let Some(read) = &read {
        errors.extend(check_biases(&module, &read.config).err());
    }
    let contents = read_contents(&module, file, read, None, &mut errors);
    put(contents, errors, |contents| contents.put(module, name))
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
    let mut errors = Vec::new();
    let file = read_file(&module, folder);
    let read = noted(read_plan(&module, folder, &file), &mut errors);
    let contents = read_contents(&module, file, read, Some(name), &mut errors);
    put(contents, errors, |contents| {
        let module = delete(module, name)?;
        contents.put(module, name)
    })
}

/// The end of loading, where nothing was wrong.
fn put<T>(
    contents: Option<Contents>,
    errors: Vec<AdapterError>,
    put: impl FnOnce(Contents) -> Result<T, AdapterError>,
) -> Result<T, AdapterError> {
    AdapterError::all(errors)?;
    match contents {
        Some(contents) => put(contents),
        // Whoever has no contents has said why.
        None => Err(AdapterError::Config {
            faults: vec!["the folder holds no adapter".to_string()],
        }),
    }
}

/// The tensors of a folder.
struct ReadFile {
    file: File,
    /// Convolutions in groups, told by the shapes of their factors, and how many each has.
    groups: Vec<(String, usize)>,
    /// Those among them that are no change of a kernel.
    faults: Vec<TensorFault>,
}

fn read_file<M: Module>(module: &M, folder: &Path) -> Result<ReadFile, AdapterError> {
    let (path, mut tensors) = tensors::read(folder)?;
    let (groups, faults) = ungroup(module, &mut tensors);
    Ok(ReadFile {
        file: (path, tensors),
        groups,
        faults,
    })
}

/// The tensors of a folder for what its configuration means, or what is wrong with them: where the configuration means nothing,
/// what would be wrong by any other. Those that come in `exchange` for an adapter go onto its layers, or some of them.
fn read_contents<M: Module>(
    module: &M,
    file: Result<ReadFile, AdapterError>,
    read: Option<ReadPlan>,
    exchange: Option<&str>,
    errors: &mut Vec<AdapterError>,
) -> Option<Contents> {
    let ReadFile { file, faults, .. } = noted(file, errors)?;
    if !faults.is_empty() {
        let path = file.0.clone();
        errors.push(AdapterError::Tensors { path, faults });
    }
    let Some(ReadPlan {
        config,
        mut plan,
        start,
    }) = read
    else {
        errors.extend(wrong_anyway(module, file));
        return None;
    };
    if let Some(name) = exchange {
        errors.extend(strangers(module, name, &plan, &file));
        plan.retain(|planned| has_any(planned, &file));
    }
    let contents = noted(contents_of(module, file, plan, config), errors)?;
    if !errors.is_empty() {
        return None;
    }
    noted(contents.over_base(module, start.as_ref()), errors)
}

/// The tensors that no configuration could make good: not finite or of a dtype that factors do not come in, of layers that the
/// module does not have, or of LoRA and not of the layer's width.
fn wrong_anyway<M: Module>(module: &M, (path, file): File) -> Option<AdapterError> {
    let sites = sites(module);
    let layers: HashMap<&str, &View> = sites
        .iter()
        .map(|site| match site.is_vector() {
            true => (site.owner_path(), &site.view),
            false => (site.module_path(), &site.view),
        })
        // A layer is known by its weight, not by its bias.
        .rev()
        .collect();
    let mut keys: Vec<&String> = file.keys().collect();
    keys.sort_unstable();
    let mut faults = Vec::new();
    for key in keys {
        let stored = &file[key];
        faults.extend(stored.numbers(key).err());
        let Some((layer, ending)) = key.strip_prefix(PREFIX).and_then(split) else {
            continue;
        };
        let (key, shape) = (key.clone(), stored.shape.clone());
        let Some(view) = layers.get(layer) else {
            let nearest = nearest(layer, layers.keys().copied()).map(str::to_string);
            faults.push(TensorFault::Unexpected {
                key,
                shape,
                nearest,
            });
            continue;
        };
        let rank = |side: usize| shape.get(side).copied().unwrap_or(0);
        let expected = match ending {
            A => view.input_shape(rank(0)),
            B => view.output_shape(rank(1)),
            _ => continue,
        };
        if shape != expected {
            faults.push(TensorFault::Shape {
                key,
                found: shape,
                expected,
            });
        }
    }
    (!faults.is_empty()).then_some(AdapterError::Tensors { path, faults })
}

/// The tensors for layers that have no adapter of this name. Told by the file, since a configuration may name more than it has.
fn strangers<M: Module>(
    module: &M,
    name: &str,
    plan: &[Planned],
    (path, file): &File,
) -> Option<AdapterError> {
    let present = all_stacks(module);
    let has = |path: &str| {
        let mut present = present.iter().filter(|weight| weight.path == path);
        present.any(|weight| weight.stack.method(name).is_some())
    };
    let unexpected = plan.iter().filter(|planned| !has(&planned.path));
    let faults: Vec<TensorFault> = unexpected
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
    let path = path.clone();
    (!faults.is_empty()).then_some(AdapterError::Tensors { path, faults })
}

/// Whether a file has a tensor of a planned layer. A bias that is scaled with its weight has none of its own.
fn has_any(planned: &Planned, (_, file): &File) -> bool {
    let keys = planned.specs().into_iter();
    let mut keys = keys.map(|spec| layer_key(planned.module_path(), &spec.key));
    keys.len() == 0 || keys.any(|key| file.contains_key(&key))
}

/// What a folder's configuration means for a module.
struct ReadPlan {
    config: LoraConfig,
    plan: Vec<Planned>,
    /// What the factors started from, if the base is to lose it.
    start: Option<Initialization>,
}

/// # Errors
/// Everything that is wrong with the configuration; of one with fields that cannot be read, what its targets are wrong by.
fn read_plan<M: Module>(
    module: &M,
    folder: &Path,
    file: &Result<ReadFile, AdapterError>,
) -> Result<ReadPlan, AdapterError> {
    let (config, faults) = read_fields(folder)?;
    let path = folder.join(CONFIG_FILE);
    let has_known_method = config.has_known_method();
    let mut errors = Vec::new();
    errors.extend(wrong_fields(path.clone(), &faults));
    if !config.unsupported.is_empty() {
        errors.push(AdapterError::Unsupported {
            path,
            features: config.unsupported,
        });
    }
    let start = config.start;
    let mut config = config.adapter;
    if let (MethodConfig::Lora, Ok(file)) = (&config.method, file) {
        config.conv_groups.clone_from(&file.groups);
    }
    let plan = match faults.is_empty() {
        true if has_known_method => noted(plan(module, &config), &mut errors),
        false if has_known_method => {
            // A field that is not there would be wrong in other ways than one that cannot be read.
            errors.extend(check_targets(module, &config).err());
            None
        }
        _ => None,
    };
    AdapterError::all(errors)?;
    Ok(ReadPlan {
        config,
        plan: plan.unwrap_or_default(),
        start,
    })
}

/// Reads the configuration of a PEFT folder.
///
/// # Errors
/// [`AdapterError::Io`] without the file; [`AdapterError::ConfigFile`] when it is no PEFT configuration: every field that is
/// wrong.
pub fn read_config(folder: &Path) -> Result<PeftConfig, AdapterError> {
    let (config, faults) = read_fields(folder)?;
    match wrong_fields(folder.join(CONFIG_FILE), &faults) {
        None => Ok(config),
        Some(error) => Err(error),
    }
}

/// The configuration as far as it can be read, and what is wrong with its fields.
fn read_fields(folder: &Path) -> Result<(PeftConfig, Vec<String>), AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(AdapterError::io(&path))?;
    let map: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| AdapterError::ConfigFile {
            path,
            reason: format!("not a PEFT configuration: {error}"),
        })?;
    Ok(PeftConfig::read(map))
}

fn wrong_fields(path: PathBuf, faults: &[String]) -> Option<AdapterError> {
    (!faults.is_empty()).then(|| AdapterError::ConfigFile {
        path,
        reason: format!("not a PEFT configuration: {}", faults.join("; ")),
    })
}
