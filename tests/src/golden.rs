use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, peft};
use burn_lora::data::{Batch, Example};
use burn_lora::transformer::{Decoder, LoadOptions};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::compare::values;
use crate::parameters::Parameters;

/// The decoders that `tests/golden/generate.py` makes; the encoders are named by their tests.
pub const CASES: [&str; 14] = [
    "llama",
    "llama_tied",
    "llama_yarn",
    "mistral",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "gpt2",
    "gpt_neox",
    "mixtral",
    "qwen3_moe",
];

/// What PEFT puts before the path of a layer.
const PREFIX: &str = "base_model.model.";

/// The label of a token that is not learned.
const IGNORED: i64 = -100;

/// A tiny model, an adapter, and what PyTorch, Transformers and PEFT compute with them.
pub struct Golden {
    /// Name of the case.
    pub name: &'static str,
    tensors: HashMap<String, TensorData>,
}

impl Golden {
    /// Reads one case.
    pub fn open(name: &'static str) -> Self {
        let tensors = read(&folder(name).join("reference.safetensors"));
        Self { name, tensors }
    }

    /// Reads all decoders.
    pub fn all() -> impl Iterator<Item = Self> {
        CASES.into_iter().map(Self::open)
    }

    /// The checkpoint folder.
    pub fn model_folder(&self) -> PathBuf {
        folder(self.name).join("model")
    }

    /// The variants of the case: each a name and the `config.json` that stands for it over the same weights.
    pub fn variants(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = fs::read_dir(folder(self.name).join("variants")) else {
            return Vec::new();
        };
        let files = entries.map(|entry| entry.unwrap().path());
        let mut variants: Vec<_> = files
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                (name, path)
            })
            .collect();
        variants.sort();
        variants
    }

    /// The folder of the adapter that PEFT trained.
    pub fn adapter_folder(&self) -> PathBuf {
        folder(self.name).join("adapter")
    }

    /// The model, in f32.
    pub fn base(&self, device: &Device) -> Decoder {
        self.base_in(device, DType::F32)
    }

    /// The model in some float dtype.
    pub fn base_in(&self, device: &Device, dtype: DType) -> Decoder {
        let options = LoadOptions::new(dtype, device.clone());
        Decoder::load(&self.model_folder(), &options).unwrap()
    }

    /// The model under the adapter that PEFT trained.
    pub fn trained(&self, device: &Device) -> Decoder {
        load_adapter(self.base(device), &self.adapter_folder())
    }

    /// The model under the adapter from which the gradients and the optimizer's steps were computed.
    pub fn initial(&self, device: &Device) -> Decoder {
        let scratch = tempfile::tempdir().unwrap();
        self.write_adapter("init.weight/", scratch.path());
        load_adapter(self.base(device), scratch.path())
    }

    /// Writes the adapter of one stage (`init.weight/`, `adamw.weight/`) as a PEFT folder.
    pub fn write_adapter(&self, stage: &str, folder: &Path) {
        let tensors = self.tensors.iter().filter_map(|(name, data)| {
            let key = name.strip_prefix(stage)?;
            let shape = data.shape().to_vec();
            Some((
                key,
                TensorView::new(Dtype::F32, shape, data.as_bytes()).unwrap(),
            ))
        });
        let weights = folder.join("adapter_model.safetensors");
        safetensors::serialize_to_file(tensors, None, &weights).unwrap();
        fs::copy(
            self.adapter_folder().join("adapter_config.json"),
            folder.join("adapter_config.json"),
        )
        .unwrap();
    }

    /// Whether the reference has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A float tensor of the reference, row by row.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        values(self.tensor(name).clone())
    }

    /// An integer tensor of the reference, row by row.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        self.tensor(name).try_to_vec().unwrap()
    }

    /// The shape of a tensor of the reference.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).shape().to_vec()
    }

    /// The modules that the adapter's folder holds as a whole.
    pub fn modules_to_save(&self) -> Vec<String> {
        let config = peft::read_config(&self.adapter_folder()).unwrap();
        config.modules_to_save.unwrap_or_default()
    }

    /// A number of the reference.
    pub fn number(&self, name: &str) -> f64 {
        self.tensor(name).iter::<f64>().next().unwrap()
    }

    /// The tensors of one stage by the paths of our parameters, in our orientation: PEFT's factors are transposed.
    pub fn stage(&self, stage: &str) -> Parameters {
        let of_stage = self.tensors.iter().filter_map(|(name, data)| {
            let key = name.strip_prefix(stage)?;
            Some((parameter_path(key), transposed(data)))
        });
        let found: Parameters = of_stage.collect();
        assert!(!found.is_empty(), "{}: no tensor {stage}*", self.name);
        found
    }

    /// The token ids of the batch, padded on the right.
    pub fn input_ids(&self, device: &Device) -> Tensor<2, Int> {
        let shape = self.shape("input_ids");
        let data = TensorData::new(self.ints("input_ids"), [shape[0], shape[1]]);
        Tensor::from_data(data, device)
    }

    /// The rows of the batch, each with what is learned of it.
    pub fn examples(&self) -> Vec<Example> {
        let rows = self.rows("input_ids", "attention_mask");
        let width = self.shape("labels")[1];
        let labels = self.ints("labels");
        rows.into_iter()
            .zip(labels.chunks(width))
            .map(|(ids, labels)| {
                let prompt = labels.iter().position(|label| *label != IGNORED).unwrap();
                Example::new(ids, prompt).unwrap()
            })
            .collect()
    }

    /// The batch as our own data path makes it from the rows.
    pub fn batch(&self) -> Batch {
        Batch::new(&self.examples(), 0)
    }

    /// The prompts of the generation.
    pub fn prompts(&self) -> Vec<Vec<u32>> {
        self.rows("generate.input_ids", "generate.attention_mask")
    }

    /// What each prompt is continued with, greedily.
    pub fn continuations(&self) -> Vec<Vec<u32>> {
        let width = self.shape("generate.new_ids")[1];
        let ids = self.ints("generate.new_ids");
        ids.chunks(width)
            .map(|row| row.iter().map(|id| *id as u32).collect())
            .collect()
    }

    /// Keeps of `[batch, seq, vocab]` what stands at tokens: what stands at padding has no meaning.
    pub fn at_tokens(&self, logits: &[f32]) -> Vec<f32> {
        let mask = self.ints("attention_mask");
        let vocab_size = self.shape("base.logits")[2];
        assert_eq!(
            logits.len(),
            mask.len() * vocab_size,
            "{}: shape of the logits",
            self.name
        );
        logits
            .chunks(vocab_size)
            .zip(mask)
            .filter(|(_, mask)| *mask == 1)
            .flat_map(|(row, _)| row.iter().copied())
            .collect()
    }

    /// The ids of each row that are no padding.
    pub fn rows(&self, ids: &str, mask: &str) -> Vec<Vec<u32>> {
        let width = self.shape(ids)[1];
        let (ids, mask) = (self.ints(ids), self.ints(mask));
        ids.chunks(width)
            .zip(mask.chunks(width))
            .map(|(ids, mask)| {
                let kept = ids.iter().zip(mask).filter(|(_, mask)| **mask == 1);
                kept.map(|(id, _)| *id as u32).collect()
            })
            .collect()
    }

    fn tensor(&self, name: &str) -> &TensorData {
        let found = self.tensors.get(name);
        found.unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }
}

