use burn::tensor::{DType, Device, Tensor};

use super::case::near;
use super::case::random;
use super::devices::gpus;
use crate::portable;

/// Parameters of several sizes, with gradients and moments that they could have.
fn optimizer_operands() -> Vec<[Tensor<1>; 4]> {
    let cpu = Device::flex();
    let sizes = (0..21).map(|i| [1, 33, 4096, 20_001][i % 4]);
    let operands = sizes.map(|size| {
        let [p, g, m, v] = [(); 4].map(|()| random(size, &cpu));
        [p, g, m, v.square()]
    });
    operands.collect()
}

#[test]
fn adamw_on_gpus() {
    for gpu in gpus() {
        let gpu = gpu.inner();
        let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
        let step = |time| crate::AdamWStep {
            learning_rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            time,
        };
        let operands = optimizer_operands();
        let ours: Vec<_> = operands
            .iter()
            .map(|each| each.each_ref().map(there))
            .collect();
        // Of every third one somebody keeps the old values.
        let kept: Vec<_> = ours.iter().step_by(3).map(|each| each[0].clone()).collect();
        let run = |all: Vec<[Tensor<1>; 4]>, time| -> Vec<[Tensor<1>; 4]> {
            crate::adamw_together(|| {
                let each = |[p, g, m, v]: [Tensor<1>; 4]| {
                    let (p, [m, v]) = crate::adamw(p, g.clone(), [m, v], &step(time));
                    [p, g, m, v]
                };
                all.into_iter().map(each).collect()
            })
        };
        let ours = run(run(ours, 1), 2);
        for ([p, g, m, v], ours) in operands.iter().cloned().zip(&ours) {
            let (p, moments) = portable::adamw(p, g.clone(), [m, v], &step(1));
            let (p, [m, v]) = portable::adamw(p, g, moments, &step(2));
            near(&ours[0], &p, 1e-5, "parameter");
            near(&ours[2], &m, 1e-5, "first moment");
            near(&ours[3], &v, 1e-5, "second moment");
        }
        for (kept, old) in kept.iter().zip(operands.iter().step_by(3)) {
            kept.to_data().assert_eq(&old[0].to_data(), true);
        }
    }
}

#[test]
fn clipping_on_gpus() {
    for gpu in gpus() {
        let gpu = gpu.inner();
        let gradients: Vec<_> = optimizer_operands()
            .into_iter()
            .map(|[_, g, _, _]| g)
            .collect();
        for max_norm in [Some(1.0), Some(1e4), None] {
            let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
            let ours = crate::clip_norm(gradients.iter().map(there).collect(), max_norm);
            let expected = portable::clip_norm(gradients.clone(), max_norm);
            for (ours, expected) in ours.gradients.iter().zip(&expected.gradients) {
                near(ours, expected, 1e-5, "gradient");
            }
            let [ours, expected] = [ours, expected].map(|clipped| clipped.norm.expect("gradients"));
            near(&ours, &expected, 1e-5, "norm");
        }
    }
}
