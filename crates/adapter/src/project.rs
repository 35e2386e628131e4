use burn::module::Param;
use burn::nn::{Embedding, Linear};
use burn::tensor::module::embedding;
use burn::tensor::{Int, Tensor};
use burn_lora_kernels::{Branch, LowRank, are_side_by_side, projection, projections};

use crate::initial::observe;
use crate::lora::cast;
use crate::rows::grouped;
use crate::stack::{AdapterStack, Chosen};

/// A linear layer with its adapters, by the activation path: `x W + b + s (dropout(x) A) B`.
///
/// Neither `A B` nor a gradient of W's shape is ever built, and with W frozen no input is kept for it. The base product
/// runs in the dtype of W, the adapters' in theirs (f32), and the sum is in the dtype of W. A layer without adapters,
/// and one with another of Burn's reparameterizations, computes as `linear.forward(x)`. Where the rows of a batch have
/// [adapters of their own](crate::with_rows), the first dimension is the batch.
///
/// # Shapes
/// - x: `[..., d_in]`
/// - output: `[..., d_out]`
pub fn project<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    observe(&layer.weight, &x);
    let stack = layer.weight.reparameterization::<AdapterStack>();
    let bias_stack = |bias: &Param<Tensor<1>>| {
        let stack = bias.reparameterization::<AdapterStack>();
        stack.and_then(AdapterStack::rows).map(<[_]>::to_vec)
    };
    let rows = match stack.and_then(AdapterStack::rows) {
        Some(rows) => Some(rows.to_vec()),
        None => layer.bias.as_ref().and_then(bias_stack),
    };
    if let Some(rows) = rows {
        return project_rows(layer, stack, x, &rows);
    }
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let Some(stack) = stack else {
        return projection(x, layer.weight.val(), bias, None);
    };
    match stack.merged_weight() {
        Some(weight) => projection(x, weight, bias, None),
        None => stack.project(x, layer.weight.base(), bias, Chosen::Active),
    }
}

/// Several layers of one input, with their adapters, by one product, where [`projections`] has one for them and each has at most one
/// adapter, of low rank and without dropout: the outputs of [`project`] side by side.
///
/// # Shapes
/// - x: `[..., d_in]`
/// - output: `[..., d_out of the first + d_out of the second + ...]`
pub fn project_together<const D: usize>(layers: &[&Linear], x: &Tensor<D>) -> Option<Tensor<D>> {
    let weights: Vec<Tensor<2>> = layers.iter().map(|layer| layer.weight.base()).collect();
    if !are_side_by_side(&weights) {
        return None;
    }
    let branches: Option<Vec<Branch>> = layers.iter().map(|layer| branch(layer)).collect();
    let y = projections(x, &branches?)?;
    layers.iter().for_each(|layer| observe(&layer.weight, x));
    Some(y)
}

/// A layer as part of a larger one.
fn branch(layer: &Linear) -> Option<Branch> {
    let bias = match &layer.bias {
        Some(bias) if bias.reparameterization::<AdapterStack>().is_some() => return None,
        bias => bias.as_ref().map(|bias| bias.val()),
    };
    let Some(stack) = layer.weight.reparameterization::<AdapterStack>() else {
        let weight = layer.weight.val();
        return Some(Branch {
            weight,
            bias,
            low_rank: None,
        });
    };
    let low_rank = stack.single_low_rank()?;
    Some(Branch {
        weight: layer.weight.base(),
        bias,
        low_rank,
    })
}

/// Each row of the batch with an adapter of its own, or none; rows of the same adapter are computed together.
fn project_rows<const D: usize>(
    layer: &Linear,
    stack: Option<&AdapterStack>,
    x: Tensor<D>,
    rows: &[Option<String>],
) -> Tensor<D> {
    per_row(rows, x, |name, x| {
        let chosen = Chosen::Row(name);
        let bias = layer.bias.as_ref().map(|bias| of_row(bias, chosen));
        match stack {
            Some(stack) => stack.project(x, layer.weight.base(), bias, chosen),
            None => projection(x, layer.weight.val(), bias, None),
        }
    })
}

