//! What the command line can change.

use std::path::PathBuf;

use burn_lora::adapter::{LoraConfig, LoraInit, MethodConfig, Targets};
use burn_lora::train::{TrainConfig, Warmup};
use clap::{Parser, ValueEnum};

/// Fine-tune a decoder by LoRA: the base stays frozen, the adapter becomes a PEFT folder.
///
/// Without options it tunes the small base of this repository for the task of this repository.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Options {
    /// Hugging Face folder of the Llama family or GPT-2: config.json, model.safetensors (or shards with
    /// model.safetensors.index.json), tokenizer.json
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tiny-base"))]
    pub model: PathBuf,

    /// JSONL file of {"prompt", "completion"} or {"text"} rows, or a folder with train.jsonl and, if it has them,
    /// valid.jsonl and test.jsonl
    #[arg(long, value_name = "FILE|DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/market-records"))]
    pub data: PathBuf,

    /// Where the adapter, the checkpoints and the logs go
    #[arg(long, value_name = "DIR", default_value = "target/finetune")]
    pub output: PathBuf,

    /// flex, ndarray, wgpu, vulkan, metal, cuda, rocm, with an index if there are several (cuda:1); must be built, as a
    /// cargo feature. By default BURN_DEVICE, then the fastest built
    #[arg(long)]
    pub device: Option<String>,

    /// Number format of the base; the adapter is f32
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub dtype: Precision,

    /// What is trained: lora, lora-fa, dora, vera, loha, lokr, adalora, ia3, bitfit, full
    #[arg(long, default_value = "lora")]
    pub method: MethodConfig,

    /// Where LoRA's factors start: default, gaussian, orthogonal, pissa, pissa_niter_16, olora, loftq, eva, corda, lora_ga
    #[arg(long, default_value = "default")]
    pub initialization: LoraInit,

    /// Train LoRA's up-projections at so many times the learning rate (LoRA+)
    #[arg(long, value_name = "RATIO")]
    pub lora_plus_ratio: Option<f64>,

    /// Rank of the adapter
    #[arg(long, default_value_t = 8)]
    pub rank: usize,

    /// Scale of the adapter: its output is multiplied by alpha / rank
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,

    /// Probability that an input of the adapter is dropped in training
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,

    /// Of the first blocks, how many are computed again in the backward instead of kept: less memory, more time
    #[arg(long, default_value_t = 0, value_name = "BLOCKS")]
    pub recompute: usize,

    /// Multiply by alpha / sqrt(rank) instead (rsLoRA)
    #[arg(long)]
    pub rslora: bool,

    /// Layers to adapt: all-linear, names such as q_proj,v_proj, or a regular expression on the whole path
    #[arg(long, default_value = "all-linear")]
    pub targets: String,

    /// Highest learning rate, reached after the warmup; a cosine takes it to 0. Large models want less: 2e-4
    #[arg(long, default_value_t = 5e-3)]
    pub learning_rate: f64,

    /// Steps of warmup, or a share of all steps such as 0.05
    #[arg(long, default_value = "0.05")]
    pub warmup: Warmup,

    /// Optimizer steps
    #[arg(long, default_value_t = 200)]
    pub steps: usize,

    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    pub batch_size: usize,

    /// Batches whose gradients make one step
    #[arg(long, default_value_t = 1)]
    pub grad_accumulation: usize,

    /// Most tokens of a row; what is longer is cut at the end and counted
    #[arg(long, default_value_t = 256)]
    pub max_seq_len: usize,

    /// Decay of the adapter's weights (AdamW)
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,

    /// Largest norm of all gradients together; 0 clips nothing
    #[arg(long, default_value_t = 1.0)]
    pub grad_clip_norm: f64,

    /// Steps between validations
    #[arg(long, default_value_t = 50)]
    pub eval_every: usize,

    /// Steps between checkpoints, a multiple of --eval-every; none by default
    #[arg(long)]
    pub save_every: Option<usize>,

    /// Go on from the latest checkpoint in --output
    #[arg(long)]
    pub resume: bool,

    /// Share of the rows that is held out where the data comes without validation rows
    #[arg(long, default_value_t = 0.1)]
    pub valid_fraction: f64,

    /// Most held-out rows to evaluate on
    #[arg(long, default_value_t = 200)]
    pub eval_rows: usize,

    /// Seed of the adapter, of the order of the rows and of the held-out share
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// Number formats of a base.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Precision {
    /// 32 bits
    F32,
    /// 16 bits, the range of f32
    Bf16,
    /// 16 bits, overflows above 65,504
    F16,
}

impl From<Precision> for burn::tensor::DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

impl Options {
    /// The adapter that is asked for.
    pub fn lora(&self) -> LoraConfig {
        let method = self.method.clone().with_budget(self.rank, self.steps);
        LoraConfig::new(self.rank, self.alpha)
            .with_method(method)
            .with_dropout(self.dropout)
            .with_rslora(self.rslora)
            .with_init(self.initialization.clone())
            .with_targets(Targets::parse(&self.targets))
            .with_seed(self.seed)
    }

    /// The training that is asked for.
    pub fn training(&self) -> TrainConfig {
        TrainConfig {
            steps: self.steps,
            batch_size: self.batch_size,
            grad_accumulation: self.grad_accumulation,
            max_seq_len: self.max_seq_len,
            learning_rate: self.learning_rate,
            lora_plus_ratio: self.lora_plus_ratio,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            grad_clip_norm: (self.grad_clip_norm != 0.0).then_some(self.grad_clip_norm),
            eval_every: Some(self.eval_every),
            save_every: self.save_every,
            resume: self.resume,
            seed: self.seed,
            output_dir: Some(self.output.clone()),
            ..TrainConfig::default()
        }
    }
}
