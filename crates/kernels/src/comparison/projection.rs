#[cfg(all(feature = "cube", feature = "flex"))]
use burn::tensor::Device;
use burn::tensor::{DType, Tensor};

use super::case::{Case, flat};
#[cfg(all(feature = "cube", feature = "flex"))]
use super::case::{has, near, random, run};
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::{Shard, gpus};
use crate::LowRank;
use crate::portable;

#[test]
fn projection() {
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    for (rows, k, n, rank) in [
        (1, 3, 5, 1),
        (5, 33, 17, 4),
        (203, 65, 130, 8),
        (70, 64, 96, 16),
        (130, 40, 9, 3),
    ] {
        for bias in [false, true] {
            for adapted in [false, true] {
                for transposed in [false, true] {
                    let operands = |x: &[Tensor<1>]| {
                        let mut x = x.iter().cloned();
                        let mut next = || x.next().expect("an operand");
                        let input = next().reshape([1, rows, k]);
                        let weight = match transposed {
                            false => next().reshape([k, n]),
                            true => next().reshape([n, k]).transpose(),
                        };
                        let bias = bias.then(&mut next);
                        let low_rank = adapted.then(|| LowRank {
                            a: next().reshape([k, rank]),
                            b: next().reshape([rank, n]),
                            scale: 0.7,
                        });
                        (input, weight, bias, low_rank)
                    };
                    let mut sizes = vec![rows * k, k * n];
                    if bias {
                        sizes.push(n);
                    }
                    if adapted {
                        sizes.extend([k * rank, rank * n]);
                    }
                    let case = Case {
                        name: "projection",
                        sizes: &sizes,
                        ours: &|x| {
                            let (x, w, bias, low_rank) = operands(x);
                            flat(crate::projection::<3>(x, w, bias, low_rank))
                        },
                        portable: &|x| {
                            let (x, w, bias, low_rank) = operands(x);
                            flat(portable::projection::<3>(x, w, bias, low_rank))
                        },
                    };
                    #[cfg(all(feature = "cube", feature = "flex"))]
                    case.check_within(&shard);
                    #[cfg(not(all(feature = "cube", feature = "flex")))]
                    case.check_on_cpus();
                    #[cfg(feature = "flex")]
                    if rows == 5 {
                        case.check_halves(&[DType::BF16]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_further_low_rank_change() {
    let (rows, k, n, rank) = (70, 33, 17, 4);
    let operands = |x: &[Tensor<1>]| {
        let low_rank = LowRank {
            a: x[2].clone().reshape([k, rank]),
            b: x[3].clone().reshape([rank, n]),
            scale: 0.7,
        };
        (
            x[0].clone().reshape([rows, n]),
            x[1].clone().reshape([rows, k]),
            low_rank,
        )
    };
    let case = Case {
        name: "add_low_rank",
        sizes: &[rows * n, rows * k, k * rank, rank * n],
        ours: &|x| {
            let (y, x, low_rank) = operands(x);
            flat(crate::add_low_rank::<2>(y, x, low_rank))
        },
        portable: &|x| {
            let (y, x, low_rank) = operands(x);
            flat(portable::add_low_rank::<2>(y, x, low_rank))
        },
    };
    case.check();
}

/// Factors in `f32` beside a weight in half precision, as they are trained.
#[cfg(all(feature = "cube", feature = "flex"))]
#[test]
fn wide_factors_of_a_narrow_weight() {
    for gpu in gpus() {
        for dtype in [DType::BF16, DType::F16] {
            if !has(&gpu, dtype) {
                continue;
            }
            let cpu = Device::flex().autodiff();
            let (rows, k, n) = (70, 64, 96);
            for rank in [8, 40] {
                let sizes = [rows * k, k * n, k * rank, rank * n];
                let round = |x: Tensor<1>| x.cast(dtype).cast(DType::F32);
                let operands: Vec<_> = sizes.map(|size| round(random(size, &cpu))).to_vec();
                let low_rank = |x: &[Tensor<1>]| LowRank {
                    a: x[2].clone().reshape([k, rank]),
                    b: x[3].clone().reshape([rank, n]),
                    scale: 0.5,
                };
                let wide = |x: &[Tensor<1>]| {
                    let (input, weight) = (x[0].clone().reshape([rows, k]), x[1].clone());
                    let weight = weight.reshape([k, n]);
                    flat(portable::projection::<2>(
                        input,
                        weight,
                        None,
                        Some(low_rank(x)),
                    ))
                };
                let narrow = |x: &[Tensor<1>]| {
                    let input = x[0].clone().cast(dtype).reshape([rows, k]);
                    let weight = x[1].clone().cast(dtype).reshape([k, n]);
                    let y = crate::projection::<2>(input, weight, None, Some(low_rank(x)));
                    assert_eq!(y.dtype(), dtype);
                    flat(y).cast(DType::F32)
                };
                let tracked = [true, false, true, true];
                let weights = round(random(rows * n, &cpu));
                let (_, y, grads) = run(&wide, &operands, &tracked, Some(&weights));
                let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
                let operands: Vec<_> = operands.iter().map(there).collect();
                let (_, ours, ours_grads) =
                    run(&narrow, &operands, &tracked, Some(&there(&weights)));
                near(&ours, &y, 1e-2, "result");
                for (index, (ours, grad)) in ours_grads.iter().zip(&grads).enumerate() {
                    assert_eq!(ours.is_some(), tracked[index]);
                    if let (Some(ours), Some(grad)) = (ours, grad) {
                        near(
                            ours,
                            grad,
                            1e-2,
                            &format!("gradient {index} of rank {rank}"),
                        );
                    }
                }
            }
        }
    }
}
