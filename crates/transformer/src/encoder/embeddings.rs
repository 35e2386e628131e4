use burn::nn::{Embedding, Linear};
use burn::tensor::Tensor;
use burn_lora_adapter::{embed, project};

use super::batch::EncoderBatch;
use super::scope::Scope;
use super::spec::Spec;
use crate::named::{Named, unnamed_module};
use crate::norm::LayerNorm;
use crate::virtual_tokens::Front;

/// `norm(word + position + segment)`, as far as an encoder has them.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Tokens, `[vocab, embedding]`.
    pub words: Named<Embedding>,
    /// Learned positions, `[positions, embedding]`.
    pub positions: Option<Named<Embedding>>,
    /// Segments, `[segments, embedding]`.
    pub segments: Option<Named<Embedding>>,
    /// `[embedding, hidden]`, where the two differ.
    pub projection: Option<Named<Linear>>,
    /// Over the sum.
    pub norm: Named<LayerNorm>,
    first_position: usize,
    zeroes_padding: bool,
}

unnamed_module!(Embeddings { words, positions, segments, projection, norm }
    with { first_position, zeroes_padding });

impl Embeddings {
    pub(crate) fn build(spec: &Spec, scope: &mut Scope<'_, '_>) -> Self {
        let (names, d) = (&spec.names, spec.embedding_size);
        let learned = spec.learned;
        Self {
            words: scope.embedding(names.words, [spec.vocab_size, d]),
            positions: learned
                .map(|positions| scope.embedding(names.positions, [positions.count, d])),
            segments: (spec.segments > 0)
                .then(|| scope.embedding(names.segments, [spec.segments, d])),
            projection: (d != spec.hidden_size)
                .then(|| scope.linear(names.projection, [d, spec.hidden_size], false)),
            norm: scope.norm(names.embedding_norm, spec.hidden_size, spec.norm),
            first_position: learned.map_or(0, |positions| positions.first),
            // A convolution looks at neighbours, padding among them; nothing else does.
            zeroes_padding: spec.conv.is_some(),
        }
    }

    /// # Shapes
    ///
    /// - output: `[batch, seq, hidden]`
    pub(crate) fn forward(&self, batch: &EncoderBatch, front: Option<&Front>) -> Tensor<3> {
        let [_, seq] = batch.ids.dims();
        let words = embed(&self.words, batch.ids.clone()); // [batch, seq, embedding]
        let words = match front {
            Some(front) => front.put(words),
            None => words,
        };
        let places = self.positions.as_ref().map(|positions| {
            let rows = positions.weight.val();
            rows.narrow(0, self.first_position, seq) // [seq, embedding]
        });
        let x = match (&self.segments, &batch.segments, places) {
            (None, _, None) => words,
            (None, _, Some(places)) => words + places.unsqueeze::<3>(),
            // Without a word about segments all tokens are of the first: one row serves them.
            (Some(segments), None, places) => {
                let segment = segments.weight.val().narrow(0, 0, 1); // [1, embedding]
                let row = match places {
                    Some(places) => places + segment,
                    None => segment,
                };
                words + row.unsqueeze::<3>()
            }
            (Some(segments), Some(ids), places) => {
                let x = words + segments.forward(ids.clone());
                match places {
                    Some(places) => x + places.unsqueeze::<3>(),
                    None => x,
                }
            }
        };
        let x = match &self.projection {
            Some(projection) => project(projection, x), // [batch, seq, hidden]
            None => x,
        };
        let x = self.norm.forward(x);
        match batch.mask().filter(|_| self.zeroes_padding) {
            Some(mask) => {
                let dtype = x.dtype();
                x * mask.cast(dtype).unsqueeze_dim(2)
            }
            None => x,
        }
    }
}
