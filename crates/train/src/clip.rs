use std::iter::{Peekable, Zip};
use std::vec::IntoIter;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Shape, Tensor};
use burn_lora_kernels::{Clipped, clip_norm};

/// Scales all gradients of a module so that their common L2 norm is at most `max_norm` (see [`clip_norm`]), and tells the
/// norm that they had, on the device.
///
/// Clipping each tensor by itself, as Burn's optimizers do, would change the direction of the step.
pub(crate) fn clip_global_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    max_norm: Option<f64>,
) -> (GradientsParams, Option<Tensor<1>>) {
    let mut taken = Taken {
        grads,
        places: Vec::new(),
        flat: Vec::new(),
    };
    module.visit(&mut taken);
    let Clipped { gradients, norm } = clip_norm(taken.flat, max_norm);
    let clipped = gradients.into_iter();
    let mut returned = Returned {
        clipped: taken.places.into_iter().zip(clipped).peekable(),
        grads: taken.grads,
    };
    module.visit(&mut returned);
    (returned.grads, norm)
}

/// Takes out the gradients of a module, in the order of its parameters.
struct Taken {
    grads: GradientsParams,
    places: Vec<(ParamId, Shape)>,
    flat: Vec<Tensor<1>>,
}

impl ModuleVisitor for Taken {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.places.push((param.id, grad.shape()));
            self.flat.push(grad.reshape([-1]));
        }
    }
}

/// Where each gradient belongs, and its numbers in one row.
type Placed = Zip<IntoIter<(ParamId, Shape)>, IntoIter<Tensor<1>>>;

/// Gives them back.
struct Returned {
    clipped: Peekable<Placed>,
    grads: GradientsParams,
}

impl ModuleVisitor for Returned {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let next = self.clipped.next_if(|((id, _), _)| *id == param.id);
        if let Some(((id, shape), grad)) = next {
            self.grads.register(id, grad.reshape::<D, _>(shape));
        }
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
        let clipped = values(&module, clip_global_norm(&module, grads, Some(0.5)).0);
        for (clipped, grad) in clipped.into_iter().zip([1.0, -2.0, 2.0, 4.0_f32]) {
            assert!((clipped - grad * 0.1).abs() < 1e-6, "{clipped} for {grad}");
        }
    }

    #[test]
    fn a_small_norm_is_left_as_it_is() {
        let (module, grads) = pair();
        let (grads, norm) = clip_global_norm(&module, grads, Some(5.1));
        assert_eq!(values(&module, grads), [1.0, -2.0, 2.0, 4.0]);
        assert_eq!(norm.expect("gradients").into_scalar::<f32>(), 5.0);
    }

    #[test]
    fn no_gradient_is_no_fault() {
        let (module, _) = pair();
        let (grads, norm) = clip_global_norm(&module, GradientsParams::new(), Some(1.0));
        assert!(grads.is_empty() && norm.is_none());
    }
}
