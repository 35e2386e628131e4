//! What every form of attention in tiles is tested with: against the portable form in `f32` on the CPU.

use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::{AttentionMask, Scores, attention_with, portable};

pub(super) struct Case {
    /// Batch, heads, key heads, queries, keys, width.
    sizes: [usize; 6],
    mask: fn(&Device) -> AttentionMask,
    scores: Scores,
    /// The first query that sees a key, in any row.
    first: usize,
}

impl Case {
    pub(super) fn new(sizes: [usize; 6], mask: fn(&Device) -> AttentionMask) -> Self {
        Self {
            sizes,
            mask,
            scores: Scores::of_width(sizes[5]),
            first: 0,
        }
    }

    fn capped(mut self, softcap: f64) -> Self {
        self.scores.softcap = Some(softcap);
        self
    }

    fn scaled(mut self, scale: f64) -> Self {
        self.scores.scale = scale;
        self
    }

    fn from_query(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// The result of the queries that see something, and the gradients of q, k and v, all in `f32` on the CPU.
    pub(super) fn run(
        &self,
        inputs: &[Tensor<4>; 4],
        device: &Device,
        dtype: DType,
        form: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>, &AttentionMask, Scores) -> Tensor<4>,
    ) -> Vec<Tensor<4>> {
        let there =
            |x: &Tensor<4>| Tensor::<4>::from_data(x.to_data(), (device, DType::F32)).cast(dtype);
        let leaves = [0, 1, 2].map(|index| there(&inputs[index]).require_grad());
        // As models have them: heads behind tokens, seen the other way round.
        let [q, k, v] = leaves.each_ref().map(|x| x.clone().swap_dims(1, 2));
        let y = form(q, k, v, &(self.mask)(device), self.scores);
        assert_eq!(y.dtype(), dtype);
        let count = self.sizes[3] - self.first;
        let y = y.swap_dims(1, 2).narrow(1, self.first, count);
        let weights = there(&inputs[3]).narrow(1, self.first, count);
        let grads = (y.clone() * weights).cast(DType::F32).sum().backward();
        let grads = leaves.map(|leaf| leaf.grad(&grads).expect("tracked"));
        let here = Device::flex();
        let all = std::iter::once(y).chain(grads);
        all.map(|x| Tensor::from_data(x.cast(DType::F32).to_data(), (&here, DType::F32)))
            .collect()
    }

    /// On a GPU with autodiff, whose form counts its launches.
    pub(super) fn check(&self, gpu: &Device, dtype: DType, launched: &dyn Fn() -> usize) {
        let cpu = Device::flex().autodiff();
        let [batch, heads, kv_heads, queries, keys, d] = self.sizes;
        let random = |tokens, heads| {
            let shape = [batch, tokens, heads, d];
            let x = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
            // Both forms read the same numbers.
            x.cast(dtype).cast(DType::F32)
        };
        let inputs = [
            random(queries, heads),
            random(keys, kv_heads),
            random(keys, kv_heads),
            random(queries, heads),
        ];
        let before = launched();
        let ours = self.run(&inputs, gpu, dtype, attention_with);
        assert_eq!(launched(), before + 1, "{:?}: by other kernels", self.sizes);
        let portable = self.run(&inputs, &cpu, DType::F32, portable::attention_with);
        for (index, (ours, portable)) in ours.into_iter().zip(portable).enumerate() {
            let norm = |x: Tensor<4>| x.powi_scalar(2).sum().sqrt().into_scalar::<f32>();
            let error = norm(ours - portable.clone()) / norm(portable).max(1e-3);
            assert!(error < 1e-2, "{:?}, result {index}: {error}", self.sizes);
        }
    }
}

