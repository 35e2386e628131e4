use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{BiLstm, BiLstmConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use super::PromptEncoderKind;
use super::prompt::parameter;
use crate::weights::normal;

/// P-tuning v1 (Liu et al., 2021, "GPT Understands, Too").
///
/// The embeddings of virtual tokens are `f(P)`, with a small network `f` that lets them learn together. Once trained, `f(P)` is all
/// that is needed, and what a file holds; without `f` this is prompt tuning. It can not be merged. PEFT: `P_TUNING`.
#[derive(Module, Debug)]
pub struct PTuning {
    /// `[tokens, d_model]`
    pub embedding: Param<Tensor<2>>,
    /// The network; none after a file was read.
    pub encoder: Option<PromptEncoder>,
}

/// The network of P-tuning: `W3 relu(W2 relu(W1 x))`, or `W2 relu(W1 lstm(x))`.
#[derive(Module, Debug)]
pub struct PromptEncoder {
    /// Bidirectional, one after the other, `[d_model]` to `[2 d_hidden]`.
    pub lstms: Vec<BiLstm>,
    /// With ReLU between them, the last one to `[d_model]`.
    pub linears: Vec<Linear>,
}

impl PTuning {
    pub(crate) fn init(
        [tokens, d_model, d_hidden]: [usize; 3],
        kind: PromptEncoderKind,
        device: &Device,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let values = normal(1.0, tokens * d_model, rng);
        let embedding = parameter(values, [tokens, d_model], device);
        let (lstms, widths) = match kind {
            PromptEncoderKind::Mlp => (Vec::new(), vec![d_model, d_hidden, d_hidden, d_model]),
            PromptEncoderKind::Lstm { layers } => {
                let lstm = |index| {
                    let d_input = if index == 0 { d_model } else { 2 * d_hidden };
                    let lstm = BiLstmConfig::new(d_input, d_hidden, true).init(device);
                    // Burn would draw on the device, whose numbers are not the same everywhere.
                    lstm.map(&mut Redraw {
                        d_hidden,
                        rng: &mut *rng,
                    })
                };
                let lstms = (0..layers).map(lstm).collect();
                (lstms, vec![2 * d_hidden, 2 * d_hidden, d_model])
            }
        };
        let linears = widths
            .windows(2)
            .map(|widths| linear([widths[0], widths[1]], device, rng))
            .collect();
        Self {
            embedding,
            encoder: Some(PromptEncoder { lstms, linears }),
        }
    }

    /// # Shapes
    ///
    /// - output: `[tokens, d_model]`
    pub fn forward(&self) -> Tensor<2> {
        let x = self.embedding.val();
        match &self.encoder {
            Some(encoder) => encoder.forward(x),
            None => x,
        }
    }
}

impl PromptEncoder {
    /// # Shapes
    ///
    /// - x, output: `[tokens, d_model]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x: Tensor<3> = x.unsqueeze(); // [1, tokens, d_model]
        let x = self.lstms.iter().fold(x, |x, lstm| lstm.forward(x, None).0);
        let x: Tensor<2> = x.squeeze_dim(0);
        let last = self.linears.len().saturating_sub(1);
        let linears = self.linears.iter().enumerate();
        linears.fold(x, |x, (index, linear)| {
            let x = linear.forward(x);
            if index == last { x } else { relu(x) }
        })
    }
}

/// A trainable linear layer that starts with the spread that PyTorch's has.
pub(super) fn linear([d_in, d_out]: [usize; 2], device: &Device, rng: &mut ChaCha8Rng) -> Linear {
    let std = 1.0 / (3.0 * d_in as f32).sqrt();
    Linear {
        weight: parameter(normal(std, d_in * d_out, rng), [d_in, d_out], device),
        bias: Some(parameter(vec![0.0; d_out], [d_out], device)),
    }
}

/// Draws parameters anew on the host.
struct Redraw<'a> {
    d_hidden: usize,
    rng: &'a mut ChaCha8Rng,
}

impl ModuleMapper for Redraw<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let std = 1.0 / (3.0 * self.d_hidden as f32).sqrt();
        param.map(|old| {
            let values = normal(std, old.shape().num_elements(), self.rng);
            let data = TensorData::new(values, old.shape());
            Tensor::from_data(data, (&old.device(), DType::F32))
        })
    }
}
