use burn_lora_linalg::Matrix;

use super::{FactorSet, Factors};

impl Factors {
    /// The same change with a scale of 1: B takes it.
    pub fn folded(&self) -> Self {
        Self {
            a: self.a.clone(),
            b: self.b.scaled(self.scale),
            scale: 1.0,
        }
    }

    /// The same change with a rank that is at least this, by zeros.
    pub fn padded(&self, rank: usize) -> Self {
        let more = rank.saturating_sub(self.rank());
        let [d_in, d_out] = self.shape();
        Self {
            a: self.a.beside(&Matrix::zeros(d_in, more)),
            b: self.b.above(&Matrix::zeros(more, d_out)),
            scale: self.scale,
        }
    }
}

impl FactorSet {
    /// The same adapter for runtimes that read no rank or alpha patterns and no rsLoRA: every scale is folded into B, and
    /// every layer has the largest rank, by zeros. Saved, `lora_alpha` is `r` and there are no patterns.
    pub fn portable(&self) -> Self {
        let rank = self.layers.values().map(Factors::rank).max().unwrap_or(0);
        let portable =
            |(path, factors): (&String, &Factors)| (path.clone(), factors.folded().padded(rank));
        self.layers.iter().map(portable).collect()
    }
}
