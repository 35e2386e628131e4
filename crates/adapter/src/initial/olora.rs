//! OLoRA (Büyükakyüz, 2024, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models").
//!
//! With `W^T = Q R` in the layout `[out, in]`, `B^T` is the first `r` columns of `Q` and `A^T` the first `r` rows of `R`; the base
//! becomes `W - s A B`. PEFT: `olora`.

use burn_lora_linalg::qr;

use super::{Begun, Layer};

pub(super) fn begin(layer: &Layer<'_>) -> Begun {
    let found = qr(&layer.weight.transpose())?;
    let b = found.q.column_range(0..layer.rank).transpose();
    let a = found.r.row_range(0..layer.rank).transpose();
    Ok(layer.taken_out(a, b))
}
