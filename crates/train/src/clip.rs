use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

/// Keeps PyTorch's result where the norm is 0.
const TINY: f64 = 1e-6;

/// Scales all gradients of a module so that their common L2 norm is at most `max_norm`.
///
/// `g min(1, max_norm / (||g|| + 1e-6))`, the norm taken over every gradient together as PyTorch's `clip_grad_norm_` does;
/// clipping each tensor by itself, as Burn's optimizers do, would change the direction of the step. The norm stays on
/// the device, so nothing waits for it.
pub(crate) fn clip_global_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    max_norm: f64,
) -> GradientsParams {
    let mut norm = SquaredNorm {
        grads: &grads,
        sum: None,
    };
    module.visit(&mut norm);
    let Some(sum) = norm.sum else { return grads };
    let scale = sum
        .sqrt()
        .add_scalar(TINY)
        .recip()
        .mul_scalar(max_norm)
        .clamp_max(1.0);
    let mut scaled = Scaled {
        grads,
        scale,
        result: GradientsParams::new(),
    };
    module.visit(&mut scaled);
    scaled.result
}

/// Adds up the squares of all gradients.
struct SquaredNorm<'a> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        // Squares overflow f16 and lose bf16's few digits.
        let squares = grad.cast(DType::F32).square().sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + squares,
            None => squares,
        });
    }
}

/// Multiplies all gradients by one number.
struct Scaled {
    grads: GradientsParams,
    scale: Tensor<1>,
    result: GradientsParams,
}

impl ModuleVisitor for Scaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let scale = self.scale.clone().cast(grad.dtype()).reshape([1; D]);
        self.result.register(param.id, grad * scale);
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;

    type Pair = (Param<Tensor<1>>, Param<Tensor<2>>);

    fn pair() -> (Pair, GradientsParams) {
        let device = Device::flex();
        let first = Param::from_tensor(Tensor::from_floats([0.0, 0.0], &device));
        let second = Param::from_tensor(Tensor::from_floats([[0.0], [0.0]], &device));
        let mut grads = GradientsParams::new();
        // Norm: sqrt(1 + 4 + 4 + 16) = 5.
        grads.register(first.id, Tensor::<1>::from_floats([1.0, -2.0], &device));
        grads.register(second.id, Tensor::<2>::from_floats([[2.0], [4.0]], &device));
        ((first, second), grads)
    }

    fn values(module: &Pair, mut grads: GradientsParams) -> Vec<f32> {
        let first = grads.remove::<1>(module.0.id).expect("there").into_data();
        let second = grads.remove::<2>(module.1.id).expect("there").into_data();
        first.iter::<f32>().chain(second.iter::<f32>()).collect()
    }

    #[test]
    fn a_large_norm_is_scaled_down_for_all_alike() {
        let (module, grads) = pair();
        let clipped = values(&module, clip_global_norm(&module, grads, 0.5));
        for (clipped, grad) in clipped.into_iter().zip([1.0, -2.0, 2.0, 4.0_f32]) {
            assert!((clipped - grad * 0.1).abs() < 1e-6, "{clipped} for {grad}");
        }
    }

    #[test]
    fn a_small_norm_is_left_as_it_is() {
        let (module, grads) = pair();
        assert_eq!(
            values(&module, clip_global_norm(&module, grads, 5.1)),
            [1.0, -2.0, 2.0, 4.0]
        );
    }

    #[test]
    fn no_gradient_is_no_fault() {
        let (module, _) = pair();
        assert!(clip_global_norm(&module, GradientsParams::new(), 1.0).is_empty());
    }
}