/// A vector under one adapter.
fn of_row(param: &Param<Tensor<1>>, chosen: Chosen<'_>) -> Tensor<1> {
    let base = param.base();
    match param.reparameterization::<AdapterStack>() {
        Some(stack) => {
            let [n] = base.dims();
            stack.compose(base.reshape([1, n]), chosen).reshape([n])
        }
        None => param.val(),
    }
}

/// Computes the rows of a batch, each under the name of its own, or under none; rows of the same name go together.
///
/// # Shapes
/// - x: `[batch, ...]`, the batch being a multiple of the rows: each stands for as many neighbours
/// - output: what `compute` makes of each row
///
/// # Panics
/// If the batch is no multiple of the rows.
pub fn per_row<const D: usize>(
    rows: &[Option<String>],
    x: Tensor<D>,
    compute: impl Fn(Option<&str>, Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let groups = grouped(rows, x.dims()[0]);
    if let [(name, _)] = groups.names.as_slice() {
        return compute(*name, x);
    }
    let device = x.device().without_autodiff();
    let indices = |values: &[i32]| Tensor::<1, Int>::from_data(values, &device);
    let results = groups.names.iter().map(|(name, rows)| {
        let rows = x.clone().select(0, indices(rows));
        compute(*name, rows)
    });
    let results = results.collect();
    Tensor::cat(results, 0).select(0, indices(&groups.places))
}

/// The rows of an embedding with its adapters: `W[i] + s A[i] B`, without the adapted table as a whole where the method is
/// a product of two factors.
///
/// # Shapes
/// - ids: `[batch, seq]`
/// - output: `[batch, seq, d_model]`
pub fn embed(layer: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
    let Some(stack) = layer.weight.reparameterization::<AdapterStack>() else {
        return layer.forward(ids);
    };
    if let Some(weight) = stack.merged_weight() {
        return embedding(weight, ids);
    }
    let base = layer.weight.base();
    let Some(rows) = stack.rows() else {
        return embed_with(stack, base, ids, Chosen::Active);
    };
    let groups = grouped(rows, ids.dims()[0]);
    let device = ids.device();
    let indices = |values: &[i32]| Tensor::<1, Int>::from_data(values, &device);
    let results = groups.names.iter().map(|(name, rows)| {
        let ids = ids.clone().select(0, indices(rows));
        embed_with(stack, base.clone(), ids, Chosen::Row(*name))
    });
    let results = results.collect();
    let device = base.device().without_autodiff();
    let places = Tensor::<1, Int>::from_data(groups.places.as_slice(), &device);
    Tensor::cat(results, 0).select(0, places)
}

fn embed_with(
    stack: &AdapterStack,
    base: Tensor<2>,
    ids: Tensor<2, Int>,
    chosen: Chosen<'_>,
) -> Tensor<3> {
    let methods = stack.chosen(chosen);
    if !methods.iter().all(|method| method.is_low_rank()) {
        return embedding(stack.compose(base, chosen), ids);
    }
    let dtype = base.dtype();
    let y = embedding(base, ids.clone());
    let factors = methods
        .into_iter()
        .filter_map(|method| method.inner().low_rank());
    factors.fold(y, |y, LowRank { a, b, scale }| {
        let low = embedding(a, ids.clone()).mul_scalar(scale); // [batch, seq, rank]
        y + cast(projection(low, b, None, None), dtype)
    })
}

/// The table of an embedding as a layer that shares it sees it, a tied head: [`Tokens`](crate::Tokens) and
/// [`Dense`](crate::Dense) change the table for both; what else is put onto the embedding is the embedding's own, as in PEFT.
///
/// # Shapes
/// - output: `[rows, d_model]`
pub fn shared_table(layer: &Embedding) -> Tensor<2> {
    let base = layer.weight.base();
    match layer.weight.reparameterization::<AdapterStack>() {
        Some(stack) => stack.shared(base),
        None => layer.weight.val(),
    }
}
