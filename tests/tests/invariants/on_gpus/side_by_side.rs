//! Layers of one input whose weights a GPU has side by side compute and train as they do on a CPU, where each is alone.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, LoraConfig, Targets, attach};
use burn_lora::kernels::are_side_by_side;
use burn_lora::transformer::{Decoder, LlamaConfig};
use burn_lora_tests::{Parameters, assert_close, floats, gradients, on_each_device, parameters};

/// Numbers for each adapter, which an up-projection of 0 would keep from having a gradient.
struct Filled(usize);

impl ModuleMapper for Filled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            self.0 += 1;
            let shape = tensor.dims();
            let count: usize = shape.iter().product();
            let number = |at: usize| 0.1 * (self.0 as f32 + 1.3 * at as f32).sin();
            let data = TensorData::new((0..count).map(number).collect(), shape);
            Tensor::from_data(data, &tensor.device()).require_grad()
        })
    }
}

/// Full fine-tuning.
struct Tracked;

impl ModuleMapper for Tracked {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(true)
    }
}

/// The weights of layers of these names, in the order of the model.
struct Weights<'a> {
    names: &'a [&'a str],
    path: Vec<String>,
    found: Vec<Tensor<2>>,
}

impl ModuleVisitor for Weights<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let named = |name: &&str| self.path.iter().any(|part| part == name);
        if D == 2 && self.names.iter().any(named) {
            self.found
                .push(Tensor::from_dispatch(param.base().into_dispatch()));
        }
    }
}

fn weights(decoder: &Decoder, names: &[&str]) -> Vec<Tensor<2>> {
    let mut weights = Weights {
        names,
        path: Vec::new(),
        found: Vec::new(),
    };
    decoder.visit(&mut weights);
    weights.found
}

/// As wide as the memory of a GPU is bound.
fn decoder(device: &Device, bias: bool) -> Decoder {
    let config = LlamaConfig {
        vocab_size: 32,
        hidden_size: 128,
        intermediate_size: 256,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        attention_bias: bias,
        // So that a layer changes what comes in.
        initializer_range: 0.2,
        ..LlamaConfig::default()
    };
    Decoder::init(config, device, 7).unwrap()
}

fn loss(model: &Decoder) -> Tensor<1> {
    let ids = [[3, 11, 7, 0, 30, 2, 9], [1, 1, 25, 4, 16, 8, 5]];
    let ids = Tensor::<2, Int>::from_data(ids, &model.device());
    model.logits(ids).powi_scalar(2).mean()
}

/// The loss, the gradients, and the loss after two steps.
fn trained(mut model: Decoder) -> (Vec<f32>, Parameters, Vec<f32>) {
    let before = loss(&model);
    let found = gradients(&model, &before.backward());
    let mut optimizer = AdamWConfig::new().init();
    for _ in 0..2 {
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
    }
    (floats(before), found, floats(loss(&model)))
}

/// Off by no more than this share of the largest number.
fn near(what: &str, actual: &[f32], expected: &[f32], share: f32) {
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert_close(what, actual, expected, share * largest);
}

#[test]
fn layers_side_by_side_compute_and_train_as_layers_alone() {
    on_each_device(|device| {
        let on_gpu = format!("{device:?}").contains("Cube");
        let (device, cpu) = (device.autodiff(), Device::flex().autodiff());
        for bias in [false, true] {
            let model = decoder(&device, bias);
            for (names, each) in [
                (&["q_proj", "k_proj", "v_proj"][..], 3),
                (&["gate_proj", "up_proj"], 2),
            ] {
                let all = weights(&model, names);
                assert_eq!(all.len(), 2 * each);
                for block in all.chunks(each) {
                    assert_eq!(are_side_by_side(block), on_gpu, "{names:?}");
                }
            }
            // Read back, each is what it was.
            assert_eq!(parameters(&model), parameters(&decoder(&cpu, bias)));
            // All layers and some of those that are side by side, with blocks that are computed again and without; and none, where
            // the weights themselves are trained.
            let adapted = [
                Some(
                    &[
                        "q_proj",
                        "k_proj",
                        "v_proj",
                        "o_proj",
                        "gate_proj",
                        "up_proj",
                        "down_proj",
                    ][..],
                ),
                Some(&["q_proj", "v_proj", "up_proj"]),
                None,
            ];
            for (targets, again) in adapted.into_iter().zip([0, 1, 0]) {
                let [ours, expected] = [&device, &cpu].map(|device| {
                    let model = decoder(device, bias).with_recompute(again);
                    trained(match targets {
                        Some(targets) => {
                            let config = LoraConfig::new(4, 8.0)
                                .with_targets(Targets::names(targets.iter().copied()));
                            attach(model, DEFAULT_NAME, &config)
                                .unwrap()
                                .map(&mut Filled(0))
                        }
                        None => model.map(&mut Tracked),
                    })
                });
                let what = format!("{targets:?}, bias {bias}");
                near(&what, &ours.0, &expected.0, 1e-5);
                assert_eq!(
                    ours.1.keys().collect::<Vec<_>>(),
                    expected.1.keys().collect::<Vec<_>>()
                );
                for (path, gradient) in &ours.1 {
                    let numbers = |data: &TensorData| data.try_to_vec::<f32>().unwrap();
                    let expected = &expected.1[path];
                    near(
                        &format!("{what}: {path}"),
                        &numbers(gradient),
                        &numbers(expected),
                        1e-4,
                    );
                }
                // Where a gradient is next to nothing, a step has the size of any other.
                near(&what, &ours.2, &expected.2, 1e-3);
            }
        }
    });
}
