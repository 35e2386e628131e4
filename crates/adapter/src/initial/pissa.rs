//! PiSSA (Meng et al., 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation").
//!
//! With `W = U S V^T`, the factors are the `r` largest: `A = U_r (S_r / s)^1/2`, `B = (S_r / s)^1/2 V_r^T`; the base becomes
//! `W - s A B`. PEFT: `pissa`, and `pissa_niter_N` for a randomized SVD with `N` power iterations.

use burn_lora_linalg::{randomized_svd, svd};

use super::{Begun, Layer};

pub(super) fn begin(layer: &Layer<'_>, iterations: Option<usize>) -> Begun {
    let found = match iterations {
        None => svd(layer.weight)?.truncated(layer.rank),
        Some(iterations) => {
            let seed = layer.seed.wrapping_add(layer.index);
            randomized_svd(layer.weight, layer.rank, iterations, seed)?
        }
    };
    let roots = layer.roots(&found.s);
    let a = found.u.scaled_columns(&roots);
    let b = found.v.scaled_columns(&roots).transpose();
    Ok(layer.taken_out(a, b))
}
