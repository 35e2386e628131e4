use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig1d};
use burn::tensor::{DType, Device, Tensor, TensorData, activation::relu};
use burn_lora::adapter::{
    Ia3Config, LoHaConfig, LoKrConfig, LoraConfig, LoraInit, MethodConfig, Targets, VeraConfig,
    project,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The cases of `golden/methods.py`, each with the case or module that is its base.
pub const METHOD_CASES: [(&str, &str); 29] = [
    ("dora", "llama"),
    ("dora_gpt2", "gpt2"),
    ("lora_bias", "gpt2"),
    ("lora_biases", "gpt2"),
    ("lora_own_biases", "gpt2"),
    ("vera_own_biases", "vision"),
    ("conv_biases", "vision"),
    ("lora_layers", "llama"),
    ("lora_embedding", "llama_tied"),
    ("dora_embedding", "llama"),
    ("lora_tokens", "llama_tied"),
    ("tokens", "llama_tied"),
    ("vera", "llama"),
    ("vera_key", "llama"),
    ("loha", "llama"),
    ("lokr", "llama"),
    ("lokr_both", "llama"),
    ("adalora", "llama"),
    ("ia3", "gpt2"),
    ("ia3_llama", "llama"),
    ("conv_lora", "vision"),
    ("conv_dora", "vision"),
    ("conv_loha", "vision"),
    ("conv_lokr", "vision"),
    ("conv_loha_core", "vision"),
    ("conv_lokr_core", "vision"),
    ("conv_lokr_plane", "vision"),
    ("conv_lokr_whole", "vision"),
    ("conv_ia3", "vision"),
];

/// The cases whose factors are over a base without what they started from, which PEFT takes out of it again on loading.
pub const START_CASES: [(&str, &str); 5] = [
    ("pissa", "llama"),
    ("pissa_dora", "llama"),
    ("pissa_gpt2", "gpt2"),
    ("pissa_wide", "vision"),
    ("olora", "llama"),
];

/// The cases that PEFT trained over a base that lost its factors and saved as plain LoRA for the base as it was
/// (`path_initial_model_for_weight_conversion`).
pub const CONVERTED_CASES: [(&str, &str); 3] = [
    ("pissa_niter_converted", "llama"),
    ("corda_converted", "llama"),
    ("lora_ga_converted", "llama"),
];

/// LoRA on convolutions in groups, which PEFT trained with every row of A kept to the channels of its group. What it starts from
/// looks across groups.
pub const GROUPED_CASES: [(&str, &str); 1] = [("conv_groups", "grouped")];

/// What PEFT computes with one method.
pub struct MethodCase {
    /// Name of the case.
    pub name: &'static str,
    /// The case or module that is its base.
    pub base: &'static str,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>, Dtype)>,
}

impl MethodCase {
    /// All cases that are written as they are read.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::open(METHOD_CASES)
    }

    /// The cases of `START_CASES`.
    pub fn starts() -> impl Iterator<Item = Self> {
        Self::open(START_CASES)
    }

    /// The cases of `CONVERTED_CASES`.
    pub fn converted() -> impl Iterator<Item = Self> {
        Self::open(CONVERTED_CASES)
    }

    /// The cases of `GROUPED_CASES`.
    pub fn grouped() -> impl Iterator<Item = Self> {
        Self::open(GROUPED_CASES)
    }

    fn open<const N: usize>(
        cases: [(&'static str, &'static str); N],
    ) -> impl Iterator<Item = Self> {
        cases.into_iter().map(|(name, base)| {
            let path = folder(name).join("reference.safetensors");
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let tensors = file.iter().map(|(name, view)| {
                let tensor = (view.shape().to_vec(), view.data().to_vec(), view.dtype());
                (name.to_string(), tensor)
            });
            let tensors = tensors.collect();
            Self {
                name,
                base,
                tensors,
            }
        })
    }

    /// The folder of the adapter that PEFT trained.
    pub fn adapter_folder(&self) -> PathBuf {
        folder(self.name).join("adapter")
    }

    /// A tensor of the reference, row by row.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let found = self.tensors.get(name);
        let (_, bytes, _) = found.unwrap_or_else(|| panic!("{}: no tensor {name}", self.name));
        bytemuck::pod_collect_to_vec(bytes)
    }

    /// The tensors whose names begin so, without it, flat.
    pub fn stage(&self, stage: &str) -> BTreeMap<String, Vec<f32>> {
        let names = self
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix(stage));
        names
            .map(|name| (name.to_string(), self.floats(&format!("{stage}{name}"))))
            .collect()
    }

    /// Writes the adapter from which the gradients were computed as a PEFT folder.
    pub fn write_initial(&self, to: &Path) {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(name, (shape, bytes, dtype))| {
                let key = name.strip_prefix("init.weight/")?;
                Some((key, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
            });
        safetensors::serialize_to_file(tensors, None, &to.join("adapter_model.safetensors"))
            .unwrap();
        let config = folder(self.name).join("init_config.json");
        fs::copy(config, to.join("adapter_config.json")).unwrap();
    }

    /// The module of convolutions in groups, with the weights of the reference.
    pub fn convolutions_in_groups(&self, device: &Device) -> Grouped {
        Grouped::new(device, |name| self.floats(&format!("base.weight/{name}")))
    }

    /// The module of convolutions, with the weights of the reference.
    pub fn vision(&self, device: &Device) -> Vision {
        Vision::new(device, DType::F32, |name| {
            self.floats(&format!("base.weight/{name}"))
        })
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

fn param<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(
        TensorData::new(values, shape),
        (device, dtype),
    ))
}

