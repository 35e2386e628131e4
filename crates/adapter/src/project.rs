use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_kernels::projection;

use crate::initial::observe;
use crate::stack::AdapterStack;

/// A linear layer with its adapters, by the activation path: `x W + b + s (dropout(x) A) B`.
///
/// Neither `A B` nor a gradient of W's shape is ever built, and with W frozen no input is kept for it. The base product
/// runs in the dtype of W, the adapters' in theirs (f32), and the sum is in the dtype of W. A layer without adapters,
/// and one with another of Burn's reparameterizations, computes as `linear.forward(x)`.
///
/// # Shapes
/// - x: `[..., d_in]`
/// - output: `[..., d_out]`
pub fn project<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    observe(&layer.weight, &x);
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let Some(stack) = layer.weight.reparameterization::<AdapterStack>() else {
        return projection(x, layer.weight.val(), bias, None);
    };
    match stack.merged_weight() {
        Some(weight) => projection(x, weight, bias, None),
        None => stack.project(x, layer.weight.base(), bias),
    }
}
