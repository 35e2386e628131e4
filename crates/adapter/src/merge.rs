use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

use crate::error::AdapterError;
use crate::lora::cast;
use crate::reach::{AdaptedWeight, adapted_weights, replace_all, replace_stacks, some_stacks};
use crate::stack::Chosen;
use crate::view::Kind;

/// How adapters are folded in for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// The dtype of the whole module afterwards; each parameter keeps its own where none is given. The sums are taken in f32
    /// and rounded once, whatever it is.
    pub dtype: Option<DType>,
    /// Fold an adapter into an embedding, although a head that is tied to it would then change, too. Right where no head is
    /// tied to it.
    pub fold_embeddings: bool,
}

/// Folds the active adapters into their weights, so that inference costs what the base costs.
///
/// The sum is taken in f32 and rounded once to the dtype of W. The base stays beside it, which costs one more copy of
/// the adapted weights and makes [`unmerge`] exact; [`merge_and_unload`] keeps the merged weights only. Merging twice
/// changes nothing.
///
/// # Errors
/// Nothing is merged when the module has no adapter, or when a merged weight would hold NaN or infinity: the error
/// names all layers to blame.
pub fn merge<M: Module>(module: M) -> Result<M, AdapterError> {
    merged(module, None)
}

/// Undoes [`merge`]: the base computes as before it, bit for bit, and the adapters act again.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has none.
pub fn unmerge<M: Module>(module: M) -> Result<M, AdapterError> {
    replace_all(module, |stack| stack.with_merged(None))
}

/// Merges, and leaves a module of plain frozen weights that knows of no adapter.
///
/// Adapters that are switched off are dropped without a trace in the weights.
///
/// # Errors
/// As [`merge`]; [`AdapterError::NotAdaptable`] where an adapter is on an embedding, see
/// [`MergeOptions::fold_embeddings`].
pub fn merge_and_unload<M: Module>(module: M) -> Result<M, AdapterError> {
    merge_and_unload_with(module, &MergeOptions::default())
}

/// [`merge_and_unload`] with a choice of the dtype.
///
/// # Errors
/// As [`merge_and_unload`].
pub fn merge_and_unload_with<M: Module>(
    module: M,
    options: &MergeOptions,
) -> Result<M, AdapterError> {
    if !options.fold_embeddings {
        check_embeddings(&module)?;
    }
    let module = match options.dtype {
        // What was merged before was rounded to the dtype of the base.
        Some(_) => unmerge(module)?,
        None => module,
    };
    let module = merged(module, options.dtype)?.materialize();
    Ok(match options.dtype {
        Some(dtype) => module.map(&mut CastAll(dtype)),
        None => module,
    })
}

/// A head that is tied to an embedding has no weight of its own: it would see what stands beside the embedding only.
fn check_embeddings<M: Module>(module: &M) -> Result<(), AdapterError> {
    let weights = adapted_weights(module).into_iter();
    let own = weights.filter(|weight| {
        let methods = weight.stack.chosen(Chosen::Active);
        weight.stack.view().kind == Kind::Embedding
            && methods.iter().any(|method| !method.is_shared())
    });
    let layers: Vec<String> = own.map(|weight| weight.module_path().to_string()).collect();
    match layers.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::NotAdaptable {
            layers,
            kind: "folded into an embedding, an adapter would also change a head that is tied to it; say that it may \
                   (fold_embeddings), or keep it beside the embedding"
                .to_string(),
        }),
    }
}

fn merged<M: Module>(module: M, dtype: Option<DType>) -> Result<M, AdapterError> {
    let weights = some_stacks(&module)?;
    let mut damaged = Vec::new();
    let mut stacks = HashMap::new();
    for weight in weights {
        if weight.stack.is_merged() {
            continue;
        }
        let merged = merged_weight(&weight, dtype);
        match is_finite(&merged) {
            true => {
                let stack = weight.stack.with_rows(None).with_merged(Some(merged));
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

/// The merged weight as a plain tensor outside of any graph.
fn merged_weight(weight: &AdaptedWeight, dtype: Option<DType>) -> Tensor<2> {
    let dtype = dtype.unwrap_or_else(|| weight.base.dtype());
    // A switched-off stack merges what it would be once it is on.
    let stack = weight.stack.clone().with_enabled(true);
    let composed = stack.compose_f32(weight.base.clone(), Chosen::Active);
    cast(composed, dtype).detach()
}

fn is_finite(tensor: &Tensor<2>) -> bool {
    tensor.clone().is_finite().all().into_scalar::<bool>()
}

/// Brings every float parameter to one dtype.
struct CastAll(DType);

impl ModuleMapper for CastAll {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_trained = param.is_require_grad();
        let param = param.map(|tensor| match tensor.is_autodiff() {
            // What comes of a cast could not be tracked again.
            true => Tensor::from_inner(cast(tensor.inner(), self.0)),
            false => cast(tensor, self.0),
        });
        param.set_require_grad(is_trained)
    }
}
