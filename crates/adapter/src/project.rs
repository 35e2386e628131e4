use burn::nn::Linear;
use burn::tensor::{Tensor, module::linear};

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
    let Some(stack) = layer.weight.reparameterization::<AdapterStack>() else {
        return layer.forward(x);
    };
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    match stack.merged_weight() {
        Some(weight) => linear(x, weight, bias),
        None => stack.add_to(linear(x.clone(), layer.weight.base(), bias), x),
    }
}
