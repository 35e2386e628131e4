//! Logits, losses and gradients as PEFT has them, and folders both ways.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::nn::Linear;
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::{
    EncoderBatch, LoadOptions, PTuning, PrefixProjection, PrefixTuning, PromptEncoder,
    PromptTuning, SequenceClassifier, T5, TokenClassifier,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

struct Reference(HashMap<String, (Vec<usize>, Vec<u8>)>);

impl Reference {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the golden file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensor = |(key, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let tensor = (view.shape().to_vec(), view.data().to_vec());
            (key.to_string(), tensor)
        };
        Self(file.iter().map(tensor).collect())
    }

    fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        let (shape, bytes) = self.0.get(key).unwrap_or_else(|| panic!("no {key}"));
        let numbers = bytes.as_chunks::<4>().0.iter();
        let numbers: Vec<f32> = numbers.map(|b| f32::from_le_bytes(*b)).collect();
        Tensor::from_data(TensorData::new(numbers, shape.clone()), device)
    }

    /// The numbers of a tensor, whatever its shape.
    fn flat(&self, key: &str) -> Tensor<1> {
        let (_, bytes) = self.0.get(key).unwrap_or_else(|| panic!("no {key}"));
        let numbers = bytes.as_chunks::<4>().0.iter();
        let numbers: Vec<f32> = numbers.map(|b| f32::from_le_bytes(*b)).collect();
        Tensor::from_floats(numbers.as_slice(), &Device::flex())
    }

    fn numbers(&self, key: &str) -> Vec<i32> {
        let numbers = self.0[key].1.as_chunks::<4>().0.iter();
        numbers.map(|b| i32::from_le_bytes(*b)).collect()
    }

    fn ids(&self, key: &str, device: &Device) -> Tensor<2, Int> {
        let shape = self.0[key].0.clone();
        Tensor::from_data(TensorData::new(self.numbers(key), shape), device)
    }

    fn batch(&self, device: &Device) -> EncoderBatch {
        let lengths = self.numbers("lengths").into_iter().map(|n| n as usize);
        let ids = self.ids("input_ids", device);
        let batch = EncoderBatch::new(ids, lengths.collect::<Vec<_>>());
        match self.0.contains_key("token_type_ids") {
            true => batch.with_segments(self.ids("token_type_ids", device)),
            false => batch,
        }
    }

    fn linear(&self, name: &str, device: &Device) -> Linear {
        let weight = self.tensor::<2>(&format!("encoder.{name}.weight"), device);
        let bias = self.tensor(&format!("encoder.{name}.bias"), device);
        Linear {
            weight: Param::from_tensor(weight.transpose()),
            bias: Some(Param::from_tensor(bias)),
        }
    }

    /// What PEFT trained, as it was in training.
    fn trained(&self, method: &str, device: &Device) -> VirtualTokens {
        let embedding = Param::from_tensor(self.tensor("encoder.embedding.weight", device));
        let linear = |name: &str| self.linear(name, device);
        match method {
            "prompt" => VirtualTokens::Prompt(PromptTuning { embedding }),
            "p_tuning" => {
                let linears = ["mlp_head.0", "mlp_head.2", "mlp_head.4"].map(linear);
                let encoder = Some(PromptEncoder {
                    lstms: Vec::new(),
                    linears: linears.into(),
                });
                VirtualTokens::PTuning(PTuning { embedding, encoder })
            }
            "prefix" => VirtualTokens::Prefix(PrefixTuning {
                embedding,
                projection: None,
            }),
            _ => {
                let (first, second) = (linear("transform.0"), linear("transform.2"));
                let projection = Some(PrefixProjection { first, second });
                VirtualTokens::Prefix(PrefixTuning {
                    embedding,
                    projection,
                })
            }
        }
    }
}

/// What a model makes of a case.
trait Case: WithVirtualTokens {
    fn open(folder: &Path, device: &Device) -> Self;

    /// The logits of the batch at its tokens, one row after the other.
    fn outputs(&self, reference: &Reference, device: &Device) -> Tensor<1>;

    fn loss(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        self.outputs(reference, device).square().mean()
    }
}

impl Case for Decoder {
    fn open(folder: &Path, device: &Device) -> Self {
        let options = LoadOptions::new(DType::F32, device.clone());
        Self::load(folder, &options).expect("the golden model")
    }

