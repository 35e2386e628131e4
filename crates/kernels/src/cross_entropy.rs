use burn::tensor::{Int, Tensor};

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;
use crate::precision::accumulator;

/// The weighted sum of the negative log-likelihoods of the targets.
///
/// `loss = sum_i weights_i * (log(sum_j exp(logits_ij)) - logits_i,targets_i)`, computed and returned in `f32`.
///
/// Divide by the sum of the weights for the mean. A row with weight 0 adds nothing, but costs as much as the others:
/// leave it out beforehand where that is possible.
///
/// # Shapes
///
/// - logits: `[n, vocab]`
/// - targets, weights: `[n]`
/// - output: `[1]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, weights: Tensor<1>) -> Tensor<1> {
    let wide = accumulator(logits.dtype());
    let logits = logits.cast(wide);
    let max = logits.clone().detach().max_dim(1);
    let shifted = logits - max;
    // The shift cancels in the difference, and no table of log-probabilities is built: only one column of it is needed.
    let log_sum = shifted.clone().exp().sum_dim(1).log();
    let chosen = shifted.gather(1, targets.unsqueeze_dim::<2>(1));
    let losses: Tensor<1> = (log_sum - chosen).squeeze_dim(1);
    (losses * weights.cast(wide)).sum()
}

/// [`cross_entropy`] of the logits `hidden weight`, which CPUs and GPUs never hold all at once.
///
/// # Shapes
///
/// - hidden: `[n, d]`
/// - weight: `[d, vocab]`, or a transposed view of an embedding
/// - targets, weights: `[n]`
/// - output: `[1]`
///
/// # Panics
///
/// If a target is no row of the vocabulary. On a GPU nobody waits to see: there, the loss is NaN then.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> Tensor<1> {
    linear_cross_entropy_with(hidden, weight, targets, weights, None)
}

/// [`linear_cross_entropy`] of logits under a soft cap `c`: `c tanh(hidden weight / c)` (Gemma 2, arXiv:2408.00118).
///
/// # Shapes
///
/// As [`linear_cross_entropy`].
///
/// # Panics
///
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_with(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    softcap: Option<f64>,
) -> Tensor<1> {
    #[cfg(feature = "host")]
    if host::takes(&hidden) && host::takes(&weight) {
        let vocab = weight.dims()[1];
        let targets: Vec<usize> = targets
            .into_data()
            .iter::<i64>()
            .map(|id| id as usize)
            .collect();
        assert!(
            targets.iter().all(|id| *id < vocab),
            "a target outside of the vocabulary"
        );
        let weights = weights.into_data().iter::<f32>().collect();
        return host::cross_entropy(hidden, weight, targets, weights, softcap);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&hidden) && cube::takes(&weight) && !weights.is_tracked() {
        return cube::cross_entropy(hidden, weight, targets, weights, softcap);
    }
    portable::linear_cross_entropy_with(hidden, weight, targets, weights, softcap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};
    use burn::tensor::DType;

    #[test]
    fn sums_the_weighted_negative_log_likelihoods() {
        let device = device();
        let logits = Tensor::<2>::from_floats([[0.0, 3.0f32.ln()], [1.0, 1.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([1, 0], &device);
        let weights = Tensor::<1>::from_floats([2.0, 1.0], &device);
        let loss = cross_entropy(logits, targets, weights);
        assert_values(loss, &[-2.0 * 0.75f32.ln() + 2.0f32.ln()]);
    }

    #[test]
    fn gradient_is_probability_minus_target() {
        let device = device();
        let logits = Tensor::<2>::from_floats([[0.0, 3.0f32.ln()]], &device).require_grad();
        let targets = Tensor::<1, Int>::from_ints([1], &device);
        let weights = Tensor::<1>::from_floats([2.0], &device);
        let grads = cross_entropy(logits.clone(), targets, weights).backward();
        let grad = logits.grad(&grads).expect("logits are tracked");
        assert_values(grad, &[0.5, -0.5]);
    }

    #[test]
    fn large_logits_stay_finite_in_low_precision() {
        let device = device();
        let logits = Tensor::<2>::from_floats([[60000.0, 0.0]], &device).cast(DType::F16);
        let targets = Tensor::<1, Int>::from_ints([0], &device);
        let loss = cross_entropy(logits, targets, Tensor::ones([1], &device));
        assert_eq!(loss.dtype(), DType::F32);
        assert_values(loss, &[0.0]);
    }
}
