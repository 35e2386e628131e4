use super::case::{Case, HALVES, flat};
use crate::portable;

#[test]
fn rms_norm() {
    // The gradient of a single number is that of eps alone: it must be more than what f32 leaves of a difference.
    for (rows, d, eps) in [(1, 1, 0.1), (7, 33, 1e-5), (300, 129, 1e-5)] {
        let case = Case {
            name: "rms_norm",
            sizes: &[rows * d, d],
            ours: &|x| {
                flat(crate::rms_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    eps,
                ))
            },
            portable: &|x| {
                flat(portable::rms_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    eps,
                ))
            },
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(if d > 1 { HALVES } else { &[] });
    }
}

#[test]
fn layer_norm() {
    for (rows, d) in [(7, 33), (300, 129)] {
        let case = Case {
            name: "layer_norm",
            sizes: &[rows * d, d, d],
            ours: &|x| {
                flat(crate::layer_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    x[2].clone(),
                    1e-5,
                ))
            },
            portable: &|x| {
                flat(portable::layer_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    x[2].clone(),
                    1e-5,
                ))
            },
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(HALVES);
    }
}
