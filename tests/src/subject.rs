use burn::module::{Module, Param};
use burn::nn::{Linear, Relu};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lora::adapter::{LoraConfig, Targets};
use burn_lora::transformer::{
    Decoder, EncoderBatch, FolderOptions, LoadOptions, SequenceClassifier, T5,
};

use crate::compare::floats;
use crate::golden::Golden;
use crate::methods::Vision;

/// The [roundings](Subject::roundings) of a decoder or an encoder of two blocks: in each a norm, a projection, what attention makes, its
/// output, the sum, and as many for the inner layer, less one; and the embedding and the head.
pub const DECODER_ROUNDINGS: usize = 20;

/// Those of two blocks that read and two that write, which have attention to the others, too.
const T5_ROUNDINGS: usize = DECODER_ROUNDINGS + DECODER_ROUNDINGS + 2 * 4;

/// A tiny module that the invariants are checked on.
pub struct Subject<M> {
    /// What a failing test calls it.
    pub name: &'static str,
    /// The module, without adapters.
    pub base: M,
    /// Layers to adapt.
    pub targets: Vec<&'static str>,
    /// Input and output width of each of the layers that `targets` matches.
    pub adapted: Vec<[usize; 2]>,
    /// The format of its weights.
    pub dtype: DType,
    /// How often a value is rounded to that format, one time after another, on its way from the input to an output.
    pub roundings: usize,
    forward: fn(&M, &Device) -> Tensor<2>,
    device: Device,
}

impl<M: Module> Subject<M> {
    /// A configuration for the targets, with rank 4 and scale 2.
    pub fn config(&self) -> LoraConfig {
        LoraConfig::new(4, 8.0).with_targets(Targets::names(self.targets.clone()))
    }

    /// What a model makes of a fixed input.
    ///
    /// # Shapes
    /// - output: `[rows, features]`, f32
    pub fn forward(&self, model: &M) -> Tensor<2> {
        let output = (self.forward)(model, &self.device);
        match output.dtype() {
            DType::F32 => output,
            _ => output.cast(DType::F32),
        }
    }

    /// The values of [`forward`](Self::forward).
    pub fn output(&self, model: &M) -> Vec<f32> {
        floats(self.forward(model))
    }

    /// Seeds the random numbers of the device.
    pub fn seed(&self, seed: u64) {
        self.device.seed(seed);
    }

    /// A loss that every output has a part in.
    pub fn loss(&self, model: &M) -> Tensor<1> {
        self.forward(model).powi_scalar(2).mean()
    }
}

/// The golden Llama: it calls `project`.
pub fn llama(device: &Device, dtype: DType) -> Subject<Decoder> {
    let layer = [[32, 32], [32, 16], [45, 32]];
    Subject {
        name: "llama",
        base: Golden::open("llama").base_in(device, dtype),
        targets: vec!["q_proj", "v_proj", "down_proj"],
        adapted: layer.into_iter().chain(layer).collect(),
        dtype,
        roundings: DECODER_ROUNDINGS,
        forward: decode,
        device: device.clone(),
    }
}

/// The golden GPT-2: its checkpoint holds the transpose of what a linear layer's would.
pub fn gpt2(device: &Device, dtype: DType) -> Subject<Decoder> {
    let layer = [[30, 90], [30, 120]];
    Subject {
        name: "gpt2",
        base: Golden::open("gpt2").base_in(device, dtype),
        targets: vec!["c_attn", "c_fc"],
        adapted: layer.into_iter().chain(layer).collect(),
        dtype,
        roundings: DECODER_ROUNDINGS,
        forward: decode,
        device: device.clone(),
    }
}

/// The golden BERT that classifies sequences.
pub fn bert(device: &Device, dtype: DType) -> Subject<SequenceClassifier> {
    let layer = [[16, 16], [16, 16], [16, 24]];
    let options = FolderOptions {
        load: LoadOptions::new(dtype, device.clone()),
        ..FolderOptions::new(device.clone())
    };
    let folder = Golden::open("bert_sequence").model_folder();
    Subject {
        name: "bert",
        base: SequenceClassifier::load_with(&folder, &options).unwrap(),
        targets: vec!["query", "value", "intermediate.dense"],
        adapted: layer.into_iter().chain(layer).collect(),
        dtype,
        roundings: DECODER_ROUNDINGS,
        forward: |model, device| model.forward(&read(device)),
        device: device.clone(),
    }
}

/// The golden T5; what it reads and writes is fixed.
pub fn t5(device: &Device, dtype: DType) -> Subject<T5> {
    let block = |attentions: usize| [vec![[16, 12]; 2 * attentions], vec![[24, 16]]].concat();
    let blocks = [block(1), block(1), block(2), block(2)];
    let options = LoadOptions::new(dtype, device.clone());
    Subject {
        name: "t5",
        base: T5::load(&Golden::open("t5").model_folder(), &options).unwrap(),
        targets: vec!["q", "v", "wo"],
        adapted: blocks.concat(),
        dtype,
        roundings: T5_ROUNDINGS,
        forward: |model, device| {
            let written = [[0, 11, 5, 30], [0, 8, 2, 19]];
            let written = Tensor::<2, Int>::from_data(written, device);
            let hidden = model.decode(written, &model.encode(&read(device)));
            model.logits_of(hidden).flatten(0, 1)
        },
        device: device.clone(),
    }
}

