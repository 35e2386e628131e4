/// What PEFT puts before every path of the base model.
pub(super) const PREFIX: &str = "base_model.model.";

/// The two factors of a linear layer, as PEFT names and lays them out: `lora_A` is `[r, in]` and `lora_B` `[out, r]`,
/// the transposes of what a Burn layer multiplies by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Factor {
    A,
    B,
}

impl Factor {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The tensor's key in an adapter file.
    pub(super) fn key(self, module_path: &str) -> String {
        let name = match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
        };
        format!("{PREFIX}{module_path}.{name}.weight")
    }

    /// The tensor's shape in an adapter file.
    pub(super) fn shape(self, d_in: usize, d_out: usize, rank: usize) -> [usize; 2] {
        match self {
            Self::A => [rank, d_in],
            Self::B => [d_out, rank],
        }
    }
}

/// The key of a parameter that is saved as a whole.
pub(super) fn saved_key(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
pub(super) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    transposed
}
