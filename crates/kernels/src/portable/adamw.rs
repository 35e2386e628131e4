use burn::tensor::Tensor;

use crate::AdamWStep;

/// See [`crate::adamw`].
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [m, v]: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let AdamWStep { beta_1, beta_2, .. } = *step;
    let (dtype, gradient) = (parameter.dtype(), gradient.cast(m.dtype()));
    let m = m * beta_1 + gradient.clone() * (1.0 - beta_1);
    let v = v * beta_2 + gradient.square() * (1.0 - beta_2);
    let [correction_1, correction_2] = step.corrections();
    let delta = m.clone() / correction_1 / ((v.clone() / correction_2).sqrt() + step.epsilon);
    let parameter = match step.decay() {
        0.0 => parameter,
        decay => parameter * (1.0 - decay),
    };
    (parameter - (delta * step.learning_rate).cast(dtype), [m, v])
}
