use burn::tensor::module::linear;
use burn::tensor::{Int, Tensor};

use crate::cross_entropy::linear_cross_entropy_with;
use crate::precision::accumulator;

/// What is added to the negative log-likelihood of a token.
///
/// `(1 - e) (-log p_t) + e mean_j(-log p_j) + z (log Z)^2`, with `e` for the smoothing (arXiv:1512.00567, section 7) and `z` for the
/// weight of the squared log of the normalizer (PaLM, arXiv:2204.02311, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossTerms {
    /// `e`, in `[0, 1)`.
    pub label_smoothing: f64,
    /// `z`, 0 or above.
    pub z_loss: f64,
}

impl LossTerms {
    /// Whether nothing is added.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Logits that exist at a time, where the normalizers of all rows are looked for.
const CHUNK: usize = 1 << 24;

/// [`linear_cross_entropy_with`] and [`LossTerms`], as the sum to be minimized and, without autodiff, the sum of the
/// negative log-likelihoods alone.
///
/// No table of all logits is made, since with `h` the hidden state, `W` the weight, and its mean column `w`:
/// - `e mean_j(-log p_j) - e (-log p_t) = e h (W_t - w)`, the normalizer being in both;
/// - `z (log Z)^2` has the gradient of `2 z log Z log Z'`, the first factor a number, and `log Z' = -log p_t + h W_t`. The numbers
///   cost a product of the hidden states with the weight once more.
///
/// Under a soft cap the mean of logits is none of `h`, so that smoothing needs the logits of all rows at once.
///
/// # Shapes
///
/// - hidden: `[n, d]`
/// - weight: `[d, vocab]`, or a transposed view of an embedding
/// - targets, weights: `[n]`
/// - output: `[1]` each, f32
///
/// # Panics
///
/// As [`linear_cross_entropy_with`].
pub fn linear_cross_entropy_regularized(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    softcap: Option<f64>,
    terms: LossTerms,
) -> [Tensor<1>; 2] {
    let LossTerms {
        label_smoothing,
        z_loss,
    } = terms;
    if softcap.is_some() && label_smoothing > 0.0 {
        let logits = capped(linear(hidden, weight, None), softcap);
        return cross_entropy_regularized(logits, targets, weights, terms);
    }
    let nll = |weights: Tensor<1>| {
        let (hidden, weight) = (hidden.clone(), weight.clone());
        linear_cross_entropy_with(hidden, weight, targets.clone(), weights, softcap)
    };
    if terms.is_none() {
        let loss = nll(weights);
        return [loss.clone(), loss.without_autodiff()];
    }
    let wide = accumulator(hidden.dtype());
    let columns = weight.clone().select(1, targets.clone()).transpose(); // [n, d]
    let on_target = dot(hidden.clone(), columns, softcap); // [n]
    let plain = weights.clone().without_autodiff();
    let like = |tensor: Tensor<1>| match on_target.is_autodiff() {
        true => Tensor::from_inner(tensor),
        false => tensor,
    };
    let mut loss = nll(weights);
    let alone = loss.clone().without_autodiff();
    if z_loss > 0.0 {
        let normalizers = log_normalizers(&hidden, &weight, softcap); // [n]
        let squares = (normalizers.clone().square() * plain.clone()).sum() * z_loss;
        let pull = normalizers * plain.clone() * (2.0 * z_loss); // [n]
        let sum =
            nll(plain.clone() + pull.clone()) + (on_target.clone() * like(pull.clone())).sum();
        // The value of the terms, the gradient of what stands for them.
        let shift = alone.clone() + squares - sum.clone().without_autodiff();
        loss = sum + like(shift);
    }
    if label_smoothing > 0.0 {
        let mean = weight.cast(wide).mean_dim(1).transpose(); // [1, d]
        let on_mean = dot(hidden, mean, None); // [n]
        let gap = (on_target.clone() - on_mean) * like(plain);
        loss = loss + gap.sum() * label_smoothing;
    }
    [loss, alone]
}

/// The same of logits.
///
/// # Shapes
///
/// - logits: `[n, vocab]`
/// - targets, weights: `[n]`
/// - output: `[1]` each, f32
pub fn cross_entropy_regularized(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    terms: LossTerms,
) -> [Tensor<1>; 2] {
    let wide = accumulator(logits.dtype());
    let (logits, weights) = (logits.cast(wide), weights.cast(wide));
    let weights = match logits.is_autodiff() && !weights.is_autodiff() {
        true => Tensor::from_inner(weights),
        false => weights,
    };
    let max = logits.clone().detach().max_dim(1); // [n, 1]
    let shifted = logits - max.clone();
    let log_sum = shifted.clone().exp().sum_dim(1).log(); // [n, 1]
    let chosen = shifted.clone().gather(1, targets.unsqueeze_dim::<2>(1));
    let sum = |losses: Tensor<2>| (losses.squeeze_dim::<1>(1) * weights.clone()).sum();
    let alone = sum(log_sum.clone() - chosen.clone());
    let mut loss = alone.clone();
    if terms.label_smoothing > 0.0 {
        loss = loss + sum(chosen - shifted.mean_dim(1)) * terms.label_smoothing;
    }
    if terms.z_loss > 0.0 {
        loss = loss + sum((log_sum + max).square()) * terms.z_loss;
    }
    [loss, alone.without_autodiff()]
}

/// The products of rows, under a soft cap.
fn dot(left: Tensor<2>, right: Tensor<2>, softcap: Option<f64>) -> Tensor<1> {
    let wide = accumulator(left.dtype());
    let products = (left.cast(wide) * right.cast(wide)).sum_dim(1); // [n, 1]
    capped(products, softcap).squeeze_dim(1)
}

fn capped(logits: Tensor<2>, softcap: Option<f64>) -> Tensor<2> {
    match softcap {
        Some(cap) => (logits / cap).tanh() * cap,
        None => logits,
    }
}

/// `log sum_j exp(logits_j)` of each row, without autodiff and with few logits at a time.
fn log_normalizers(hidden: &Tensor<2>, weight: &Tensor<2>, softcap: Option<f64>) -> Tensor<1> {
    let hidden = hidden.clone().without_autodiff();
    let weight = weight.clone().without_autodiff();
    let wide = accumulator(hidden.dtype());
    let [n, vocab] = [hidden.dims()[0], weight.dims()[1]];
    let step = (CHUNK / vocab.max(1)).max(1);
    let chunks = (0..n).step_by(step).map(|from| {
        let rows = hidden.clone().narrow(0, from, step.min(n - from));
        let logits = capped(linear(rows, weight.clone(), None), softcap).cast(wide);
        let max = logits.clone().max_dim(1);
        (logits - max.clone()).exp().sum_dim(1).log() + max // [rows, 1]
    });
    Tensor::cat(chunks.collect(), 0).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, Tolerance};

