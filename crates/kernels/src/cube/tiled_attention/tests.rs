//! On a device with matrices of planes: `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex
//! tiled_attention -- --nocapture`.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};

use super::{FEW_KEYS, LAUNCHED, QUERIES, takes};
use crate::comparison::{Shard, gpus};
use crate::cube::attention_cases::{
    Case, cases, gradients_are_the_same, nothing_seen_has_no_value,
};
use crate::{AttentionMask, Scores, attention_with};

/// The devices that have such matrices, and in which dtypes.
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn on_each(check: impl Fn(&Device, DType)) {
    for gpu in gpus() {
        let x = Tensor::<4>::zeros([1, 1, 1, 64], &gpu).cast(DType::F16);
        if takes([&x, &x, &x]) {
            check(&gpu, DType::F16);
        } else {
            println!("skipped: no matrices of planes on {gpu:?}");
        }
    }
}

#[test]
fn attention_equals_the_portable_form() {
    // Each query with bounds of its own.
    let ranged = [
        Case::new([1, 2, 1, 200, 200, 64], |d| {
            AttentionMask::local(200, &[200], 40, d)
        }),
        Case::new([2, 4, 2, 150, 150, 64], |d| {
            AttentionMask::causal_documents(150, &[vec![70, 80], vec![1, 9, 140]], None, d)
        }),
        Case::new([1, 4, 2, 150, 150, 128], |d| {
            AttentionMask::causal_documents(150, &[vec![70, 80]], Some(33), d)
        }),
    ];
    let cases: Vec<Case> = cases().into_iter().chain(ranged).collect();
    on_each(|gpu, dtype| {
        let shard = Shard::default();
        for case in cases.iter().filter(|_| shard.has_next()) {
            case.check(gpu, dtype, &|| LAUNCHED.get());
        }
    });
}

/// One cube for each head would go over a long cache alone.
#[test]
fn a_few_queries_behind_many_keys_are_left_to_products() {
    on_each(|gpu, dtype| {
        let taken = |queries, keys| {
            let x = |positions| Tensor::<4>::zeros([1, 2, positions, 64], gpu).cast(dtype);
            let (q, k) = (x(queries), x(keys));
            takes([&q, &k, &k])
        };
        assert!(!taken(1, FEW_KEYS + 1) && !taken(QUERIES - 1, FEW_KEYS + 1));
        assert!(taken(1, FEW_KEYS) && taken(QUERIES, FEW_KEYS + 1));
    });
}

#[test]
fn a_query_that_sees_nothing_has_no_value() {
    on_each(|gpu, dtype| nothing_seen_has_no_value(&gpu.clone().inner(), dtype));
}

#[test]
fn gradients_are_the_same_each_time() {
    on_each(gradients_are_the_same);
}

/// `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex tiled_attention::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "its result")]
fn speed() {
    on_each(|gpu, dtype| {
        for [batch, tokens, heads, kv_heads, d] in [
            [4, 1024, 32, 8, 64],
            [1, 8192, 32, 8, 64],
            [4, 1024, 32, 8, 128],
        ] {
            let random = |heads| {
                let x = Tensor::<4>::random(
                    [batch, tokens, heads, d],
                    Distribution::Normal(0.0, 1.0),
                    gpu,
                );
                x.cast(dtype).swap_dims(1, 2).require_grad()
            };
            let [q, k, v] = [random(heads), random(kv_heads), random(kv_heads)];
            let mask = AttentionMask::causal(tokens, 0, gpu);
            let run = |backward: bool| {
                let mut best = f64::MAX;
                for _ in 0..5 {
                    gpu.sync().expect("a device that is there");
                    let started = Instant::now();
                    for _ in 0..10 {
                        let y = attention_with(
                            q.clone(),
                            k.clone(),
                            v.clone(),
                            &mask,
                            Scores::of_width(d),
                        );
                        if backward {
                            // A gradient of ones costs no product.
                            drop(y.backward());
                        }
                    }
                    gpu.sync().expect("a device that is there");
                    best = best.min(started.elapsed().as_secs_f64() * 1e2);
                }
                best
            };
            let (forward, both) = (run(false), run(true));
            println!(
                "{batch} x {tokens}, heads of {d}: forward {forward:.3} ms, with backward {both:.3} ms"
            );
        }
    });
}
