//! How much an adapter changes each weight.

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use burn_lora_kernels::LowRank;
use serde::Serialize;

use crate::lora::cast;
use crate::method::Method;
use crate::reach::{AdaptedWeight, adapted_weights};

/// What an adapter does to one weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerChange {
    /// Path of the layer.
    pub layer: String,
    /// The method.
    pub method: &'static str,
    /// The inner dimension, for a method that has one.
    pub rank: Option<usize>,
    /// The Frobenius norm of the change.
    pub norm: f64,
    /// That of the weight without it, where it is known.
    pub weight_norm: Option<f64>,
}

impl LayerChange {
    /// The norm as a share of the weight's.
    pub fn share(&self) -> Option<f64> {
        let weight = self.weight_norm.filter(|norm| *norm > 0.0)?;
        Some(self.norm / weight)
    }
}

/// The change of each weight by the adapter `name`, in the module's order.
///
/// Of a product of two factors the norm is `s sqrt(tr(A' A B B'))`, computed of matrices as small as the rank; other
/// methods are composed, one weight at a time.
pub fn changes<M: Module>(module: &M, name: &str) -> Vec<LayerChange> {
    let weights = adapted_weights(module);
    let adapted = weights.iter().filter_map(|weight| {
        let method = weight.stack.method(name)?;
        let is_own = !matches!(method, Method::TiedBias(_));
        is_own.then_some((weight, method))
    });
    adapted
        .map(|(weight, method)| change(weight, method))
        .collect()
}

fn change(weight: &AdaptedWeight, method: &Method) -> LayerChange {
    let base = cast(weight.base.clone(), DType::F32).detach();
    let norm = match method.inner().low_rank() {
        Some(low_rank) => low_rank_norm(low_rank),
        None => {
            let composed = method.inner().compose(base.clone(), &weight.base);
            frobenius(composed.detach() - base.clone())
        }
    };
    LayerChange {
        layer: weight.module_path().to_string(),
        method: method.name(),
        rank: method.rank(),
        norm,
        weight_norm: Some(frobenius(base)),
    }
}

/// `|s A B|`, by `tr((A B)' A B) = sum((A' A) * (B B'))`.
fn low_rank_norm(LowRank { a, b, scale }: LowRank) -> f64 {
    let (a, b) = (a.detach(), b.detach());
    let left = a.clone().transpose().matmul(a); // [rank, rank]
    let right = b.clone().matmul(b.transpose()); // [rank, rank]
    let square = sum(left * right);
    // A product that is 0 may come out below.
    scale.abs() * square.max(0.0).sqrt()
}

fn frobenius(matrix: Tensor<2>) -> f64 {
    sum(matrix.powi_scalar(2)).sqrt()
}

fn sum(matrix: Tensor<2>) -> f64 {
    matrix.sum().into_data().iter::<f64>().next().unwrap_or(0.0)
}
