use burn_lora_adapter::MethodInfo;

const MODELS: &str = "decoders, encoders with any head, T5";
const SUITE: &str = "`invariants`, `transformer/src/tests`";
const SUITE_AND_PEFT: &str =
    "`invariants`, `transformer/src/tests`; PEFT both ways: `golden/virtual_tokens`";
const NEVER: &str = "no: no weight does what it does";

/// The methods that are parts of a model beside its weights; `docs/methods.md` is made of it.
pub const PART_METHODS: [MethodInfo; 4] = [
    MethodInfo {
        word: "prompt",
        formula: "model([P; E(x)])",
        paper: "arXiv:2104.08691",
        layers: MODELS,
        merges: NEVER,
        count: "n d_model",
        peft: "PROMPT_TUNING",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "p-tuning",
        formula: "model([f(P); E(x)]), f an MLP or LSTMs",
        paper: "arXiv:2103.10385",
        layers: MODELS,
        merges: NEVER,
        count: "n d_model, and f in training",
        peft: "P_TUNING",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "prefix",
        formula: "attention(q, [P_k; k], [P_v; v])",
        paper: "arXiv:2101.00190",
        layers: MODELS,
        merges: NEVER,
        count: "2 n L kv_heads d_head",
        peft: "PREFIX_TUNING",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "bottleneck",
        formula: "x + s (f(x D + d) U + u), after attention and inner layer (Houlsby), after the inner layer (Pfeiffer), or beside it",
        paper: "arXiv:1902.00751, arXiv:2005.00247, arXiv:2110.04366",
        layers: MODELS,
        merges: NEVER,
        count: "L (2 d_model r + r + d_model), twice for Houlsby",
        peft: "ours: BOTTLENECK",
        tested: SUITE,
    },
];

/// The modules that hold what these methods train: by these names, [`AdapterOnly`](burn_lora_adapter::AdapterOnly) shows them to an
/// optimizer and to checkpoints (`with_saved_modules`).
pub const PART_MODULES: [&str; 4] = [
    "prompt_encoder",
    "adapter_after_attention",
    "adapter_after_mlp",
    "adapter_beside_mlp",
];