/// Tiles that are whole and tiles that are not, every mask that is a rule, widths of heads.
pub(super) fn cases() -> Vec<Case> {
    let none = |_: &Device| AttentionMask::none();
    vec![
        Case::new([2, 4, 2, 100, 133, 64], none),
        Case::new([2, 4, 2, 1, 1, 64], none),
        Case::new([2, 4, 2, 7, 7, 64], |d| AttentionMask::causal(7, 0, d)),
        Case::new([1, 8, 2, 129, 129, 64], |d| {
            AttentionMask::causal(129, 0, d)
        }),
        Case::new([1, 3, 3, 65, 65, 128], |d| AttentionMask::causal(65, 0, d)),
        Case::new([1, 2, 1, 66, 66, 32], |d| AttentionMask::causal(66, 0, d)),
        Case::new([1, 2, 1, 66, 66, 80], |d| AttentionMask::causal(66, 0, d)),
        Case::new([1, 2, 2, 66, 66, 96], |d| AttentionMask::causal(66, 0, d)),
        // Behind a cache.
        Case::new([1, 2, 1, 70, 100, 64], |d| AttentionMask::causal(70, 30, d)),
        Case::new([2, 4, 2, 70, 70, 64], |d| {
            AttentionMask::causal_left_padded(70, 0, &[0, 66], d)
        })
        .from_query(66),
        Case::new([3, 4, 2, 130, 130, 64], |d| {
            AttentionMask::right_padded(130, &[130, 64, 1], d)
        }),
        Case::new([2, 2, 1, 200, 200, 64], |d| {
            AttentionMask::sliding(200, 0, &[], 40, d)
        }),
        Case::new([2, 2, 1, 131, 301, 128], |d| {
            AttentionMask::sliding(131, 170, &[0, 100], 70, d)
        }),
        Case::new([1, 2, 1, 70, 70, 64], |d| AttentionMask::causal(70, 0, d)).capped(1.5),
        // Many queries.
        Case::new([1, 4, 2, 384, 384, 64], |d| {
            AttentionMask::causal(384, 0, d)
        }),
        Case::new([1, 2, 1, 256, 290, 64], |d| {
            AttentionMask::causal(256, 34, d)
        }),
        Case::new([1, 4, 2, 384, 384, 64], |d| {
            AttentionMask::causal(384, 0, d)
        })
        .scaled(1.5),
        Case::new([2, 4, 2, 300, 300, 64], |d| {
            AttentionMask::causal_left_padded(300, 0, &[0, 200], d)
        })
        .from_query(200),
        Case::new([2, 2, 1, 384, 384, 32], |d| {
            AttentionMask::sliding(384, 0, &[], 100, d)
        }),
        // Scores so far apart that what exponentials are relative to has to change on the way.
        Case::new([1, 4, 2, 200, 300, 64], none).scaled(1.5),
    ]
}

/// A query that sees no key has a result of 0.
pub(super) fn nothing_seen_has_no_value(gpu: &Device, dtype: DType) {
    let x = || Tensor::<4>::random([1, 1, 3, 64], Distribution::Normal(0.0, 1.0), gpu).cast(dtype);
    let mask = AttentionMask::causal_left_padded(3, 0, &[2], gpu);
    let y = attention_with(x(), x(), x(), &mask, Scores::of_width(64));
    let sums = y.cast(DType::F32).abs().sum_dim(3).into_data();
    let sums: Vec<f32> = sums.try_to_vec().expect("f32");
    assert_eq!(sums[..2], [0.0, 0.0]);
    assert!(sums[2] > 0.0);
}

/// The same operands have the same gradients each time.
pub(super) fn gradients_are_the_same(gpu: &Device, dtype: DType) {
    let case = Case::new([2, 8, 2, 300, 300, 64], |d| {
        AttentionMask::causal(300, 0, d)
    });
    let random = |heads| {
        let shape = [2, 300, heads, 64];
        Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    };
    let inputs = [random(8), random(2), random(2), random(8)];
    let first = case.run(&inputs, gpu, dtype, attention_with);
    for _ in 0..3 {
        let again = case.run(&inputs, gpu, dtype, attention_with);
        for (a, b) in first.iter().zip(again) {
            assert_eq!(a.to_data(), b.into_data());
        }
    }
}
