use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::error::AdapterError;
use crate::reach::{AdaptedWeight, adapted_weights, replace_stacks};
use crate::switch::change_all;

/// Folds the adapters into their weights, `W + s A B`, so that inference costs what the base costs.
///
/// The sum is taken in f32 and rounded once to the dtype of W. The base stays beside it, which costs one more copy of
/// the adapted weights and makes [`unmerge`] exact; [`merge_and_unload`] keeps the merged weights only. Merging twice
/// changes nothing.
///
/// # Errors
/// Nothing is merged when the module has no adapter, or when a merged weight would hold NaN or infinity: the error
/// names all layers to blame.
pub fn merge<M: Module>(module: M) -> Result<M, AdapterError> {
    let weights = adapted_weights(&module);
    if weights.is_empty() {
        return Err(AdapterError::NoAdapter {
            name: None,
            present: Vec::new(),
        });
    }
    let mut damaged = Vec::new();
    let mut stacks = HashMap::new();
    for weight in weights {
        if weight.stack.is_merged() {
            continue;
        }
        let merged = merged_weight(&weight);
        match is_finite(&merged) {
            true => {
                let stack = weight.stack.with_merged(Some(merged));
                stacks.insert(weight.path, stack);
            }
            false => damaged.push(weight.module_path().to_string()),
        }
    }
    match damaged.is_empty() {
        true => Ok(replace_stacks(module, stacks)),
        false => Err(AdapterError::NotFinite { layers: damaged }),
    }
}

/// Undoes [`merge`]: the base computes as before it, bit for bit, and the adapters act again.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has none.
pub fn unmerge<M: Module>(module: M) -> Result<M, AdapterError> {
    change_all(module, |stack| stack.with_merged(None))
}

/// Merges, and leaves a module of plain frozen weights that knows of no adapter.
///
/// Adapters that are switched off are dropped without a trace in the weights.
///
/// # Errors
/// As [`merge`].
pub fn merge_and_unload<M: Module>(module: M) -> Result<M, AdapterError> {
    merge(module).map(Module::materialize)
}

/// The merged weight as a plain tensor outside of any graph.
fn merged_weight(weight: &AdaptedWeight) -> Tensor<2> {
    weight.stack.compose(weight.base.clone()).detach()
}

fn is_finite(tensor: &Tensor<2>) -> bool {
    tensor.clone().is_finite().all().into_scalar::<bool>()
}
