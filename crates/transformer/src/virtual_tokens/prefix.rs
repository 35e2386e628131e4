use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, activation};
use rand_chacha::ChaCha8Rng;

use super::p_tuning::linear;
use super::prompt::parameter;
use crate::weights::normal;

/// Prefix tuning (Li and Liang, 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation").
///
/// Every layer's attention finds keys and values `P_k, P_v` of virtual tokens in front of its own: `attention(q, [P_k; k], [P_v; v])`.
/// Trained directly, or made from one embedding for each token by `W2 tanh(W1 x)`, which is not needed afterwards. It trains
/// `n layers 2 kv_heads d_head` parameters, and can not be merged. PEFT: `PREFIX_TUNING`.
#[derive(Module, Debug)]
pub struct PrefixTuning {
    /// `[tokens, layers * 2 * kv_heads * d_head]`, or `[tokens, kv_heads * d_head]` under a projection.
    pub embedding: Param<Tensor<2>>,
    /// The network; none after a file was read.
    pub projection: Option<PrefixProjection>,
}

/// What makes keys and values of an embedding: `W2 tanh(W1 x)`.
#[derive(Module, Debug)]
pub struct PrefixProjection {
    /// `[kv_heads * d_head, d_hidden]`
    pub first: Linear,
    /// `[d_hidden, layers * 2 * kv_heads * d_head]`
    pub second: Linear,
}

impl PrefixTuning {
    /// `width` is that of a layer's keys.
    pub(crate) fn init(
        [tokens, layers, width]: [usize; 3],
        projection: Option<usize>,
        device: &Device,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let all = layers * 2 * width;
        let columns = if projection.is_some() { width } else { all };
        let values = normal(1.0, tokens * columns, rng);
        Self {
            embedding: parameter(values, [tokens, columns], device),
            projection: projection.map(|d_hidden| PrefixProjection {
                first: linear([width, d_hidden], device, rng),
                second: linear([d_hidden, all], device, rng),
            }),
        }
    }

    /// # Shapes
    ///
    /// - output: `[tokens, layers * 2 * kv_heads * d_head]`
    pub fn forward(&self) -> Tensor<2> {
        let x = self.embedding.val();
        match &self.projection {
            Some(projection) => {
                let x = activation::tanh(projection.first.forward(x));
                projection.second.forward(x)
            }
            None => x,
        }
    }
}
