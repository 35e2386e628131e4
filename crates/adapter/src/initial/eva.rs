//! EVA (Paischer et al., 2024, "One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation").
//!
//! A's columns are the principal components of the layer's inputs, B is zero, the base stays. The ranks are handed out anew: of the
//! components of all layers, those that explain most of their layer's variance are taken, as many as the ranks were in sum; a layer
//! that gets none is not adapted. PEFT: `eva`, with its `eva_config`.

use std::collections::BTreeMap;

use burn_lora_linalg::{IncrementalSvd, Matrix};

use super::{Begun, Layer};

/// Settings of EVA, with PEFT's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eva {
    /// How many times its rank a layer may get; 1 leaves the ranks as they are.
    pub rho: f64,
    /// Components are divided by the roots of their singular values.
    pub whiten: bool,
    /// Alpha changes with the rank, so that the scale does not.
    pub adjust_scaling_factors: bool,
}

impl Default for Eva {
    fn default() -> Self {
        Self {
            rho: 2.0,
            whiten: false,
            adjust_scaling_factors: true,
        }
    }
}

impl Eva {
    /// The most components that a layer of this rank may get.
    pub(super) fn most(&self, rank: usize) -> usize {
        (rank as f64 * self.rho).round() as usize
    }

    /// The rank of each layer, which comes with its rank so far and the largest it can have, from what its components explain.
    pub(super) fn ranks<'a>(
        &self,
        layers: impl Iterator<Item = (&'a str, [usize; 2], &'a IncrementalSvd)>,
    ) -> BTreeMap<String, usize> {
        let mut ranks = BTreeMap::new();
        let mut candidates = Vec::new();
        let mut budget = 0;
        for (path, [rank, largest], inputs) in layers {
            budget += rank;
            ranks.insert(path.to_string(), 0);
            let explained = inputs
                .explained()
                .into_iter()
                .take(self.most(rank).min(largest));
            candidates.extend(explained.map(|share| (share, path)));
        }
        candidates.sort_by(|(x, _), (y, _)| y.total_cmp(x));
        for (_, path) in candidates.into_iter().take(budget) {
            if let Some(rank) = ranks.get_mut(path) {
                *rank += 1;
            }
        }
        ranks
    }
}

pub(super) fn begin(layer: &Layer<'_>, inputs: &IncrementalSvd, eva: &Eva) -> Begun {
    let [d_in, d_out] = layer.weight.shape();
    let zeros = || Matrix::zeros(0, d_in);
    let components = inputs.components().map_or_else(zeros, Clone::clone);
    let components = components.row_range(0..layer.rank);
    let components = match eva.whiten {
        true => {
            let roots: Vec<f64> = inputs.singular_values()[..layer.rank]
                .iter()
                .map(|s| 1.0 / s.sqrt())
                .collect();
            components.scaled_rows(&roots)
        }
        false => components,
    };
    Ok(layer.beside(components.transpose(), Matrix::zeros(layer.rank, d_out)))
}
