use std::collections::HashMap;

use burn::module::Module;

use crate::error::AdapterError;
use crate::reach::{adapted_weights, replace_stacks};
use crate::stack::AdapterStack;

/// Turns the adapters of a module off, so that it computes exactly as its base, or on again.
///
/// A module that was trained as a whole beside them ([`modules_to_save`](crate::LoraConfig::modules_to_save)) stays as it is.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has none.
pub fn set_enabled<M: Module>(module: M, enabled: bool) -> Result<M, AdapterError> {
    change_all(module, |stack| stack.with_enabled(enabled))
}

/// Applies a change to every stack of a module.
pub(crate) fn change_all<M: Module>(
    module: M,
    change: impl Fn(AdapterStack) -> AdapterStack,
) -> Result<M, AdapterError> {
    let weights = adapted_weights(&module);
    if weights.is_empty() {
        return Err(AdapterError::NoAdapter {
            name: None,
            present: Vec::new(),
        });
    }
    let stacks: HashMap<_, _> = weights
        .into_iter()
        .map(|weight| (weight.path, change(weight.stack)))
        .collect();
    Ok(replace_stacks(module, stacks))
}
