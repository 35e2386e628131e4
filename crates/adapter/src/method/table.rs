use std::fmt::Write;

/// What there is to know of a method before it is used; `docs/methods.md` is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// The word that chooses it.
    pub word: &'static str,
    /// What it does to a weight.
    pub formula: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// Which layers it goes onto.
    pub layers: &'static str,
    /// What merges and what cannot.
    pub merges: &'static str,
    /// How many parameters it trains on a layer `[d_in, d_out]`.
    pub count: &'static str,
    /// PEFT's `peft_type`, and what else tells it apart there.
    pub peft: &'static str,
    /// Which tests hold it.
    pub tested: &'static str,
}

const ALL_LAYERS: &str = "linear, embedding, Conv1d, Conv2d";
const YES: &str = "yes";
const SUITE: &str = "`invariants`";
const SUITE_AND_PEFT: &str = "`invariants`; PEFT both ways: `golden`";

/// Every method on weights.
pub const METHODS: [MethodInfo; 11] = [
    MethodInfo {
        word: "lora",
        formula: "W + s A B, s = alpha / r (rslora: alpha / sqrt(r))",
        paper: "arXiv:2106.09685, arXiv:2312.03732",
        layers: ALL_LAYERS,
        merges: YES,
        count: "r (d_in + d_out); with lora_bias d_out more",
        peft: "LORA",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "lora-fa",
        formula: "W + s A B, A frozen",
        paper: "arXiv:2308.03303",
        layers: ALL_LAYERS,
        merges: YES,
        count: "r d_out",
        peft: "LORA",
        tested: SUITE,
    },
    MethodInfo {
        word: "dora",
        formula: "m / norm(W + s A B) (W + s A B)",
        paper: "arXiv:2402.09353",
        layers: ALL_LAYERS,
        merges: YES,
        count: "r (d_in + d_out) + d_out",
        peft: "LORA, use_dora",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "vera",
        formula: "W + (A diag(d)) (B diag(b)), A and B random, frozen and shared",
        paper: "arXiv:2310.11454",
        layers: "linear",
        merges: YES,
        count: "r + d_out",
        peft: "VERA",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "loha",
        formula: "W + s (A1 B1) * (A2 B2)",
        paper: "arXiv:2108.06098",
        layers: "linear, Conv1d, Conv2d",
        merges: YES,
        count: "2 r (d_in + d_out); with cores 2 r (channels_in + d_out + r kernel)",
        peft: "LOHA",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "lokr",
        formula: "W + s kron(C, D), D low-rank where that is smaller",
        paper: "arXiv:2212.10650, arXiv:2309.14859",
        layers: "linear, Conv1d, Conv2d",
        merges: YES,
        count: "in_m out_l + r (in_n + out_k), d_in = in_m in_n, d_out = out_l out_k; or in_n out_k for D as a whole",
        peft: "LOKR",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "adalora",
        formula: "W + s (A diag(e)) B, the e of least importance set to 0",
        paper: "arXiv:2303.10512",
        layers: "linear, Conv1d, Conv2d",
        merges: YES,
        count: "r (d_in + d_out + 1)",
        peft: "ADALORA",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "ia3",
        formula: "W diag(l) and b l, or diag(l) W",
        paper: "arXiv:2205.05638",
        layers: "linear, Conv1d, Conv2d",
        merges: "yes, the bias with the weight",
        count: "d_out, or d_in where inputs are scaled",
        peft: "IA3",
        tested: SUITE_AND_PEFT,
    },
    MethodInfo {
        word: "bitfit",
        formula: "b + D",
        paper: "arXiv:2106.10199",
        layers: "whatever has a bias",
        merges: YES,
        count: "d_out",
        peft: "ours: BITFIT",
        tested: SUITE,
    },
    MethodInfo {
        word: "full",
        formula: "W + D, b + D",
        paper: "",
        layers: "all parameters",
        merges: YES,
        count: "d_in d_out, and d_out for a bias",
        peft: "ours: FULL",
        tested: SUITE,
    },
    MethodInfo {
        word: "tokens",
        formula: "rows of W replaced",
        paper: "",
        layers: "embedding, and the head that is tied to it",
        merges: YES,
        count: "tokens x d_model",
        peft: "TRAINABLE_TOKENS",
        tested: SUITE_AND_PEFT,
    },
];

impl MethodInfo {
    /// The table of all methods, as it stands in the documentation.
    pub fn markdown() -> String {
        Self::markdown_of(&METHODS)
    }

    /// A table of these methods.
    pub fn markdown_of(methods: &[Self]) -> String {
        let mut text = String::from(
            "| word | change | paper | layers | merges | trains | PEFT | tested |\n|---|---|---|---|---|---|---|---|\n",
        );
        for method in methods {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} | {} | {} | `{}` | {} | {} |",
                method.word,
                method.formula,
                method.paper,
                method.layers,
                method.merges,
                method.count,
                method.peft,
                method.tested
            );
        }
        text
    }
}

/// How many parameters LoRA of a rank trains on layers of these widths: `r (d_in + d_out)` summed.
pub fn trainable_count(rank: usize, layers: impl IntoIterator<Item = [usize; 2]>) -> usize {
    let widths = layers.into_iter().map(|[d_in, d_out]| d_in + d_out);
    rank * widths.sum::<usize>()
}
