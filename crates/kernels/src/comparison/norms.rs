use burn::tensor::Tensor;

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

/// The norm and what it was made of, with a change and without, and either of the two alone.
#[test]
fn residual_norms() {
    for (rows, d) in [(7, 33), (300, 128)] {
        for (changed, centered) in [(true, false), (false, false), (true, true), (false, true)] {
            for taken in [&[0, 1][..], &[0], &[1]] {
                let mut sizes = vec![rows * d, d];
                sizes.extend(centered.then_some(d));
                sizes.extend(changed.then_some(rows * d));
                let operands = |x: &[Tensor<1>]| {
                    let rows = |x: &Tensor<1>| x.clone().reshape([rows, d]);
                    let change = changed.then(|| rows(&x[x.len() - 1]));
                    (rows(&x[0]), change)
                };
                let some = |all: [Tensor<2>; 2], x: &[Tensor<1>]| {
                    let parts = taken.iter().map(|part| flat(all[*part].clone()));
                    let parts = Tensor::cat(parts.collect(), 0);
                    // What the result does not depend on has a gradient, too.
                    parts
                        + x.iter().fold(x[0].clone().sum() * 0.0, |sum, x| {
                            sum + x.clone().sum() * 0.0
                        })
                };
                let case = Case {
                    name: "residual_norm",
                    sizes: &sizes,
                    ours: &|x| {
                        let (input, change) = operands(x);
                        let weight = x[1].clone();
                        some(
                            match centered {
                                true => crate::residual_layer_norm(
                                    input,
                                    change,
                                    weight,
                                    x[2].clone(),
                                    1e-5,
                                ),
                                false => crate::residual_rms_norm(input, change, weight, 1e-5),
                            },
                            x,
                        )
                    },
                    portable: &|x| {
                        let (input, change) = operands(x);
                        let sum = match change {
                            Some(change) => input + change,
                            None => input,
                        };
                        let weight = x[1].clone();
                        let y = match centered {
                            true => portable::layer_norm(sum.clone(), weight, x[2].clone(), 1e-5),
                            false => portable::rms_norm(sum.clone(), weight, 1e-5),
                        };
                        some([sum, y], x)
                    },
                };
                case.check();
            }
        }
    }
}
