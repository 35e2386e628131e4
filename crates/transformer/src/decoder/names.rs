//! The names under which a family's checkpoints hold the parts of a decoder.

/// One name for each part. Those of parts that a family does not have are never looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// In front of everything but the head, dot included. Some checkpoints leave it out.
    pub(crate) prefix: &'static str,
    /// The embedding of tokens.
    pub(crate) tokens: &'static str,
    /// The embedding of tokens as a parameter, with all that stands in front of it.
    pub(crate) tokens_weight: &'static str,
    /// The embedding of positions.
    pub(crate) positions: &'static str,
    /// The list of blocks.
    pub(crate) blocks: &'static str,
    /// The norm after the last block.
    pub(crate) last_norm: &'static str,
    /// The output head.
    pub(crate) head: &'static str,
    pub(crate) block: BlockNames,
    /// Endings of tensors that older libraries wrote and that hold nothing learned.
    pub(crate) harmless: &'static [&'static str],
    /// Endings of names, each with another that is found in its place.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
}

/// The names inside of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockNames {
    /// The norm of what attention reads.
    pub(crate) norm_1: &'static str,
    /// The norm of what attention adds.
    pub(crate) post_norm_1: &'static str,
    /// The norm of what the inner layer reads.
    pub(crate) norm_2: &'static str,
    /// The norm of what the inner layer adds.
    pub(crate) post_norm_2: &'static str,
    pub(crate) attention: &'static str,
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    pub(crate) v: &'static str,
    /// One projection for all three.
    pub(crate) qkv: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    pub(crate) attention_out: &'static str,
    pub(crate) mlp: &'static str,
    pub(crate) gate: &'static str,
    /// What is gated; the whole of an inner layer without a gate.
    pub(crate) up: &'static str,
    /// One projection for gate and up.
    pub(crate) gate_up: &'static str,
    pub(crate) down: &'static str,
    /// What chooses among experts, and their list, in the place of gate, up and down.
    pub(crate) router: &'static str,
    pub(crate) experts: &'static str,
    pub(crate) expert_gate: &'static str,
    pub(crate) expert_up: &'static str,
    pub(crate) expert_down: &'static str,
}

/// Llama's names, which many families share.
pub(crate) const LLAMA: Names = Names {
    prefix: "model.",
    tokens: "embed_tokens",
    tokens_weight: "model.embed_tokens.weight",
    positions: "embed_positions",
    blocks: "layers",
    last_norm: "norm",
    head: "lm_head",
    block: LLAMA_BLOCK,
    harmless: &["rotary_emb.inv_freq"],
    renamed: &[],
};

/// The part of [`LLAMA`] inside of a block.
pub(crate) const LLAMA_BLOCK: BlockNames = BlockNames {
    norm_1: "input_layernorm",
    post_norm_1: "post_attention_layernorm",
    norm_2: "post_attention_layernorm",
    post_norm_2: "post_feedforward_layernorm",
    attention: "self_attn",
    q: "q_proj",
    k: "k_proj",
    v: "v_proj",
    qkv: "qkv_proj",
    q_norm: "q_norm",
    k_norm: "k_norm",
    attention_out: "o_proj",
    mlp: "mlp",
    gate: "gate_proj",
    up: "up_proj",
    gate_up: "gate_up_proj",
    down: "down_proj",
    router: "gate",
    experts: "experts",
    expert_gate: "gate_proj",
    expert_up: "up_proj",
    expert_down: "down_proj",
};

/// The names of Gemma 2 and later, whose blocks have norms on both sides of a part.
pub(crate) const GEMMA: Names = Names {
    block: BlockNames {
        norm_2: "pre_feedforward_layernorm",
        ..LLAMA_BLOCK
    },
    ..LLAMA
};

impl Names {
    /// The module that holds everything but the head.
    pub(crate) fn trunk(&self) -> &'static str {
        self.prefix.trim_end_matches('.')
    }
}
