use super::case::{Case, HALVES, flat};
use crate::portable;

#[test]
fn silu_mul() {
    for (rows, d) in [(1, 5), (77, 301)] {
        let case = Case {
            name: "silu_mul",
            sizes: &[rows * d, rows * d],
            ours: &|x| {
                flat(crate::silu_mul::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone().reshape([rows, d]),
                ))
            },
            portable: &|x| portable::silu_mul(x[0].clone(), x[1].clone()),
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(HALVES);
    }
}

#[test]
fn silu_mul_halves() {
    for (rows, d) in [(1, 5), (77, 304)] {
        let case = Case {
            name: "silu_mul_halves",
            sizes: &[rows * 2 * d],
            ours: &|x| {
                let x = x[0].clone().reshape([1, rows, 2 * d]);
                flat(crate::silu_mul_halves::<3>(x))
            },
            portable: &|x| {
                let x = x[0].clone().reshape([rows, 2 * d]);
                let half = |from: usize| x.clone().narrow(1, from, d);
                flat(portable::silu_mul::<2>(half(0), half(d)))
            },
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(HALVES);
    }
}

#[test]
fn gelu() {
    for size in [5, 20_001] {
        let exact = Case {
            name: "gelu",
            sizes: &[size],
            ours: &|x| crate::gelu(x[0].clone()),
            portable: &|x| portable::gelu(x[0].clone()),
        };
        let tanh = Case {
            name: "gelu_tanh",
            sizes: &[size],
            ours: &|x| crate::gelu_tanh(x[0].clone()),
            portable: &|x| portable::gelu_tanh(x[0].clone()),
        };
        for case in [exact, tanh] {
            case.check();
            #[cfg(feature = "flex")]
            case.check_halves(HALVES);
        }
    }
}