fn load_adapter(base: Decoder, folder: &Path) -> Decoder {
    let (model, _) = peft::load(base, DEFAULT_NAME, folder).unwrap();
    model
}

/// The path of one of our adapter parameters from PEFT's key; what is saved as a whole has its own path as key.
fn parameter_path(key: &str) -> String {
    let layer = key.strip_prefix(PREFIX).unwrap();
    for (factor, name) in [("lora_A", "a"), ("lora_B", "b")] {
        if let Some((layer, _)) = layer.split_once(&format!(".{factor}.weight")) {
            return format!("{layer}.weight.lora.default.{name}");
        }
    }
    layer.to_string()
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case)
}

fn transposed(data: &TensorData) -> TensorData {
    let [rows, columns] = data.shape()[..] else {
        return data.clone();
    };
    let values = data.try_to_vec::<f32>().unwrap();
    let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let turned = turned.map(|(row, column)| values[row * columns + column]);
    TensorData::new(turned.collect::<Vec<_>>(), [columns, rows])
}

fn read(path: &Path) -> HashMap<String, TensorData> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let convert = |(name, view): (String, TensorView)| {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::I64 => DType::I64,
            other => panic!("{name}: the reference has the dtype {other:?}"),
        };
        let shape = view.shape().to_vec();
        (
            name,
            TensorData::from_bytes_vec(view.data().to_vec(), shape, dtype),
        )
    };
    file.tensors().into_iter().map(convert).collect()
}