    fn outputs(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        self.logits(reference.ids("input_ids", device))
            .flatten(0, 2)
    }

    /// That of the next tokens.
    fn loss(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        let ids = reference.ids("input_ids", device);
        let [batch, seq] = ids.dims();
        let hidden = self.hidden(ids.clone(), None).narrow(1, 0, seq - 1);
        let d = hidden.dims()[2];
        let count = batch * (seq - 1);
        let targets: Tensor<1, Int> = ids.narrow(1, 1, seq - 1).reshape([count]);
        let weights = Tensor::ones([count], device) / count as f32;
        self.cross_entropy_of(hidden.reshape([count, d]), targets, weights)
    }
}

impl Case for SequenceClassifier {
    fn open(folder: &Path, device: &Device) -> Self {
        Self::load(folder, device).expect("the golden model")
    }

    fn outputs(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        self.forward(&reference.batch(device)).flatten(0, 1)
    }
}

impl Case for TokenClassifier {
    fn open(folder: &Path, device: &Device) -> Self {
        Self::load(folder, device).expect("the golden model")
    }

    fn outputs(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        let batch = reference.batch(device);
        let logits = self.forward(&batch);
        let row = |(row, length): (usize, &usize)| -> Tensor<1> {
            let logits = logits.clone().slice([row..row + 1, 0..*length]);
            logits.flatten(0, 2)
        };
        Tensor::cat(batch.lengths.iter().enumerate().map(row).collect(), 0)
    }
}

impl Case for T5 {
    fn open(folder: &Path, device: &Device) -> Self {
        let options = LoadOptions::new(DType::F32, device.clone());
        Self::load(folder, &options).expect("the golden model")
    }

    fn outputs(&self, reference: &Reference, device: &Device) -> Tensor<1> {
        let encoded = self.encode(&reference.batch(device));
        let hidden = self.decode(reference.ids("decoder_input_ids", device), &encoded);
        self.logits_of(hidden).flatten(0, 2)
    }
}

/// PEFT wrote PyTorch's own files before it wrote safetensors.
#[test]
fn an_old_folder_is_read() {
    let base = golden().join("bert_sequence").join("model");
    let open = || SequenceClassifier::open(&base, &Device::flex());
    let folder = golden().join("virtual_tokens");
    let (old, _) = open()
        .load_virtual_tokens(&folder.join("old"))
        .expect("read");
    let new = folder.join("bert_sequence_prompt");
    let (new, _) = open().load_virtual_tokens(&new).expect("read");
    let flat = |model: &SequenceClassifier| embedding(model).val().into_data();
    assert_eq!(flat(&old), flat(&new));
    let head = |model: &SequenceClassifier| {
        let output = model.head.output.as_ref().expect("a linear layer");
        output.weight.val().into_data()
    };
    assert_eq!(head(&old), head(&new));
    assert_ne!(head(&old), head(&open()));
}

const ALL: [&str; 4] = ["prompt", "p_tuning", "prefix", "projected"];

#[test]
fn decoders_compute_what_peft_does() {
    check::<Decoder>("llama", &ALL);
    check::<Decoder>("gpt2", &ALL);
}

#[test]
fn encoders_compute_what_peft_does() {
    check::<SequenceClassifier>("bert_sequence", &ALL);
    check::<TokenClassifier>("bert_token", &ALL);
    check::<SequenceClassifier>("roberta_sequence", &ALL);
    check::<TokenClassifier>("roberta_token", &["prompt", "prefix"]);
    check::<SequenceClassifier>("distilbert_sequence", &["prompt"]);
    check::<SequenceClassifier>("deberta_sequence", &["prompt"]);
    check::<SequenceClassifier>("deberta_v2_sequence", &["prompt"]);
    check::<TokenClassifier>("deberta_v3_token", &["p_tuning"]);
    check::<SequenceClassifier>("modernbert_sequence", &["p_tuning"]);
    check::<TokenClassifier>("modernbert_token", &["prompt"]);
}

#[test]
fn t5_computes_what_peft_does() {
    check::<T5>("t5", &ALL);
    check::<T5>("t5_v1_1", &["prompt", "prefix"]);
}

