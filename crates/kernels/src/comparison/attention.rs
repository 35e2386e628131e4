use burn::tensor::{Device, Tensor};

use super::case::{Case, HALVES, flat};
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::Shard;
use super::devices::{all_devices, devices};
use crate::portable;
use crate::{AttentionMask, Scores};

#[test]
fn attention() {
    struct Sizes {
        batch: usize,
        heads: usize,
        kv_heads: usize,
        queries: usize,
        keys: usize,
        d: usize,
    }
    let of = |[batch, heads, kv_heads, queries, keys, d]: [usize; 6]| Sizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
    };
    let cases_on = |device: &Device| {
        let padded =
            |queries, left: &[usize]| AttentionMask::causal_left_padded(queries, 0, left, device);
        vec![
            (of([1, 1, 1, 1, 1, 1]), AttentionMask::none()),
            (of([2, 3, 3, 7, 7, 5]), AttentionMask::none()),
            (of([2, 4, 2, 9, 9, 8]), AttentionMask::causal(9, 0, device)),
            // More than one block of queries and of keys.
            (
                of([1, 2, 1, 131, 301, 4]),
                AttentionMask::causal(131, 170, device),
            ),
            (of([2, 2, 2, 70, 70, 4]), padded(70, &[0, 66])),
            (
                of([3, 2, 1, 11, 11, 6]),
                AttentionMask::right_padded(11, &[11, 4, 1], device),
            ),
            // Windows: within a block, across blocks of keys, behind a cache, with padding that some queries outlive.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::sliding(9, 0, &[], 3, device),
            ),
            (
                of([1, 2, 1, 131, 301, 4]),
                AttentionMask::sliding(131, 170, &[], 40, device),
            ),
            (
                of([2, 2, 2, 70, 70, 4]),
                AttentionMask::sliding(70, 0, &[0, 66], 2, device),
            ),
            (
                of([2, 2, 1, 1, 9, 4]),
                AttentionMask::sliding(1, 8, &[0, 7], 4, device),
            ),
            // To both sides: within a block, and across blocks of queries and keys.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::local(9, &[9, 8], 2, device),
            ),
            (
                of([1, 2, 1, 300, 300, 4]),
                AttentionMask::local(300, &[300], 40, device),
            ),
            // Several documents in a row, with and without a window.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::causal_documents(9, &[vec![4, 5], vec![1, 2, 6]], None, device),
            ),
            (
                of([1, 2, 1, 300, 300, 4]),
                AttentionMask::causal_documents(300, &[vec![100, 200]], Some(70), device),
            ),
        ]
    };
    let capped = Scores {
        scale: 0.9,
        softcap: Some(1.5),
    };
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    for device in all_devices() {
        // Where the portable form is computed: on a CPU on the same device.
        let on_gpu = !devices().contains(&device);
        let here = if on_gpu {
            Device::flex()
        } else {
            device.clone()
        };
        let (cases, portables) = (cases_on(&device), cases_on(&here));
        for (((s, mask), (_, portable_mask)), capped) in cases
            .iter()
            .zip(&portables)
            .flat_map(|case| [None, Some(capped)].map(move |capped| (case, capped)))
        {
            let scores = capped.unwrap_or(Scores::of_width(s.d));
            let operands = |x: &[Tensor<1>]| {
                // As models have it: heads behind tokens, seen the other way round.
                let q = x[0]
                    .clone()
                    .reshape([s.batch, s.queries, s.heads, s.d])
                    .swap_dims(1, 2);
                let k = x[1].clone().reshape([s.batch, s.kv_heads, s.keys, s.d]);
                let v = x[2]
                    .clone()
                    .reshape([s.batch, s.keys, s.kv_heads, s.d])
                    .swap_dims(1, 2);
                (q, k, v)
            };
            // Queries of padding see nothing, and the two forms differ in what they make of it.
            let real = |y: Tensor<4>| match s.queries {
                70 => flat(y.narrow(2, 66, 4)),
                _ => flat(y),
            };
            let keys = s.batch * s.kv_heads * s.keys * s.d;
            let case = Case {
                name: "attention",
                sizes: &[s.batch * s.heads * s.queries * s.d, keys, keys],
                ours: &|x| {
                    let (q, k, v) = operands(x);
                    real(crate::attention_with(q, k, v, mask, scores))
                },
                portable: &|x| {
                    let (q, k, v) = operands(x);
                    real(portable::attention_with(q, k, v, portable_mask, scores))
                },
            };
            #[cfg(all(feature = "cube", feature = "flex"))]
            if on_gpu {
                if shard.has_next() {
                    case.check_on_gpu(&device);
                }
                continue;
            }
            case.check_on(&device);
            #[cfg(feature = "flex")]
            if device == Device::flex().autodiff() && s.batch == 2 && s.queries < 10 {
                case.check_halves(HALVES);
            }
        }
    }
}
