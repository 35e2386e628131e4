use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::PromptInit;
use crate::weights::normal;

/// Prompt tuning (Lester et al., 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning").
///
/// The embeddings `P` of virtual tokens stand in front of those of the real ones: `model([P; E(x)])`. It trains `n d_model`
/// parameters, and can not be merged: no weight of the model does what tokens do. PEFT: `PROMPT_TUNING`.
#[derive(Module, Debug)]
pub struct PromptTuning {
    /// `[tokens, d_model]`
    pub embedding: Param<Tensor<2>>,
}

impl PromptTuning {
    pub(crate) fn init(
        tokens: usize,
        init: &PromptInit,
        words: Tensor<2>,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let ([vocab_size, d_model], device) = (words.dims(), words.device());
        let rows: Vec<i32> = match init {
            PromptInit::Random => {
                let values = normal(1.0, tokens * d_model, rng);
                return Self {
                    embedding: parameter(values, [tokens, d_model], &device),
                };
            }
            PromptInit::SampleVocab => {
                let draw = |_| rng.random_range(0..vocab_size) as i32;
                (0..tokens).map(draw).collect()
            }
            PromptInit::Tokens(ids) => {
                let ids = ids.iter().map(|id| *id as i32);
                ids.cycle().take(tokens).collect()
            }
        };
        let rows = Tensor::from_ints(rows.as_slice(), &device.clone().without_autodiff());
        let words = words.without_autodiff().select(0, rows).cast(DType::F32);
        let values = words.into_data().iter::<f32>().collect();
        Self {
            embedding: parameter(values, [tokens, d_model], &device),
        }
    }
}

/// A trainable f32 parameter.
pub(super) fn parameter<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let data = TensorData::new(values, shape);
    Param::from_tensor(Tensor::from_data(data, (device, DType::F32)))
}