    use super::*;

    /// The values of `tests/golden/losses.py`.
    struct Golden(serde_json::Value);

    impl Golden {
        fn open() -> Self {
            let text = include_str!("../../../tests/golden/losses.json");
            Self(serde_json::from_str(text).expect("lists of numbers"))
        }

        fn tensor<const D: usize>(
            &self,
            value: &serde_json::Value,
            shape: [usize; D],
        ) -> Tensor<D> {
            let numbers: Vec<f32> = serde_json::from_value(value.clone()).expect("numbers");
            Tensor::from_data(TensorData::new(numbers, shape), &Device::flex().autodiff())
        }
    }

    /// Each case by the form without all logits and by that of logits.
    #[test]
    fn losses_and_gradients_are_those_of_pytorch() {
        let golden = Golden::open();
        let [n, d, vocab] = [6, 5, 11];
        let names = [
            "plain",
            "smoothing",
            "z_loss",
            "both",
            "capped_z_loss",
            "capped_both",
        ];
        for name in names {
            let case = &golden.0["cases"][name];
            let number = |key: &str| case[key].as_f64();
            let terms = LossTerms {
                label_smoothing: number("label_smoothing").expect("a number"),
                z_loss: number("z_loss").expect("a number"),
            };
            let softcap = number("softcap");
            for of_logits in [false, true] {
                let hidden = golden.tensor(&golden.0["hidden"], [n, d]).require_grad();
                let weight = golden
                    .tensor(&golden.0["weight"], [d, vocab])
                    .require_grad();
                let weights = golden.tensor::<1>(&golden.0["weights"], [n]).inner();
                let targets: Vec<i32> =
                    serde_json::from_value(golden.0["targets"].clone()).expect("tokens");
                let device = Device::flex().autodiff();
                let targets = Tensor::<1, Int>::from_ints(targets.as_slice(), &device);
                let [loss, alone] = match of_logits {
                    false => linear_cross_entropy_regularized(
                        hidden.clone(),
                        weight.clone(),
                        targets,
                        weights,
                        softcap,
                        terms,
                    ),
                    true => {
                        let logits = capped(linear(hidden.clone(), weight.clone(), None), softcap);
                        cross_entropy_regularized(logits, targets, weights, terms)
                    }
                };
                let close = |found: TensorData, key: &str| {
                    let expected: Vec<f32> =
                        serde_json::from_value(case[key].clone()).expect("numbers");
                    let expected = TensorData::new(expected, found.shape().clone());
                    found.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-5, 1e-5));
                };
                close(loss.clone().into_data(), "loss");
                close(alone.into_data(), "alone");
                let grads = loss.backward();
                close(
                    hidden.grad(&grads).expect("tracked").into_data(),
                    "d_hidden",
                );
                close(
                    weight.grad(&grads).expect("tracked").into_data(),
                    "d_weight",
                );
            }
        }
    }
}
