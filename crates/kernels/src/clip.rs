use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
use crate::portable;

/// Keeps PyTorch's result where the norm is 0.
pub(crate) const TINY: f64 = 1e-6;

/// What [`clip_norm`] gives.
#[derive(Clone, Debug)]
pub struct Clipped {
    /// The gradients, in their order.
    pub gradients: Vec<Tensor<1>>,
    /// The norm that they had, `[1]` in f32, on the device; nothing where there is no gradient.
    pub norm: Option<Tensor<1>>,
}

/// Scales gradients so that their common L2 norm is at most `max_norm`, as PyTorch's `clip_grad_norm_` does.
///
/// `g min(1, max_norm / (||g|| + 1e-6))`, the norm in `f32`. It stays on the device, so nothing waits for it. Without a
/// `max_norm` the gradients are left as they are, and the norm is told. Each result has the dtype of its operand; on a GPU it is written where the operand lies, if nobody else has that.
///
/// # Shapes
///
/// A result has the shape of its operand.
pub fn clip_norm(gradients: Vec<Tensor<1>>, max_norm: Option<f64>) -> Clipped {
    #[cfg(feature = "cube")]
    if let Some(first) = gradients.first() {
        let device = first.device();
        let takes = |x: &Tensor<1>| cube::takes(x) && !x.is_autodiff() && x.device() == device;
        if gradients.iter().all(takes) {
            return cube::clip(gradients, max_norm.map(|norm| norm as f32), TINY as f32);
        }
    }
    portable::clip_norm(gradients, max_norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device};

    fn clipped(dtype: DType, max_norm: f64) -> Vec<f32> {
        let device = Device::flex();
        // Norm: sqrt(1 + 4 + 4 + 16) = 5.
        let gradients = vec![
            Tensor::<1>::from_floats([1.0, -2.0], &device).cast(dtype),
            Tensor::<1>::from_floats([2.0, 4.0], &device).cast(dtype),
        ];
        let Clipped { gradients, norm } = clip_norm(gradients, Some(max_norm));
        let norm: f32 = norm.expect("gradients").into_scalar();
        assert!((norm - 5.0).abs() < 1e-6, "{norm}");
        let clipped = gradients;
        assert!(clipped.iter().all(|gradient| gradient.dtype() == dtype));
        let numbers = clipped
            .into_iter()
            .flat_map(|x| x.into_data().iter::<f32>().collect::<Vec<_>>());
        numbers.collect()
    }

    #[test]
    fn a_large_norm_is_scaled_down_for_all_alike() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 2e-3)] {
            for (clipped, gradient) in clipped(dtype, 0.5).iter().zip([1.0, -2.0, 2.0, 4.0_f32]) {
                let error = (clipped - gradient * 0.1).abs();
                assert!(error < tolerance, "{clipped} for {gradient}");
            }
        }
    }

    #[test]
    fn a_norm_without_a_bound_is_told() {
        let gradient = Tensor::<1>::from_floats([3.0, 4.0], &Device::flex());
        let Clipped { gradients, norm } = clip_norm(vec![gradient], None);
        assert_eq!(norm.expect("a gradient").into_scalar::<f32>(), 5.0);
        assert_eq!(
            gradients[0].to_data().iter::<f32>().collect::<Vec<_>>(),
            [3.0, 4.0]
        );
        assert!(clip_norm(Vec::new(), Some(1.0)).norm.is_none());
    }

    #[test]
    fn a_small_norm_is_left_as_it_is() {
        assert_eq!(clipped(DType::F32, 5.1), [1.0, -2.0, 2.0, 4.0]);
    }
}
