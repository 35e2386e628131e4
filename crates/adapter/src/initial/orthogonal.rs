//! Orthogonal factors (Datta, 2024, "Rethinking LoRA initialisation").
//!
//! With `Q` orthogonal, `[r, r]`, its odd rows span what its even rows do not: `A = X Q_odd / 10`, `B = Q_even^T Y / 10` with `X`, `Y`
//! normal. The product is zero although neither factor is. The rank must be even. The base stays. PEFT: `orthogonal`.

use burn_lora_linalg::{Normal, qr};

use super::{Begun, Layer};

pub(super) fn begin(layer: &Layer<'_>) -> Begun {
    let (rank, [d_in, d_out]) = (layer.rank, layer.weight.shape());
    let mut normal = Normal::new(layer.seed, layer.index);
    let q = qr(&normal.matrix(rank, rank))?.q;
    let [odd, even] = [0, 1].map(|first| {
        let rows: Vec<usize> = (first..rank).step_by(2).collect();
        q.pick_rows(&rows) // [rank / 2, rank]
    });
    let a = &normal.matrix(d_in, rank / 2) * &odd;
    let b = &even.transpose() * &normal.matrix(rank / 2, d_out);
    Ok(layer.beside(a.scaled(0.1), b.scaled(0.1)))
}
