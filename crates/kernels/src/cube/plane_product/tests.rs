//! Against the portable form in `f32` on the CPU, on a device with such matrices: `BURN_LORA_TEST_DEVICES=vulkan cargo test
//! --release --features vulkan,flex plane_product -- --nocapture`. The tests of `cooperative` have more sizes.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use burn_cubecl::ops::into_data_sync;

use super::*;
use crate::comparison::{Shard, gpus, near};
use crate::cube::apply::primitive;
use crate::cube::memory::{empty, rows_of, transposed};
use crate::cube::product as seam;

fn random(shape: [usize; 4]) -> Tensor<4> {
    let x = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
    // Both forms read the same numbers.
    x.cast(DType::F16).cast(DType::F32)
}

/// In a device's memory, as the view of its transpose if it is turned.
fn there(x: &Tensor<4>, gpu: &Device, turned: bool) -> CubeTensor {
    let x = if turned {
        x.clone().swap_dims(2, 3)
    } else {
        x.clone()
    };
    let x = Tensor::<4>::from_data(x.to_data(), (gpu, DType::F32));
    let x = primitive(x.cast(DType::F16));
    if turned { transposed(x) } else { x }
}

/// Tiles that divide the matrices and tiles that do not, one and two of a cube, every storage order, a batch, a second term whose
/// short side is less than a depth and more than one.
#[test]
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn products_are_those_of_the_portable_form() {
    let sizes = [
        // Batch, m, k, n, the second term's rank.
        ([1, 1], 128, 96, 128, None),
        ([1, 1], 136, 72, 200, None),
        ([2, 3], 104, 64, 72, None),
        ([1, 1], 136, 64, 200, Some(8)),
        ([1, 1], 136, 72, 72, Some(40)),
        ([1, 1], 256, 64, 128, Some(16)),
        // The second tile of the last cube has no rows, or no columns.
        ([2, 1], 264, 40, 264, None),
    ];
    for gpu in gpus().into_iter().map(Device::inner) {
        let one = there(&random([1, 1, 8, 8]), &gpu, false);
        if Planes::of(&one, |_| SHARED_BYTES).is_none() {
            println!("skipped: no matrices of planes on {gpu:?}");
            continue;
        }
        let shard = Shard::default();
        for (turn, ([outer, inner], m, k, n, rank)) in sizes.into_iter().enumerate() {
            let (a, b) = (random([outer, inner, m, k]), random([outer, inner, k, n]));
            let terms = rank.map(|rank| (random([1, 1, m, rank]), random([1, 1, rank, n])));
            let mut expected = a.clone().matmul(b.clone());
            if let Some((c, d)) = &terms {
                expected = expected + c.clone().matmul(d.clone());
            }
            let layouts = [(false, false), (false, true), (true, false), (true, true)];
            for (index, (left, right)) in layouts.into_iter().enumerate() {
                if !shard.has_next() {
                    continue;
                }
                let (ga, gb) = (there(&a, &gpu, left), there(&b, &gpu, right));
                let more = terms.as_ref();
                let more = more.map(|(c, d)| (there(c, &gpu, false), there(d, &gpu, left)));
                let more = more.as_ref().map(|(c, d)| (c, d));
                let (dtype, bound) = match index % 2 {
                    0 => (DType::F16, 1e-2),
                    _ => (DType::F32, 1e-4),
                };
                let name = format!("{outer}x{inner} {m}x{k}x{n} {rank:?} {left} {right} {dtype:?}");
                let chosen = chosen(&ga, &gb, more);
                let Some(mut chosen) = chosen else {
                    panic!("{name}: not taken");
                };
                assert_eq!(chosen.tiles, [1, 1], "{name}: few tiles");
                let pair = [[2, 1], [1, 2]][(turn + index / 2) % 2];
                let pair = takes_pairs(&ga, chosen.planes).then_some(pair);
                for tiles in [Some([1, 1]), pair].into_iter().flatten() {
                    chosen.tiles = tiles;
                    let out = empty(&ga, &[outer, inner, m, n], dtype);
                    product_into(&chosen, &ga, &gb, more, &out);
                    let y = into_data_sync(out).convert::<f32>();
                    let y = Tensor::<4>::from_data(y, &Device::flex()).flatten::<1>(0, 3);
                    let name = format!("{name}, {tiles:?}");
                    near(&y, &expected.clone().flatten::<1>(0, 3), bound, &name);
                }
            }
        }
    }
}

