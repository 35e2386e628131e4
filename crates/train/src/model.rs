use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_lora_adapter::{AdapterError, AdapterOnly, adapters, set_enabled};
use burn_lora_kernels::{LossTerms, cross_entropy, cross_entropy_regularized};
use burn_lora_transformer::{Decoder, WithParts};

/// What the recipe needs of a causal language model.
///
/// The recipe trains the parameters that the module shows to visitors: all of a [`Decoder`], or the adapters alone where
/// it is wrapped in [`AdapterOnly`].
pub trait CausalLm: Module + 'static {
    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// - ids: `[batch_size, seq_len]`, padded on the right
    /// - output: `[batch_size, seq_len, d_model]`
    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// Hidden states of rows that hold several examples, each as it would be in a row of its own.
    ///
    /// # Shapes
    /// - ids: `[batch_size, seq_len]`
    /// - documents: the lengths of each row's examples
    /// - output: `[batch_size, seq_len, d_model]`
    fn hidden_packed(&self, ids: Tensor<2, Int>, documents: &[Vec<usize>]) -> Tensor<3>;

    /// Whether rows may hold several examples.
    fn can_pack(&self) -> bool {
        true
    }

    /// The output head.
    ///
    /// # Shapes
    /// - hidden: `[n, d_model]`
    /// - output: `[n, vocab_size]`
    fn head(&self, hidden: Tensor<2>) -> Tensor<2>;

    /// The weighted sum of the negative log-likelihoods of the targets, by the output head.
    ///
    /// A model whose head is one matrix computes it without all logits at once
    /// ([`linear_cross_entropy`](burn_lora_kernels::linear_cross_entropy)).
    ///
    /// # Shapes
    /// - hidden: `[n, d_model]`
    /// - targets, weights: `[n]`
    /// - output: `[1]`, f32
    fn cross_entropy(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
    ) -> Tensor<1> {
        cross_entropy(self.head(hidden), targets, weights)
    }

    /// [`Self::cross_entropy`] with what is added to it in training, and, without autodiff, the sum without that.
    ///
    /// # Shapes
    /// As [`Self::cross_entropy`], for each of both.
    fn cross_entropy_regularized(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
        terms: LossTerms,
    ) -> [Tensor<1>; 2] {
        cross_entropy_regularized(self.head(hidden), targets, weights, terms)
    }

    /// The same with noise on its embeddings in training (NEFTune, arXiv:2310.05914), or nothing if it knows none.
    fn with_embedding_noise(self, alpha: f64) -> Option<Self> {
        let _ = alpha;
        None
    }

    /// Whether anything is attached, on weights or beside them.
    fn has_adapters(&self) -> bool {
        !adapters(self).is_empty()
    }

    /// The same with all that is attached off: what it is trained from.
    ///
    /// # Errors
    /// Adapters that are merged.
    fn without_adapters(self) -> Result<Self, AdapterError> {
        set_enabled(self, false)
    }

    /// Positions the model knows.
    fn max_positions(&self) -> usize;

    /// Tokens the model knows.
    fn vocab_size(&self) -> usize;
}

impl CausalLm for Decoder {
    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        // No mask: under causal attention no learned position sees the padding on its right.
        Decoder::hidden(self, ids, None)
    }

    fn hidden_packed(&self, ids: Tensor<2, Int>, documents: &[Vec<usize>]) -> Tensor<3> {
        Decoder::hidden_packed(self, ids, documents)
    }

    fn can_pack(&self) -> bool {
        Decoder::can_pack(self)
    }

    fn head(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.logits_of(hidden)
    }

    fn cross_entropy(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
    ) -> Tensor<1> {
        self.cross_entropy_of(hidden, targets, weights)
    }

    fn cross_entropy_regularized(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
        terms: LossTerms,
    ) -> [Tensor<1>; 2] {
        self.cross_entropy_regularized_of(hidden, targets, weights, terms)
    }

    fn with_embedding_noise(self, alpha: f64) -> Option<Self> {
        Some(Decoder::with_embedding_noise(self, Some(alpha)))
    }

    fn has_adapters(&self) -> bool {
        WithParts::has_adapters(self)
    }

    fn without_adapters(self) -> Result<Self, AdapterError> {
        WithParts::without_adapters(self)
    }

    fn max_positions(&self) -> usize {
        Decoder::max_positions(self)
    }

    fn vocab_size(&self) -> usize {
        Decoder::vocab_size(self)
    }
}

impl<M: CausalLm> CausalLm for AdapterOnly<M> {
    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.inner().hidden(ids)
    }

    fn hidden_packed(&self, ids: Tensor<2, Int>, documents: &[Vec<usize>]) -> Tensor<3> {
        self.inner().hidden_packed(ids, documents)
    }

    fn can_pack(&self) -> bool {
        self.inner().can_pack()
    }

    fn head(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.inner().head(hidden)
    }

    fn cross_entropy(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
    ) -> Tensor<1> {
        self.inner().cross_entropy(hidden, targets, weights)
    }

    fn cross_entropy_regularized(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
        terms: LossTerms,
    ) -> [Tensor<1>; 2] {
        self.inner()
            .cross_entropy_regularized(hidden, targets, weights, terms)
    }

    fn with_embedding_noise(self, alpha: f64) -> Option<Self> {
        let mut known = true;
        let noisy = self.map_inner(|model| {
            // Models are cheap to clone: their tensors are shared.
            model
                .clone()
                .with_embedding_noise(alpha)
                .unwrap_or_else(|| {
                    known = false;
                    model
                })
        });
        known.then_some(noisy)
    }

    fn has_adapters(&self) -> bool {
        self.inner().has_adapters()
    }

    fn without_adapters(self) -> Result<Self, AdapterError> {
        let bare = self.inner().clone().without_adapters()?;
        Ok(self.map_inner(|_| bare))
    }

    fn max_positions(&self) -> usize {
        self.inner().max_positions()
    }

    fn vocab_size(&self) -> usize {
        self.inner().vocab_size()
    }
}