fn check<M: Case>(case: &str, methods: &[&str]) {
    let base = golden().join(case).join("model");
    for method in methods {
        let name = format!("{case}_{method}");
        let folder = golden().join("virtual_tokens").join(&name);
        let reference = Reference::read(&folder.join("reference.safetensors"));
        let flex = Device::flex();
        let open = || M::open(&base, &flex);
        let (loaded, config) = open().load_virtual_tokens(&folder).expect(&name);
        let expected = reference.flat("logits");
        assert_close(&name, loaded.outputs(&reference, &flex), expected, 1e-4);
        check_training(&name, &loaded, &reference, method);
        check_files(&name, open(), &loaded, &config, &reference);
    }
}

/// The loss and its gradients, with the parameters that PEFT trains in the place of what it saves of them.
fn check_training<M: Case>(name: &str, loaded: &M, reference: &Reference, method: &str) {
    let (flex, device) = (Device::flex(), Device::flex().autodiff());
    let tokens = reference.trained(method, &device);
    // Of a model with a decoder PEFT has rows that nothing reads.
    let count = loaded.virtual_tokens().expect("attached").count();
    let rows = reference.0["encoder.embedding.weight"].0[0];
    let tokens = with_rows(tokens, count);
    let model = loaded.clone().train();
    let model = model.with_these_virtual_tokens(tokens).expect(name);
    let loss = model.loss(reference, &device);
    assert_close(
        name,
        loss.clone().inner(),
        reference.tensor("loss", &flex),
        1e-4,
    );
    let gradients = loss.backward();
    let gradient = embedding(&model).base().grad(&gradients);
    let gradient = gradient.expect("a gradient");
    let expected = reference.tensor::<2>("grad.embedding.weight", &flex);
    if rows > count {
        let unread = expected.clone().narrow(0, count, rows - count);
        let most: f32 = unread.abs().max().into_scalar();
        assert_eq!(most, 0.0, "{name}: rows that nothing reads");
    }
    assert_close(name, gradient, expected.narrow(0, 0, count), 1e-5);
    let tokens = model.virtual_tokens();
    if let Some(VirtualTokens::PTuning(PTuning {
        encoder: Some(encoder),
        ..
    })) = tokens
    {
        let weight = encoder.linears[1].weight.base();
        let gradient = weight.grad(&gradients).expect("a gradient");
        let expected = reference.tensor::<2>("grad.mlp_head.2.weight", &flex);
        assert_close(name, gradient.transpose(), expected, 1e-5);
    }
}

/// The first rows of what is embedded.
fn with_rows(tokens: VirtualTokens, count: usize) -> VirtualTokens {
    let cut = |embedding: Param<Tensor<2>>| {
        Param::from_tensor(embedding.val().narrow(0, 0, count).detach().require_grad())
    };
    match tokens {
        VirtualTokens::Prompt(PromptTuning { embedding }) => VirtualTokens::Prompt(PromptTuning {
            embedding: cut(embedding),
        }),
        VirtualTokens::PTuning(PTuning { embedding, encoder }) => VirtualTokens::PTuning(PTuning {
            embedding: cut(embedding),
            encoder,
        }),
        prefix => prefix,
    }
}

/// Written and read again, and for PEFT to read.
fn check_files<M: Case>(
    name: &str,
    base: M,
    loaded: &M,
    config: &Map<String, Value>,
    reference: &Reference,
) {
    let flex = Device::flex();
    let scratch = tempfile::tempdir().expect("a folder");
    let out = match std::env::var_os("BURN_LORA_EXPORT_VIRTUAL") {
        Some(folder) => Path::new(&folder).join(name),
        None => scratch.path().join("again"),
    };
    loaded
        .save_virtual_tokens(&out, Some(name), config)
        .expect(name);
    let (again, fields) = base.load_virtual_tokens(&out).expect(name);
    let stated = |config: &Map<String, Value>| {
        let mut config = config.clone();
        config.remove("base_model_name_or_path");
        config
    };
    assert_eq!(stated(&fields), stated(config), "{name}: fields stay");
    let logits = again.outputs(reference, &flex);
    assert_close(name, logits.clone(), loaded.outputs(reference, &flex), 1e-6);
    let (shape, numbers) = (logits.dims().to_vec(), logits.into_data());
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, numbers.as_bytes());
    let bytes = safetensors::serialize([("logits", view.expect("a view"))], None);
    std::fs::write(out.join("logits.safetensors"), bytes.expect("safetensors")).expect("written");
}
