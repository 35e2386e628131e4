use std::fmt::Write;

/// What there is to know of an initialization; `docs/methods.md` is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializationInfo {
    /// The word that chooses it.
    pub word: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// What it looks at.
    pub looks_at: &'static str,
    /// What becomes of the base.
    pub base: &'static str,
    /// Its settings, by PEFT's keys.
    pub settings: &'static str,
    /// What a folder is that PEFT saved without conversion.
    pub unconverted: &'static str,
}

const STAYS: &str = "stays";
const LOSES: &str = "loses the factors";
const READ: &str = "read";
const OF_DATA: &str = "refused: data made its base";

/// Every initialization of LoRA's factors; those that are drawn first.
pub const INITIALIZATIONS: [InitializationInfo; 10] = [
    InitializationInfo {
        word: "default",
        paper: "arXiv:2106.09685",
        looks_at: "nothing",
        base: STAYS,
        settings: "",
        unconverted: READ,
    },
    InitializationInfo {
        word: "gaussian",
        paper: "arXiv:2106.09685",
        looks_at: "nothing",
        base: STAYS,
        settings: "",
        unconverted: READ,
    },
    InitializationInfo {
        word: "orthogonal",
        paper: "",
        looks_at: "nothing",
        base: STAYS,
        settings: "",
        unconverted: READ,
    },
    InitializationInfo {
        word: "pissa",
        paper: "arXiv:2404.02948",
        looks_at: "weights",
        base: LOSES,
        settings: "",
        unconverted: "becomes plain LoRA",
    },
    InitializationInfo {
        word: "pissa_niter_16",
        paper: "arXiv:2404.02948",
        looks_at: "weights, by a sketch with so many power iterations",
        base: LOSES,
        settings: "",
        unconverted: "refused: chance made its base",
    },
    InitializationInfo {
        word: "olora",
        paper: "arXiv:2406.01775",
        looks_at: "weights",
        base: LOSES,
        settings: "",
        unconverted: "becomes plain LoRA",
    },
    InitializationInfo {
        word: "loftq",
        paper: "arXiv:2310.08659",
        looks_at: "weights",
        base: "becomes the quantized one",
        settings: "`loftq_bits`, `loftq_iter`",
        unconverted: "refused: bitsandbytes made its base",
    },
    InitializationInfo {
        word: "eva",
        paper: "arXiv:2410.07170",
        looks_at: "inputs of the layers",
        base: STAYS,
        settings: "`rho`, `whiten`, `adjust_scaling_factors`",
        unconverted: READ,
    },
    InitializationInfo {
        word: "corda",
        paper: "arXiv:2406.05223",
        looks_at: "inputs of the layers",
        base: LOSES,
        settings: "`corda_method`",
        unconverted: OF_DATA,
    },
    InitializationInfo {
        word: "lora_ga",
        paper: "arXiv:2407.05000",
        looks_at: "gradients of the weights",
        base: LOSES,
        settings: "`direction`, `scale`, `stable_gamma`",
        unconverted: OF_DATA,
    },
];

impl InitializationInfo {
    /// The table of all initializations, as it stands in the documentation.
    pub fn markdown() -> String {
        let mut text = String::from(
            "| word | paper | looks at | the base | settings | PEFT's folder, unconverted |\n|---|---|---|---|---|---|\n",
        );
        for info in INITIALIZATIONS {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} | {} |",
                info.word, info.paper, info.looks_at, info.base, info.settings, info.unconverted
            );
        }
        text
    }
}
