use burn_lora_kernels::{Rope, RopeScaling, Scores};

use super::family::{Family, base, divisors, even, layers, longest, multiple};
use super::rope::RopeNames;
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::{BlockNames, LLAMA, LLAMA_BLOCK, Names};
use crate::decoder::norm::NormKind;
use crate::decoder::plan::{
    AttentionPlan, LinearForm, MlpForm, MlpPlan, NormPlan, Plan, QkvForm, Residual,
};

const NAMES: Names = Names {
    prefix: "gpt_neox.",
    tokens: "embed_in",
    tokens_weight: "gpt_neox.embed_in.weight",
    last_norm: "final_layer_norm",
    head: "embed_out",
    block: BlockNames {
        attention: "attention",
        qkv: "query_key_value",
        attention_out: "dense",
        up: "dense_h_to_4h",
        down: "dense_4h_to_h",
        ..LLAMA_BLOCK
    },
    // The causal mask and the frequencies, which older libraries stored beside the weights.
    harmless: &[
        ".attention.bias",
        ".attention.masked_bias",
        "rotary_emb.inv_freq",
    ],
    renamed: &[("embed_out.weight", "lm_head.weight")],
    ..LLAMA
};

schema! {
    /// `config.json` of GPT-NeoX (arXiv:2204.06745) and Pythia, its fields under the names they have there.
    ///
    /// The dropout of pretraining (`attention_dropout`, `hidden_dropout`) is not applied: a frozen base needs no
    /// regularization of its own.
    pub struct GptNeoxConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 50_432, required;
        /// Width of the hidden states.
        hidden_size: usize = 6144, required;
        /// Width of the inner layer.
        intermediate_size: usize = 24_576, required;
        /// Number of blocks.
        num_hidden_layers: usize = 44, required;
        /// Attention heads.
        num_attention_heads: usize = 64, required;
        /// The activation of the inner layer.
        hidden_act: Activation = Activation::Gelu;
        /// Positions of pretraining.
        max_position_embeddings: usize = 2048;
        /// The epsilon of the norms.
        layer_norm_eps: f64 = 1e-5;
        /// The base of the rotary frequencies.
        rotary_emb_base: f64 = 10_000.0;
        /// The part of a head that is rotated.
        rotary_pct: f64 = 0.25;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// A bias on the projections of attention.
        attention_bias: bool = true;
        /// Whether attention and inner layer read the same residual stream.
        use_parallel_residual: bool = true;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl GptNeoxConfig {
    fn d_head(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    fn rotated(&self) -> usize {
        (self.d_head() as f64 * self.rotary_pct) as usize
    }
}

impl Family for GptNeoxConfig {
    const MODEL_TYPE: &'static str = "gpt_neox";
    const ARCHITECTURE: &'static str = "GPTNeoXForCausalLM";
    const CLASSIFIER: &'static str = "GPTNeoXForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["query_key_value"];
    const ROPE: RopeNames = RopeNames {
        theta: "rotary_emb_base",
        partial: "rotary_pct",
        local_theta: None,
    };

    fn contradictions(&self) -> Vec<String> {
        let width = ("hidden_size", self.hidden_size);
        let heads = ("num_attention_heads", self.num_attention_heads);
        let part = self.rotary_pct;
        let more = (part > 1.0).then(|| format!("`rotary_pct` {part} is above 1"));
        let problems = [
            multiple(width, heads),
            even("head width * rotary_pct", self.rotated()),
            base("rotary_emb_base", self.rotary_emb_base),
            divisors(&self.rope_scaling, self.rotated()),
            more,
        ];
        problems.into_iter().flatten().collect()
    }

    fn plan(&self) -> Plan {
        let rope = Rope::new(
            self.rotated(),
            self.rotary_emb_base,
            self.rope_scaling.clone(),
        );
        Plan {
            names: &NAMES,
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            max_positions: longest(self.max_position_embeddings, &self.rope_scaling),
            learned_positions: false,
            embedding_scale: None,
            norm: NormPlan {
                kind: NormKind::Layer,
                eps: self.layer_norm_eps,
            },
            linear: LinearForm::Linear,
            residual: match self.use_parallel_residual {
                true => Residual::Parallel,
                false => Residual::Sequential,
            },
            attention: AttentionPlan {
                n_heads: self.num_attention_heads,
                n_kv_heads: self.num_attention_heads,
                d_head: self.d_head(),
                qkv: QkvForm::PerHead,
                qkv_bias: self.attention_bias,
                out_bias: self.attention_bias,
                head_norms: false,
                scores: Scores::of_width(self.d_head()),
            },
            ropes: vec![rope],
            mlp: MlpPlan {
                d_inner: self.intermediate_size,
                form: MlpForm::Plain,
                activation: self.hidden_act,
                bias: true,
            },
            experts: None,
            layers: layers(self.num_hidden_layers, |_| None),
            tied: self.tie_word_embeddings,
            logit_softcap: None,
            initializer_range: self.initializer_range,
        }
    }
}
