//! Several named adapters on one base: list, activate, rename, delete.

use burn::module::{Module, ParamId};

use crate::attach::check_word;
use crate::error::AdapterError;
use crate::method::Method;
use crate::reach::{all_stacks, replace_all, visible_stacks};

/// One adapter of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// Its method.
    pub method: &'static str,
    /// How many parameters of the module it is on.
    pub weights: usize,
    /// How many parameters it trains.
    pub parameters: usize,
    /// Whether it takes part.
    pub is_active: bool,
}

/// The adapters of a module, in the order in which they come up.
pub fn adapters<M: Module>(module: &M) -> Vec<AdapterInfo> {
    let mut found: Vec<AdapterInfo> = Vec::new();
    for weight in all_stacks(module) {
        for adapter in weight.stack.adapters() {
            let parameters = adapter.method.num_parameters();
            match found.iter_mut().find(|known| known.name == adapter.name) {
                Some(known) => {
                    known.weights += 1;
                    known.parameters += parameters;
                }
                None => found.push(AdapterInfo {
                    name: adapter.name.clone(),
                    method: adapter.method.name(),
                    weights: 1,
                    parameters,
                    is_active: adapter.is_active(),
                }),
            }
        }
    }
    found
}

/// What comes after the down-projections of low-rank adapters: B, its bias, and DoRA's magnitudes. LoRA+ trains these faster.
pub fn up_projections<M: Module>(module: &M) -> Vec<ParamId> {
    let stacks = visible_stacks(module);
    let adapters = stacks.iter().flat_map(|(_, stack)| stack.adapters());
    let ids = adapters.flat_map(|adapter| match &adapter.method {
        Method::Lora(lora) => vec![lora.b.id],
        Method::Dora(dora) => vec![dora.lora.b.id, dora.magnitude.id],
        Method::AdaLora(adalora) => vec![adalora.b.id],
        Method::Parts(parts) => parts.parts.iter().map(|part| part.b.id).collect(),
        // The bias of an up-projection stands in the stack of the layer's bias.
        Method::Dense(dense) if dense.of_lora => vec![dense.delta.id],
        _ => Vec::new(),
    });
    ids.collect()
}

/// Refuses a name that no adapter has.
fn check_present<M: Module>(module: &M, names: &[&str]) -> Result<(), AdapterError> {
    let present: Vec<String> = adapters(module).into_iter().map(|one| one.name).collect();
    let missing = names
        .iter()
        .find(|name| !present.iter().any(|known| known == *name));
    match missing {
        None => Ok(()),
        Some(name) => Err(AdapterError::NoAdapter {
            name: Some(name.to_string()),
            present,
        }),
    }
}

/// Refuses a change while the adapters are merged, from which it could not be told.
fn check_unmerged<M: Module>(module: &M, action: &'static str) -> Result<(), AdapterError> {
    match all_stacks(module)
        .iter()
        .any(|weight| weight.stack.is_merged())
    {
        true => Err(AdapterError::Merged { action }),
        false => Ok(()),
    }
}

/// Lets the adapters of these names take part, and no others. Several act one after the other, in the order in which they were
/// attached.
///
/// # Errors
/// [`AdapterError::NoAdapter`] with a name that the module does not have; [`AdapterError::Merged`].
pub fn activate<M: Module>(module: M, names: &[&str]) -> Result<M, AdapterError> {
    check_present(&module, names)?;
    check_unmerged(&module, "activating others")?;
    replace_all(module, |stack| {
        stack.with_adapters(|adapters| {
            for adapter in adapters {
                adapter.is_active = names.contains(&adapter.name.as_str());
            }
        })
    })
}

/// Takes an adapter off. The others, and what was trained as a whole beside it, stay as they are.
///
/// # Errors
/// [`AdapterError::NoAdapter`]; [`AdapterError::Merged`].
pub fn delete<M: Module>(module: M, name: &str) -> Result<M, AdapterError> {
    check_present(&module, &[name])?;
    check_unmerged(&module, "deleting one")?;
    replace_all(module, |stack| {
        stack.with_adapters(|adapters| adapters.retain(|adapter| adapter.name != name))
    })
}

/// Gives an adapter another name; rows that have it keep it.
///
/// # Errors
/// [`AdapterError::NoAdapter`]; [`AdapterError::DuplicateName`] where another has the new name; [`AdapterError::Config`] with a
/// name that could not stand in a path.
pub fn rename<M: Module>(module: M, from: &str, to: &str) -> Result<M, AdapterError> {
    check_word(to)?;
    check_present(&module, &[from])?;
    let stacks = all_stacks(&module);
    let taken = stacks
        .iter()
        .filter(|weight| weight.stack.method(to).is_some());
    let layers: Vec<String> = taken
        .map(|weight| weight.module_path().to_string())
        .collect();
    if !layers.is_empty() && from != to {
        return Err(AdapterError::DuplicateName {
            name: to.to_string(),
            layers,
        });
    }
    replace_all(module, |stack| {
        let rows = stack.rows_renamed(from, to);
        let renamed = stack.with_adapters(|adapters| {
            for adapter in adapters.iter_mut().filter(|adapter| adapter.name == from) {
                adapter.name = to.to_string();
            }
        });
        renamed.with_rows(rows)
    })
}
