use burn::module::Module;

use crate::error::AdapterError;
use crate::reach::replace_all;

/// Turns the adapters of a module off, so that it computes exactly as its base, or on again.
///
/// A module that was trained as a whole beside them ([`modules_to_save`](crate::LoraConfig::modules_to_save)) stays as it is.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has none.
pub fn set_enabled<M: Module>(module: M, enabled: bool) -> Result<M, AdapterError> {
    replace_all(module, |stack| stack.with_enabled(enabled))
}
