//! T5: an encoder and a decoder whose attention adds a learned bias for each distance and does not scale its scores.

mod block;
mod buckets;
mod config;
mod extras;
mod load;
mod loss;
mod session;
mod stack;

use burn::nn::{Embedding, Linear};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora_adapter::{embed, project};

pub use block::{T5Attention, T5Block};
pub use config::{T5Config, T5Variant};
pub(crate) use load::{has_own_head, leniency};
pub use session::T5Session;
pub use stack::T5Stack;

use block::KeysValues;
use stack::Cross;

use crate::cache::KvCache;
use crate::decoder::tied_head;
use crate::encoder::batch::Limits;
use crate::encoder::scope::Scope;
use crate::encoder::view::padding;
use crate::encoder::{BatchError, EncoderBatch};
use crate::named::{Named, unnamed_module};
use crate::virtual_tokens::{TokenSlot, behind, with_places};
use crate::weights::Weights;

/// T5 (arXiv:1910.10683): the original, 1.1 and Flan-T5; and mT5 (arXiv:2010.11934).
///
/// Its positions are distances, so sequences may have any length. It was trained in bf16, whose range its activations use:
/// in f16 the larger ones overflow.
#[derive(Debug, Clone)]
pub struct T5 {
    /// Tokens of encoder and decoder, `[vocab, d_model]`.
    pub shared: Named<Embedding>,
    /// What reads.
    pub encoder: Named<T5Stack>,
    /// What writes.
    pub decoder: Named<T5Stack>,
    /// The head, unless it is the transposed embedding.
    pub lm_head: Option<Named<Linear>>,
    virtual_tokens: TokenSlot,
    config: T5Config,
}

unnamed_module!(T5 { shared, encoder, decoder, lm_head, virtual_tokens } with { config });

/// What the encoder made of a batch, as the decoder looks at it: computed once, whatever is decoded.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The encoder's states, `[batch, seq, d_model]`. What stands at padding has no meaning.
    pub hidden: Tensor<3>,
    /// Keys and values of each block of the decoder.
    keys_values: Vec<KeysValues>,
    padding: Option<Tensor<4>>,
}

impl Encoded {
    /// Row `i` becomes what row `rows[i]` was. Rows may be repeated, moved and left out.
    ///
    /// # Panics
    ///
    /// If a row does not exist.
    pub fn select(self, rows: &[usize]) -> Self {
        let index: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let index = Tensor::<1, Int>::from_ints(index.as_slice(), &self.hidden.device());
        let of = |tensor: Tensor<4>| tensor.select(0, index.clone());
        let keys_values = self.keys_values.into_iter();
        Self {
            keys_values: keys_values.map(|(k, v)| (of(k), of(v))).collect(),
            padding: self.padding.map(of),
            hidden: self.hidden.select(0, index.clone()),
        }
    }
}

/// The keys and values of the tokens that a decoder has written.
#[derive(Debug)]
pub struct T5Cache {
    written: KvCache,
}

impl T5Cache {
    /// Row `i` becomes what row `rows[i]` was, as in [`KvCache::select_rows`].
    ///
    /// # Panics
    ///
    /// If a row does not exist.
    pub fn select_rows(&mut self, rows: &[usize]) {
        self.written.select_rows(rows, 0);
    }
}

