#[cfg(feature = "flex")]
use burn::tensor::Device;
use burn::tensor::{DType, Tensor};

use super::case::{Case, flat};
#[cfg(all(feature = "cube", feature = "flex"))]
use super::case::{has, near, random, run};
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::{Shard, gpus};
#[cfg(feature = "flex")]
use crate::Branch;
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

/// Three weights in one memory: all of them adapted and some, ranks that fill pieces of memory and ranks that do not, factors in
/// the dtype of the weights and wider.
#[cfg(all(feature = "cube", feature = "flex"))]
#[test]
fn projections_side_by_side() {
    let (k, widths) = (64, [256, 512, 256]);
    let cpu = Device::flex();
    // What every dtype has.
    let round = |x: Tensor<1>| x.cast(DType::BF16).cast(DType::F32);
    let weights = widths.map(|width| round(random(k * width, &cpu)).reshape::<2, _>([k, width]));
    let biases = widths.map(|width| round(random(width, &cpu)));
    let shard = Shard::default();
    for (rows, ranks, bias, wide) in [
        (70, [8, 8, 8], false, false),
        (130, [16, 0, 16], false, true),
        (5, [4, 3, 5], true, true),
        (1, [0, 0, 0], true, false),
        (33, [0, 2, 0], false, false),
    ] {
        let mut sizes = vec![rows * k];
        for (width, rank) in widths.into_iter().zip(ranks).filter(|(_, rank)| *rank > 0) {
            sizes.extend([k * rank, rank * width]);
        }
        let branches = |x: &[Tensor<1>], laid: &[Tensor<2>]| -> Vec<Branch> {
            let like = |tensor: &Tensor<1>| {
                let options = (&x[0].device().without_autodiff(), x[0].dtype());
                Tensor::<1>::from_data(tensor.to_data(), options)
            };
            let mut factors = x[1..].iter().cloned();
            let mut next = |size: [usize; 2], widened: bool| {
                let factor = factors.next().expect("a factor").reshape::<2, _>(size);
                if widened {
                    factor.cast(DType::F32)
                } else {
                    factor
                }
            };
            let widened = wide && x[0].dtype() != DType::F64;
            let mut branch = |index: usize| {
                let rank = ranks[index];
                Branch {
                    weight: laid[index].clone(),
                    bias: bias.then(|| like(&biases[index])),
                    low_rank: (rank > 0).then(|| LowRank {
                        a: next([k, rank], widened),
                        b: next([rank, widths[index]], widened),
                        scale: 0.5,
                    }),
                }
            };
            vec![branch(0), branch(1), branch(2)]
        };
        let like = |x: &Tensor<1>, weight: &Tensor<2>| {
            let options = (&x.device().without_autodiff(), x.dtype());
            Tensor::<2>::from_data(weight.to_data(), options)
        };
        let case = Case {
            name: "projections",
            sizes: &sizes,
            ours: &|x| {
                let laid = weights.each_ref().map(|weight| like(&x[0], weight));
                let laid = crate::side_by_side(laid.into());
                assert!(crate::are_side_by_side(&laid));
                let input = x[0].clone().reshape([1, rows, k]);
                let y = crate::projections::<3>(&input, &branches(x, &laid));
                flat(y.expect("one product"))
            },
            portable: &|x| {
                let plain = weights.each_ref().map(|weight| like(&x[0], weight));
                let input = x[0].clone().reshape([1, rows, k]);
                let each = |branch: Branch| {
                    let Branch {
                        weight,
                        bias,
                        low_rank,
                    } = branch;
                    portable::projection::<3>(input.clone(), weight, bias, low_rank)
                };
                let all: Vec<Tensor<3>> = branches(x, &plain).into_iter().map(each).collect();
                flat(Tensor::cat(all, 2))
            },
        };
        if shard.has_next() {
            for gpu in gpus() {
                case.check_on_gpu(&gpu);
            }
        }
    }
}

/// Weights that one product does not have: on a CPU, tracked, of other rows, or anywhere else.
#[cfg(feature = "flex")]
#[test]
fn weights_that_stay_where_they_are() {
    let devices = [Device::flex()].into_iter();
    #[cfg(feature = "cube")]
    let devices = devices.chain(gpus().into_iter().map(Device::inner));
    for device in devices {
        let weight = |rows: usize| Tensor::<2>::ones([rows, 256], &device);
        let branch = |weight: &Tensor<2>| Branch {
            weight: weight.clone(),
            bias: None,
            low_rank: None,
        };
        let x = Tensor::<2>::ones([2, 8], &device);
        let apart = [weight(8), weight(8)];
        assert!(!crate::are_side_by_side(&apart));
        assert!(crate::projections(&x, &apart.each_ref().map(branch)).is_none());
        let unlike = crate::side_by_side(vec![weight(8), weight(9)]);
        assert!(!crate::are_side_by_side(&unlike));
        assert_eq!(unlike[1].dims(), [9, 256]);
        let laid = crate::side_by_side(vec![weight(8), weight(8), weight(8)]);
        let on_cpu = device == Device::flex();
        assert_eq!(crate::are_side_by_side(&laid), !on_cpu);
        // Neighbours in another order, or not next to each other.
        let swapped = [laid[1].clone(), laid[0].clone()];
        assert!(!crate::are_side_by_side(&swapped));
        let apart = [laid[0].clone(), laid[2].clone()];
        assert!(!crate::are_side_by_side(&apart));
        for weight in &laid {
            weight.to_data().assert_eq(&apart[0].to_data(), true);
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
