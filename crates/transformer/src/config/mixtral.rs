use burn_lora_kernels::RopeScaling;

use super::family::{Family, llama_contradictions, llama_shape, routed, too_many};
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::{BlockNames, LLAMA, LLAMA_BLOCK, Names};
use crate::decoder::plan::{ExpertsPlan, Plan};

const NAMES: Names = Names {
    block: BlockNames {
        mlp: "block_sparse_moe",
        expert_gate: "w1",
        expert_up: "w3",
        expert_down: "w2",
        ..LLAMA_BLOCK
    },
    ..LLAMA
};

schema! {
    /// `config.json` of Mixtral (arXiv:2401.04088): a Mistral with experts in the place of each inner layer, its fields under the
    /// names they have there.
    pub struct MixtralConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 32_000, required;
        /// Width of the hidden states.
        hidden_size: usize = 4096, required;
        /// Width of an expert.
        intermediate_size: usize = 14_336, required;
        /// Number of blocks.
        num_hidden_layers: usize = 32, required;
        /// Query heads.
        num_attention_heads: usize = 32, required;
        /// Key and value heads.
        num_key_value_heads: usize = 8;
        /// Width of a head.
        head_dim: usize = hidden_size / num_attention_heads.max(1);
        /// The activation of the gated layer.
        hidden_act: Activation = Activation::Silu;
        /// Positions of pretraining.
        max_position_embeddings: usize = 131_072;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-5;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 1_000_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// How many tokens a token sees; all before it where there is none.
        sliding_window: Option<usize> = None;
        /// Experts in a layer.
        num_local_experts: usize = 8;
        /// Experts that a token goes to.
        num_experts_per_tok: usize = 2;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for MixtralConfig {
    const MODEL_TYPE: &'static str = "mixtral";
    const ARCHITECTURE: &'static str = "MixtralForCausalLM";
    const CLASSIFIER: &'static str = "MixtralForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const HEADS_SHARE_WIDTH: bool = true;

    fn contradictions(&self) -> Vec<String> {
        let experts = (self.num_experts_per_tok, self.num_local_experts);
        let mut problems = llama_contradictions!(self);
        problems.extend(too_many(experts, "num_local_experts"));
        problems
    }

    fn plan(&self) -> Plan {
        let plan = llama_shape!(self, &NAMES, self.hidden_act, |_| self.sliding_window).plan();
        Plan {
            experts: Some(ExpertsPlan {
                n: self.num_local_experts,
                top_k: self.num_experts_per_tok,
                normalize: true,
                d_inner: self.intermediate_size,
            }),
            layers: routed(plan.layers, |_| true),
            ..plan
        }
    }
}