impl T5 {
    pub(crate) fn build(config: &T5Config, weights: &mut Weights<'_>) -> Self {
        let (vocab, d) = (config.vocab_size, config.d_model);
        let mut scope = Scope::root(weights);
        let mut stack = |name: &str, is_decoder: bool| {
            scope.enter(name, |scope| T5Stack::build(config, is_decoder, scope))
        };
        let (encoder, decoder) = (stack("encoder", false), stack("decoder", true));
        scope.set_std(config.initializer_factor);
        Self {
            shared: scope.embedding("shared", [vocab, d]),
            encoder,
            decoder,
            lm_head: (!config.tie_word_embeddings)
                .then(|| scope.linear("lm_head", [d, vocab], false)),
            virtual_tokens: TokenSlot::default(),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.shared.weight.base().dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.shared.weight.base().device()
    }

    /// Pads rows to the longest, as a batch for the encoder.
    ///
    /// # Errors
    ///
    /// Every row that is empty or holds tokens that the model does not know.
    pub fn batch(&self, rows: &[Vec<u32>]) -> Result<EncoderBatch, BatchError> {
        let limits = Limits {
            vocab_size: self.config.vocab_size,
            max_length: usize::MAX,
            segments: 0,
        };
        EncoderBatch::from_rows(rows, None, limits, &self.device())
    }

    /// Reads a batch, and embeddings of virtual tokens in front of it, which are then among the states.
    ///
    /// # Panics
    ///
    /// If the lengths are not one of `1..=seq` for each row; [`Self::batch`] makes batches of which that is not true.
    pub fn encode(&self, batch: &EncoderBatch) -> Encoded {
        batch.assert_rows();
        let tokens = self.row_tokens(batch.lengths.len(), false);
        let (front, counts) = (self.front(&tokens, &[]), tokens.counts());
        let ids = with_places(batch.ids.clone(), &counts);
        let lengths = batch.lengths.iter().zip(&counts);
        let lengths: Vec<usize> = lengths.map(|(length, count)| length + count).collect();
        let ([_, seq], device) = (ids.dims(), ids.device());
        let padding = padding(seq, &lengths, &device);
        let x = embed(&self.shared, ids);
        let x = match &front {
            Some(front) => front.put(x),
            None => x,
        };
        let bias = self.encoder.encoder_bias(seq, padding.as_ref(), &device);
        let hidden = self.encoder.forward(x, bias, None, None, None);
        let blocks = self.decoder.block.iter();
        let keys_values = blocks.filter_map(|block| block.cross_keys_values(hidden.clone()));
        Encoded {
            keys_values: keys_values.collect(),
            hidden,
            padding,
        }
    }

    /// The decoder's states, ready for the head, at each token that it has written. Rows may be padded behind.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, from the token that the decoder starts from on
    /// - output: `[batch, seq, d_model]`
    pub fn decode(&self, ids: Tensor<2, Int>, encoded: &Encoded) -> Tensor<3> {
        self.written(ids, encoded, None)
    }

    /// As [`Self::decode`] for tokens that follow those in the cache, which then holds both.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// If the cache is too small.
    pub fn decode_cached(
        &self,
        ids: Tensor<2, Int>,
        encoded: &Encoded,
        cache: &mut T5Cache,
    ) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let places = match cache.written.is_empty() {
            true => self.row_tokens(batch, true).longest(),
            false => 0,
        };
        let seq = places + seq;
        let (end, capacity) = (cache.written.len() + seq, cache.written.capacity());
        assert!(
            end <= capacity,
            "{end} tokens do not fit a cache of {capacity}"
        );
        let hidden = self.written(ids, encoded, Some(&mut cache.written));
        cache.written.advance(seq);
        hidden
    }

    /// An empty cache for `capacity` written tokens in each row.
    pub fn new_cache(&self, capacity: usize) -> T5Cache {
        T5Cache {
            written: KvCache::new(self.config.num_decoder_layers, capacity + self.places()),
        }
    }

    fn written(
        &self,
        ids: Tensor<2, Int>,
        encoded: &Encoded,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let ([batch, written], device) = (ids.dims(), ids.device());
        let start = cache.as_deref().map_or(0, KvCache::len);
        let tokens = self.row_tokens(batch, true);
        let free = match cache.as_deref_mut() {
            Some(cache) => cache.free(tokens.free()),
            None => tokens.free(),
        };
        // Those of a cache that has begun are in it.
        let (places, front) = match start {
            0 => (tokens.longest(), self.front(&tokens, &free)),
            _ => (0, None),
        };
        let ids = with_places(ids, &[places]);
        let seq = places + written;
        let bias = self.decoder.decoder_bias(seq, start, &free, &device);
        let cross = Cross {
            keys_values: &encoded.keys_values,
            padding: encoded.padding.as_ref(),
        };
        let x = embed(&self.shared, ids);
        let x = self
            .decoder
            .forward(x, bias, Some(cross), front.as_ref(), cache);
        let x = behind(x, &[places], written);
        match self.config.scale_decoder_outputs {
            true => x * (self.config.d_model as f64).powf(-0.5),
            false => x,
        }
    }

    /// The logits of the decoder's states, in the dtype of the model.
    ///
    /// # Shapes
    ///
    /// - hidden: `[..., d_model]`
    /// - output: `[..., vocab]`
    pub fn logits_of<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => project(head, hidden),
            None => tied_head(&self.shared, hidden),
        }
    }
}
