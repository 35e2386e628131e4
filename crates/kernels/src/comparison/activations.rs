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
