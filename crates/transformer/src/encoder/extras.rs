//! What an encoder carries beside its own parts: virtual tokens and bottlenecks.

use burn::tensor::{DType, Device, Tensor};

use super::head::{EncoderWithHead, HeadTask};
use super::spec::Pooling;
use super::{Encoder, EncoderBatch, EncoderLayer, SentenceEncoder, pool};
use crate::bottleneck::{self, BlockBottlenecks};
use crate::parameters::device_of;
use crate::task::PeftTask;
use crate::virtual_tokens::{
    self, Front, Host, RowTokens, Sizes, TokenSlot, VirtualTokens, behind, with_places,
};
use crate::weigh::cast;

impl EncoderBatch {
    /// With places for virtual tokens in front of every row.
    fn with_places(&self, counts: &[usize]) -> Self {
        let lengths = self.lengths.iter().zip(counts);
        Self {
            ids: with_places(self.ids.clone(), counts),
            lengths: lengths.map(|(length, count)| length + count).collect(),
            segments: self
                .segments
                .clone()
                .map(|segments| with_places(segments, counts)),
        }
    }
}

/// What stands in front of a batch, and the batch with places for it.
struct Placed<'a> {
    tokens: RowTokens<'a>,
    front: Front,
    batch: EncoderBatch,
}

impl Encoder {
    /// The hidden states after the last block. What stands at padding has no meaning.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// If the batch is longer than the model's positions (see [`Self::check_length`]), or its lengths are not one of
    /// `1..=seq` for each row; [`Self::batch`] makes batches of which neither is true.
    pub fn hidden(&self, batch: &EncoderBatch) -> Tensor<3> {
        let Some(placed) = self.placed(batch) else {
            return self.states(batch, None);
        };
        let hidden = self.states(&placed.batch, Some(&placed.front));
        behind(hidden, &placed.tokens.counts(), batch.ids.dims()[1])
    }

    /// One vector of each sequence, `[batch, hidden]`, in this dtype. Embeddings of virtual tokens are pooled with those of the others;
    /// a prefix is not.
    pub(super) fn pooled(&self, batch: &EncoderBatch, pooling: Pooling, dtype: DType) -> Tensor<2> {
        let Some(placed) = self.placed(batch) else {
            return pool(cast(self.states(batch, None), dtype), batch, pooling);
        };
        let hidden = self.states(&placed.batch, Some(&placed.front));
        let rows = placed.tokens.rows().iter();
        let unseen = rows.map(|tokens| tokens.filter(|tokens| tokens.is_prefix()));
        let unseen: Vec<usize> = unseen
            .map(|prefix| prefix.map_or(0, VirtualTokens::count))
            .collect();
        // Every row is moved to where what is pooled of it begins, and cut to what the longest needs.
        let lengths = placed.batch.lengths.iter().zip(&unseen);
        let lengths: Vec<usize> = lengths.map(|(length, unseen)| length - unseen).collect();
        let most = unseen.iter().copied().max().unwrap_or(0);
        let [rows, seq, d] = hidden.dims();
        let longest = lengths.iter().copied().max().unwrap_or(seq);
        let hidden = match longest + most > seq {
            true => {
                let options = (&hidden.device(), hidden.dtype());
                let rest = Tensor::zeros([rows, longest + most - seq, d], options);
                Tensor::cat(vec![hidden, rest], 1)
            }
            false => hidden,
        };
        let pooled = EncoderBatch {
            ids: placed.batch.ids.narrow(1, 0, longest),
            lengths,
            segments: None,
        };
        let hidden = behind(hidden, &unseen, longest);
        pool(cast(hidden, dtype), &pooled, pooling)
    }

    fn placed(&self, batch: &EncoderBatch) -> Option<Placed<'_>> {
        // Before there are places, which a length of 0 would hide in.
        batch.assert_rows();
        let tokens = RowTokens::of(&self.virtual_tokens, batch.lengths.len());
        let front = Front::new(&tokens, self.sizes(), &[], self.dtype())?;
        let batch = batch.with_places(&tokens.counts());
        Some(Placed {
            tokens,
            front,
            batch,
        })
    }
}

impl PeftTask for Encoder {
    fn task_type(&self) -> Option<&'static str> {
        Some("FEATURE_EXTRACTION")
    }
}

impl virtual_tokens::Host for Encoder {
    fn sizes(&self) -> Sizes {
        let spec = &self.spec;
        Sizes {
            d_embedding: spec.embedding_size,
            vocab_size: spec.vocab_size,
            max_positions: spec.max_length,
            layers: spec.n_layers,
            prefix_layers: spec.n_layers,
            n_heads: spec.n_heads,
            n_kv_heads: spec.n_heads,
            d_head: spec.hidden_size / spec.n_heads,
            submodules: 1,
        }
    }

    fn slot(&self) -> &TokenSlot {
        &self.virtual_tokens
    }

    fn map_slot(mut self, change: impl FnOnce(TokenSlot) -> TokenSlot) -> Self {
        self.virtual_tokens = change(self.virtual_tokens);
        self
    }

    fn words(&self) -> Tensor<2> {
        self.embeddings.words.weight.base()
    }
}

impl bottleneck::Host for Encoder {
    fn d_model(&self) -> usize {
        self.spec.hidden_size
    }

    fn device_of_base(&self) -> Device {
        device_of(&self.embeddings.words.weight)
    }

    fn map_blocks(mut self, change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks) -> Self {
        let change = |layer: EncoderLayer| layer.map_bottlenecks(&mut *change);
        let changed = |layers: Vec<EncoderLayer>| layers.into_iter().map(change).collect();
        self.layers = self.layers.map_inner(changed);
        self
    }

    fn first_block(&self) -> Option<&BlockBottlenecks> {
        self.layers.first().map(EncoderLayer::bottlenecks)
    }
}

/// Makes a model with an encoder inside a host as the encoder is one.
macro_rules! host_by_encoder {
    ($model:ty $(, $kind:ident: $bound:ident)?) => {
        impl $(<$kind: $bound>)? virtual_tokens::Host for $model {
            fn sizes(&self) -> Sizes {
                self.encoder.sizes()
            }

            fn slot(&self) -> &TokenSlot {
                self.encoder.slot()
            }

            fn map_slot(self, change: impl FnOnce(TokenSlot) -> TokenSlot) -> Self {
                self.map_encoder(|encoder| encoder.map_slot(change))
            }

            fn words(&self) -> Tensor<2> {
                self.encoder.words()
            }
        }

        impl $(<$kind: $bound>)? bottleneck::Host for $model {
            fn d_model(&self) -> usize {
                self.encoder.d_model()
            }

            fn device_of_base(&self) -> Device {
                self.encoder.device_of_base()
            }

            fn map_blocks(
                self,
                change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks,
            ) -> Self {
                self.map_encoder(|encoder| encoder.map_blocks(change))
            }

            fn first_block(&self) -> Option<&BlockBottlenecks> {
                self.encoder.first_block()
            }
        }
    };
}

host_by_encoder!(EncoderWithHead<T>, T: HeadTask);
host_by_encoder!(SentenceEncoder);

impl<T: HeadTask> PeftTask for EncoderWithHead<T> {
    fn task_type(&self) -> Option<&'static str> {
        T::TASK.peft()
    }
}

impl PeftTask for SentenceEncoder {
    fn task_type(&self) -> Option<&'static str> {
        self.encoder.task_type()
    }
}
