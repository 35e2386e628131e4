//! Layers of one input whose weights a GPU has side by side compute and train as they do on a CPU, where each is alone.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lora::adapter::{
    DEFAULT_NAME, LoraConfig, Targets, attach, merge, project, project_together,
};
use burn_lora::kernels::{are_side_by_side, side_by_side};
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

/// Their biases.
struct Biases(Vec<Tensor<1>>);

impl ModuleVisitor for Biases {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 1 {
            self.0
                .push(Tensor::from_dispatch(param.base().into_dispatch()));
        }
    }
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
            if bias {
                let mut biases = Biases(Vec::new());
                model.visit(&mut biases);
                let attention = biases.0.windows(3).filter(|three| are_side_by_side(three));
                assert_eq!(attention.count(), if on_gpu { 2 } else { 0 });
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

/// Three layers of one input, as a user's module has them.
#[derive(Module, Debug)]
struct Layers {
    q: Linear,
    k: Linear,
    v: Linear,
}

impl Layers {
    fn new(device: &Device) -> Self {
        let wave = |phase: usize, count: usize| -> Vec<f32> {
            let number = |at: usize| (phase as f32 + 0.7 * at as f32).sin();
            (0..count).map(number).collect()
        };
        let weights = [0, 1, 2].map(|phase| {
            let data = TensorData::new(wave(phase, 16 * 128), [16, 128]);
            Tensor::<2>::from_data(data, device)
        });
        let biases = [3, 4, 5].map(|phase| Tensor::<1>::from_floats(&wave(phase, 128)[..], device));
        let mut weights = side_by_side(weights.into()).into_iter();
        let mut biases = side_by_side(biases.into()).into_iter();
        let mut layer = || Linear {
            weight: Param::from_tensor(weights.next().unwrap()).set_require_grad(false),
            bias: biases
                .next()
                .map(|bias| Param::from_tensor(bias).set_require_grad(false)),
        };
        Self {
            q: layer(),
            k: layer(),
            v: layer(),
        }
    }

    fn all(&self) -> [&Linear; 3] {
        [&self.q, &self.k, &self.v]
    }
}

#[test]
fn layers_are_one_product_unless_an_adapter_is_more_than_two_factors() {
    on_each_device(|device| {
        let on_gpu = format!("{device:?}").contains("Cube");
        let device = device.autodiff();
        let layers = Layers::new(&device);
        let x = Tensor::<2>::from_data(TensorData::new(vec![0.3f32; 5 * 16], [5, 16]), &device);
        let targets = || Targets::names(["q", "v"]);
        let lora = LoraConfig::new(4, 8.0).with_targets(targets());
        let attached = |layers: Layers, name: &str, config: &LoraConfig| {
            attach(layers, name, config).unwrap().map(&mut Filled(0))
        };
        let one = attached(layers.clone(), DEFAULT_NAME, &lora);
        for layers in [&layers, &one] {
            let together = project_together(&layers.all(), &x);
            assert_eq!(together.is_some(), on_gpu);
            let alone = layers.all().map(|layer| floats(project(layer, x.clone())));
            let Some(together) = together else {
                continue;
            };
            for (part, alone) in together.split(128, 1).into_iter().zip(alone) {
                near("a part", &floats(part), &alone, 1e-5);
            }
        }
        let dora = lora.clone().with_method("dora".parse().unwrap());
        let dropped = lora.clone().with_dropout(0.5);
        for config in [dora, dropped] {
            let layers = attached(layers.clone(), DEFAULT_NAME, &config);
            assert!(project_together(&layers.all(), &x).is_none());
        }
        // Merged weights are elsewhere.
        let merged = merge(one).unwrap();
        assert!(project_together(&merged.all(), &x).is_none());
    });
}
