//! Alone in its process: other tests would draw from the same device meanwhile.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use burn_lora_kernels::recompute;

#[derive(Module, Debug)]
struct Dropout {
    weight: Param<Tensor<2>>,
}

impl Dropout {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val());
        y.clone() * y.random_like(Distribution::Bernoulli(0.5))
    }
}

#[test]
fn a_seed_repeats_the_random_numbers() {
    let device = Device::flex().autodiff();
    let weight = Tensor::random([5, 5], Distribution::Normal(0.0, 1.0), &device);
    let module = Dropout {
        weight: Param::from_tensor(weight),
    };
    let x = Tensor::<2>::random([40, 5], Distribution::Normal(0.0, 1.0), &device);
    let gradient = |y: Tensor<2>| {
        let grads = y.clone().powi_scalar(2).sum().backward();
        let grad = module.weight.val().grad(&grads).expect("tracked");
        (y.into_data(), grad.into_data())
    };

    device.seed(7);
    let kept = gradient(module.forward(x.clone()));
    let again = recompute(&module, x, Some(7), |module, x| module.forward(x));
    // Whatever is drawn between the two forwards.
    let _ = Tensor::<1>::random([3], Distribution::Default, &device);
    assert_eq!(kept, gradient(again));
}