/// A long sum of few tiles is that of its parts, in every storage order, in a new tensor and in rows of one that is there.
#[test]
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn long_sums_are_cut() {
    let (m, k, n) = (136, 8192, 72);
    let (a, b) = (random([1, 1, m, k]), random([1, 1, k, n]));
    let expected = a.clone().matmul(b.clone()).flatten::<1>(0, 3);
    let matrix = |mut x: CubeTensor| {
        let [rows, columns] = [2, 3].map(|dim| x.meta.strides()[dim]);
        let size = [2, 3].map(|dim| x.meta.shape()[dim]);
        *x.meta = burn_std::Metadata::new(size, [rows, columns]);
        x
    };
    for gpu in gpus().into_iter().map(Device::inner) {
        let one = there(&random([1, 1, 8, 8]), &gpu, false);
        if Planes::of(&one, |_| SHARED_BYTES).is_none() {
            println!("skipped: no matrices of planes on {gpu:?}");
            continue;
        }
        for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
            let (ga, gb) = (
                matrix(there(&a, &gpu, left)),
                matrix(there(&b, &gpu, right)),
            );
            assert_eq!(parts(&ga, &gb), Some(2));
            let all = empty(&ga, &[2 * m, n], DType::F16);
            let rows = rows_of(&all, m, m);
            seam::product_into(ga.clone(), gb.clone(), &rows);
            for (y, bound) in [
                (seam::product(ga.clone(), gb.clone(), DType::F32), 1e-4),
                (seam::product(ga.clone(), gb.clone(), DType::F16), 1e-2),
                (rows, 1e-2),
            ] {
                let name = format!("{left} {right} {bound}");
                let y = into_data_sync(y).convert::<f32>();
                let y = Tensor::<2>::from_data(y, &Device::flex()).flatten::<1>(0, 1);
                near(&y, &expected, bound, &name);
            }
        }
    }
}

/// Where the tiles are enough for all processors, two of them share a cube, whichever side is the longer.
#[test]
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn many_tiles_share_cubes() {
    for gpu in gpus().into_iter().map(Device::inner) {
        let side = |rows: usize, columns: usize| {
            primitive(Tensor::<2>::zeros([rows, columns], (&gpu, DType::F16)))
        };
        for (m, n, tiles) in [
            (2048, 2048, [2, 1]),
            (128, 32768, [1, 2]),
            (1024, 2048, [1, 1]),
        ] {
            let Some(chosen) = chosen(&side(m, 32), &side(32, n), None) else {
                println!("skipped: no matrices of planes on {gpu:?}");
                continue;
            };
            let tiles = match takes_pairs(&side(m, 32), chosen.planes) {
                true => tiles,
                false => [1, 1],
            };
            assert_eq!(chosen.tiles, tiles, "{m} x {n}");
        }
    }
}

/// `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex plane_product::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "its result")]
fn speed() {
    let shapes = [
        // Which side is a transposed view, and whether there is a second term.
        (4096, 2048, 2048, ' ', false),
        (4096, 8192, 2048, 'b', false),
        (4096, 2048, 8192, ' ', false),
        (4096, 2048, 8192, 'b', false),
        (4096, 2048, 2048, ' ', true),
        (2048, 4096, 8192, 'a', false),
        (4095, 2048, 8200, ' ', false),
        (4096, 2048, 2048, ' ', false),
        (2048, 4096, 8192, 'a', false),
        (4000, 2048, 8192, ' ', false),
        (4000, 8192, 2048, 'b', false),
    ];
    for gpu in gpus() {
        let gpu = gpu.inner();
        for (m, k, n, turned, more) in shapes {
            let matrix = |rows: usize, columns: usize, turned: bool| {
                let shape = if turned {
                    [columns, rows]
                } else {
                    [rows, columns]
                };
                let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &gpu);
                let x = primitive(x.cast(DType::F16));
                if turned { transposed(x) } else { x }
            };
            let (a, b) = (matrix(m, k, turned == 'a'), matrix(k, n, turned == 'b'));
            let (c, d) = (matrix(m, 16, false), matrix(16, n, false));
            let more = more.then_some((&c, &d));
            let out = empty(&a, &[m, n], DType::F16);
            let Some(chosen) = chosen(&a, &b, more) else {
                println!("{m} x {k} x {n}{turned}: not taken");
                continue;
            };
            let mut best = f64::MAX;
            for _ in 0..5 {
                let started = Instant::now();
                for _ in 0..20 {
                    product_into(&chosen, &a, &b, more, &out);
                }
                gpu.sync().expect("a device that is there");
                best = best.min(started.elapsed().as_secs_f64() / 20.0);
            }
            let rate = 2e-12 * (m * k * n) as f64 / best;
            println!(
                "{m} x {k} x {n}{turned} {}: {rate:.0} TFLOP/s, {:.3} ms",
                more.is_some(),
                best * 1e3
            );
        }
    }
}
