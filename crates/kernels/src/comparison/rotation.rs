use burn::tensor::Device;
use burn::tensor::{DType, Tensor};

use super::case::{Case, flat};
use super::devices::devices;
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::{Shard, gpus};
use crate::{Rope, RopeScaling};

#[test]
fn rotation() {
    let (batch, seq, heads, d) = (2, 5, 3, 6);
    let amplified = RopeScaling::LongRope {
        short: vec![1.0; 2],
        long: vec![1.0, 3.0],
        original_positions: 2,
        attention_factor: 1.3,
    };
    // All of a head, and a part of it.
    let ropes = [
        Rope::new(d, 100.0, RopeScaling::None),
        Rope::new(d - 2, 100.0, amplified),
    ];
    let positions: Vec<usize> = (0..seq).chain(3..3 + seq).collect();
    for (device, rope) in devices()
        .iter()
        .flat_map(|device| ropes.iter().map(move |rope| (device, rope)))
    {
        for rows in [1, 2] {
            let tables = rope.tables(&positions[..rows * seq], rows, DType::F32, device);
            // As models have it, and as a view whose heads and tokens are exchanged.
            for swap in [false, true] {
                let view = |x: &[Tensor<1>]| match swap {
                    false => x[0].clone().reshape([batch, seq, heads, d]),
                    true => x[0].clone().reshape([batch, heads, seq, d]).swap_dims(1, 2),
                };
                let case = Case {
                    name: "rotation",
                    sizes: &[batch * seq * heads * d],
                    ours: &|x| flat(tables.apply(view(x))),
                    portable: &|x| flat(tables.apply_portable(view(x))),
                };
                case.check_on(device);
            }
        }
    }
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    #[cfg(all(feature = "cube", feature = "flex"))]
    for (gpu, rope) in gpus()
        .iter()
        .flat_map(|gpu| ropes.iter().map(move |rope| (gpu, rope)))
    {
        for (rows, swap) in [(1, false), (2, false), (1, true), (2, true)] {
            let tables = |dtype: DType, device: &Device| {
                rope.tables(&positions[..rows * seq], rows, dtype, device)
            };
            let there = tables(DType::F32, gpu);
            let view = |x: &[Tensor<1>]| match swap {
                false => x[0].clone().reshape([batch, seq, heads, d]),
                true => x[0].clone().reshape([batch, heads, seq, d]).swap_dims(1, 2),
            };
            let case = Case {
                name: "rotation",
                sizes: &[batch * seq * heads * d],
                ours: &|x| flat(there.apply(view(x))),
                portable: &|x| {
                    let here = tables(x[0].dtype(), &Device::flex());
                    flat(here.apply_portable(view(x)))
                },
            };
            if shard.has_next() {
                case.check_on_gpu(gpu);
            }
        }
    }
}

/// Heads apart and rotated, all of them and those of one kind alone: what nothing is made of has a gradient of 0.
#[test]
fn heads() {
    let (batch, seq, d) = (2, 5, 6);
    let heads = [4, 2, 1];
    let width = heads.iter().sum::<usize>() * d;
    // All of a head, a part of it, and none.
    let ropes = [Some(d), Some(d - 2), None];
    let ropes = ropes.map(|part| part.map(|part| Rope::new(part, 100.0, RopeScaling::None)));
    let positions: Vec<usize> = (0..seq).chain(3..3 + seq).collect();
    let taken: [&[usize]; 3] = [&[0, 1, 2], &[2], &[0, 2]];
    let all = devices();
    #[cfg(feature = "cube")]
    let all = all.into_iter().chain(super::devices::gpus());
    for device in all {
        let on_cpu = devices().contains(&device);
        let cases = ropes
            .iter()
            .flat_map(|rope| taken.map(move |taken| (rope, taken)));
        for ((rope, taken), rows) in cases.zip([1, 2].into_iter().cycle()) {
            let tables = |device: &Device, dtype: DType| {
                let positions = &positions[..rows * seq];
                rope.as_ref()
                    .map(|rope| rope.tables(positions, rows, dtype, device))
            };
            let some = |parts: [Tensor<4>; 3]| {
                let parts = taken.iter().map(|part| flat(parts[*part].clone()));
                Tensor::cat(parts.collect(), 0)
            };
            let there = tables(&device, DType::F32);
            let case = Case {
                name: "heads",
                sizes: &[batch * seq * width],
                ours: &|x| {
                    let qkv = x[0].clone().reshape([batch, seq, width]);
                    some(crate::split_heads(qkv, heads, there.as_ref()))
                },
                portable: &|x| {
                    let qkv: Tensor<4> = x[0].clone().reshape([batch, seq, width / d, d]);
                    let here = tables(&x[0].device(), x[0].dtype());
                    let mut from = 0;
                    let parts = heads.map(|count| {
                        let part = qkv.clone().narrow(2, from, count);
                        from += count;
                        let rotated = from <= heads[0] + heads[1];
                        match &here {
                            Some(tables) if rotated => tables.apply_portable(part),
                            _ => part,
                        }
                    });
                    some(parts)
                },
            };
            if on_cpu {
                case.check_on(&device);
            } else {
                #[cfg(all(feature = "cube", feature = "flex"))]
                case.check_on_gpu(&device);
            }
        }
    }
}