/// Convolutions of Burn's own in groups: two of the first, four of the second.
#[derive(Module, Debug)]
pub struct Grouped {
    /// `[8, 3, 3]`
    pub line: Conv1d,
    /// `[8, 1, 2, 3]`
    pub plane: Conv2d,
}

impl Grouped {
    /// Weights by the names and in the layout of PyTorch.
    pub fn new(device: &Device, values: impl Fn(&str) -> Vec<f32>) -> Self {
        let dtype = DType::F32;
        let mut line = Conv1dConfig::new(6, 8, 3)
            .with_groups(2)
            .with_padding(PaddingConfig1d::Explicit(1, 1))
            .init(device);
        line.weight = param(values("line.weight"), [8, 3, 3], device, dtype);
        line.bias = Some(param(values("line.bias"), [8], device, dtype));
        let mut plane = Conv2dConfig::new([4, 8], [2, 3])
            .with_stride([2, 2])
            .with_groups(4)
            .init(device);
        plane.weight = param(values("plane.weight"), [8, 1, 2, 3], device, dtype);
        plane.bias = Some(param(values("plane.bias"), [8], device, dtype));
        Self { line, plane }
    }

    /// # Shapes
    /// - x: `[batch, 6, 9]`
    /// - output: `[batch, 8, 4]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, _, _] = x.dims();
        let x = relu(self.line.forward(x)).reshape([batch, 4, 2, 9]);
        self.plane.forward(x).reshape([batch, 8, 4])
    }
}

/// Convolutions of Burn's own in one and two dimensions, and a linear layer that calls `project`.
#[derive(Module, Debug)]
pub struct Vision {
    /// `[8, 6, 3]`
    pub line: Conv1d,
    /// `[6, 4, 2, 3]`
    pub plane: Conv2d,
    /// `[12, 5]`
    pub head: Linear,
}

impl Vision {
    /// Weights by the names and in the layout of PyTorch.
    pub fn new(device: &Device, dtype: DType, values: impl Fn(&str) -> Vec<f32>) -> Self {
        let mut line = Conv1dConfig::new(6, 8, 3)
            .with_padding(PaddingConfig1d::Explicit(1, 1))
            .init(device);
        line.weight = param(values("line.weight"), [8, 6, 3], device, dtype);
        line.bias = Some(param(values("line.bias"), [8], device, dtype));
        let mut plane = Conv2dConfig::new([4, 6], [2, 3])
            .with_stride([2, 2])
            .init(device);
        plane.weight = param(values("plane.weight"), [6, 4, 2, 3], device, dtype);
        plane.bias = Some(param(values("plane.bias"), [6], device, dtype));
        let mut head = LinearConfig::new(12, 5).init(device);
        let turned = Tensor::<2>::from_data(
            TensorData::new(values("head.weight"), [5, 12]),
            (device, dtype),
        );
        head.weight = Param::from_tensor(turned.transpose());
        head.bias = Some(param(values("head.bias"), [5], device, dtype));
        Self { line, plane, head }
    }

    /// # Shapes
    /// - x: `[batch, 6, 9]`
    /// - output: `[batch, 2, 5]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, _, _] = x.dims();
        let x = relu(self.line.forward(x)).reshape([batch, 4, 2, 9]);
        let x = relu(self.plane.forward(x)).reshape([batch, 2, 12]);
        project(&self.head, x)
    }
}

/// Every method, as a subject's layers are adapted by it. The layers that scale inputs under (IA)3 are the last target.
pub fn methods_for(config: &LoraConfig, feedforward: &str) -> Vec<LoraConfig> {
    let with = |method: MethodConfig| config.clone().with_method(method);
    let ia3 = |feedforward| MethodConfig::Ia3(Ia3Config { feedforward });
    vec![
        with(MethodConfig::Lora),
        with(MethodConfig::LoraFa),
        with(MethodConfig::Dora),
        with(MethodConfig::Vera(VeraConfig::default())),
        with(MethodConfig::Vera(VeraConfig {
            key: 9,
            save_projection: false,
            d_initial: 0.3,
        })),
        with(MethodConfig::LoHa(LoHaConfig::default())),
        with(MethodConfig::LoKr(LoKrConfig::default())),
        with(MethodConfig::LoKr(LoKrConfig {
            decompose_both: true,
            decompose_factor: Some(2),
            ..LoKrConfig::default()
        })),
        with("adalora".parse().unwrap()),
        with(ia3(None)),
        with(ia3(Some(Targets::names([feedforward])))),
        with(MethodConfig::Full),
    ]
}

/// Those of the methods that see more than a matrix in a kernel.
pub fn methods_for_kernels(config: &LoraConfig) -> Vec<LoraConfig> {
    let with = |method: MethodConfig| config.clone().with_method(method);
    vec![
        with(MethodConfig::LoHa(LoHaConfig {
            use_effective_conv2d: true,
            ..LoHaConfig::default()
        })),
        with(MethodConfig::LoKr(LoKrConfig {
            use_effective_conv2d: true,
            decompose_factor: Some(1),
            ..LoKrConfig::default()
        })),
    ]
}

/// The same with an adapter that changes the output at once.
pub fn random(config: &LoraConfig) -> LoraConfig {
    config.clone().with_init(LoraInit::Random)
}