/// Two rows, the second shorter.
fn read(device: &Device) -> EncoderBatch {
    let rows = [[7, 3, 11, 32, 20, 8], [5, 5, 31, 2, 0, 0]];
    EncoderBatch::new(Tensor::from_data(rows, device), [6, 4])
}

/// A user's own module of plain layers, which know nothing of adapters.
pub fn mlp(device: &Device, dtype: DType) -> Subject<Mlp> {
    Subject {
        name: "mlp",
        base: Mlp::new(device, dtype),
        targets: vec!["up", "down"],
        adapted: vec![[6, 20], [20, 10]],
        dtype,
        roundings: DECODER_ROUNDINGS,
        forward: |model, device| {
            let dtype = model.up.weight.base().dtype();
            model.forward(waves(0.0, [7, 6], device, dtype))
        },
        device: device.clone(),
    }
}

/// A user's module of Burn's convolutions, which know nothing of adapters.
pub fn vision(device: &Device, dtype: DType) -> Subject<Vision> {
    let values = |name: &str| {
        let (phase, count) = match name {
            "line.weight" => (0.2, 8 * 6 * 3),
            "line.bias" => (0.4, 8),
            "plane.weight" => (0.6, 6 * 4 * 2 * 3),
            "plane.bias" => (0.8, 6),
            "head.weight" => (1.0, 5 * 12),
            _ => (1.2, 5),
        };
        (0..count)
            .map(|i| 0.6 * (phase + 1.7 * i as f32).sin())
            .collect()
    };
    Subject {
        name: "vision",
        base: Vision::new(device, dtype, values),
        targets: vec!["line", "plane", "head"],
        adapted: vec![[18, 8], [24, 6], [12, 5]],
        dtype,
        roundings: DECODER_ROUNDINGS,
        forward: |model, device| {
            let dtype = model.head.weight.base().dtype();
            let x = waves(0.0, [3, 6, 9], device, dtype);
            model.forward(x).flatten(0, 1)
        },
        device: device.clone(),
    }
}

/// What a Burn user might have: plain linear layers, one without a bias.
#[derive(Module, Debug)]
pub struct Mlp {
    /// To the hidden width.
    pub up: Linear,
    /// From the hidden width.
    pub down: Linear,
    /// To the classes.
    pub head: Linear,
    relu: Relu,
}

impl Mlp {
    /// Weights that are the same on every device.
    pub fn new(device: &Device, dtype: DType) -> Self {
        let linear = |phase: f32, d_in: usize, d_out: usize, has_bias: bool| Linear {
            weight: Param::from_tensor(waves(phase, [d_in, d_out], device, dtype)),
            bias: has_bias.then(|| Param::from_tensor(waves(phase, [d_out], device, dtype))),
        };
        Self {
            up: linear(0.3, 6, 20, true),
            down: linear(0.7, 20, 10, false),
            head: linear(1.1, 10, 3, true),
            relu: Relu::new(),
        }
    }

    /// The classes' scores.
    ///
    /// # Shapes
    /// - x: `[batch, 6]`
    /// - output: `[batch, 3]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.relu.forward(self.up.forward(x)); // [batch, 20]
        let x = self.relu.forward(self.down.forward(x)); // [batch, 10]
        self.head.forward(x)
    }
}

/// Numbers between -1 and 1 without a pattern that a layer could cancel.
fn waves<const D: usize>(
    phase: f32,
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values = (0..count)
        .map(|i| (phase + 1.7 * i as f32).sin())
        .collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// Logits of a fixed batch; every vocabulary has its ids.
fn decode(decoder: &Decoder, device: &Device) -> Tensor<2> {
    let rows = [[7, 3, 11, 45, 20, 8], [5, 5, 31, 2, 9, 58]];
    let ids = Tensor::<2, Int>::from_data(rows, device);
    decoder.logits(ids).flatten(0, 1)
}

/// Runs a block on each tiny module, on each device: `on_every_subject!(|subject| { ... })` in f32 without autodiff,
/// `on_every_subject!(autodiff, |subject| { ... })` with it. The block is compiled once for each type of module.
#[macro_export]
macro_rules! on_every_subject {
    (|$subject:ident| $body:block) => {
        $crate::on_every_subject!(@run |device: ::burn::tensor::Device| device, $subject, $body)
    };
    (autodiff, |$subject:ident| $body:block) => {
        $crate::on_every_subject!(@run |device: ::burn::tensor::Device| device.autodiff(), $subject, $body)
    };
    (@run $prepare:expr, $subject:ident, $body:block) => {
        $crate::on_each_device(|device| {
            let device = ($prepare)(device);
            let dtype = ::burn::tensor::DType::F32;
            {
                let $subject = $crate::llama(&device, dtype);
                $body
            }
            {
                let $subject = $crate::gpt2(&device, dtype);
                $body
            }
            {
                let $subject = $crate::mlp(&device, dtype);
                $body
            }
        })
    };
}
