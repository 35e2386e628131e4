use burn::tensor::{Int, Tensor};
use burn_lora_adapter::shared_table;
use burn_lora_kernels::{
    LossTerms, cross_entropy, cross_entropy_regularized, linear_cross_entropy_regularized,
    linear_cross_entropy_with,
};

use super::{Decoder, is_plain};

impl Decoder {
    /// The weighted sum of the negative log-likelihoods of the tokens that follow hidden states.
    ///
    /// As [`cross_entropy`] of [`Self::logits_of`], but on a CPU the logits of all states are never there at once.
    ///
    /// # Shapes
    ///
    /// - hidden: `[n, hidden]`
    /// - targets, weights: `[n]`
    /// - output: `[1]`, f32
    pub fn cross_entropy_of(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
    ) -> Tensor<1> {
        let Some(weight) = self.head_weight() else {
            return cross_entropy(self.logits_of(hidden), targets, weights);
        };
        linear_cross_entropy_with(hidden, weight, targets, weights, self.plan.logit_softcap)
    }

    /// [`Self::cross_entropy_of`] with what is added to it in training, and the sum without that.
    ///
    /// # Shapes
    ///
    /// As [`Self::cross_entropy_of`], for each of both.
    pub fn cross_entropy_regularized_of(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
        terms: LossTerms,
    ) -> [Tensor<1>; 2] {
        let softcap = self.plan.logit_softcap;
        match self.head_weight() {
            Some(weight) => {
                linear_cross_entropy_regularized(hidden, weight, targets, weights, softcap, terms)
            }
            None => cross_entropy_regularized(self.logits_of(hidden), targets, weights, terms),
        }
    }

    /// The head as one weight, `[d_model, vocab]`, unless it is adapted.
    fn head_weight(&self) -> Option<Tensor<2>> {
        match &self.head {
            None => Some(shared_table(&self.trunk.tokens).transpose()),
            Some(head) if is_plain(head) => Some(head.weight.val()),
            Some(_) => None,
        }
    }
}
