//! What a run will take, before anything is loaded: parameters, bytes on disk, memory by part, work and time of a step.
//!
//! Counts of parameters and the size of the adapter's file are exact. Memory is what the tensors of a step take at its
//! peak, counted by what each operation keeps for its backward; `docs/measurements.md` says how far off it is. The time is
//! that of the matrix products alone at the rate that is given or measured, so a step takes longer.

mod fit;
mod flops;
mod memory;
mod model;
mod rate;

use burn::tensor::DType;
use burn_lora_adapter::{AdapterError, LoraConfig, Outline, OutlineLayer};
use burn_lora_transformer::{Anatomy, ConfigError, ModelConfig, PartError, PartOutline, Place};
use serde::Serialize;

pub use fit::{Fit, FitAtLength};
pub use flops::StepFlops;
pub use memory::MemoryParts;
pub use rate::{MeasuredRate, measure_rate};

use crate::device::Backend;
use crate::run::{PartSettings, RunConfig};
use model::{Outlines, Wanted};

/// Plans runs of one model and one adapter.
///
/// ```
/// use burn_lora_adapter::{Columns, LoraConfig, Targets};
/// use burn_lora_train::{PlanOptions, Planner};
/// use burn_lora_transformer::{Gpt3Shape, ModelConfig};
///
/// // GPT-3 with rank 4 on queries and values, as in the LoRA paper (arXiv:2106.09685).
/// let shape = Gpt3Shape::named("175B")?;
/// let lora = LoraConfig::new(4, 4.0)
///     .with_targets(Targets::names(["c_attn"]))
///     .with_parts("c_attn", Columns::Equal { of: 3, keep: vec![0, 2] });
/// let planner = Planner::new(&ModelConfig::Decoder(shape.config()), &lora)?;
/// let plan = planner.plan(&PlanOptions::default());
/// assert_eq!(plan.parameters.trained, 18_874_368);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Planner {
    model_type: &'static str,
    anatomy: Anatomy,
    outline: Outline,
    layers: Vec<Placed>,
    /// The layers of each block, by their numbers.
    of_blocks: Vec<Vec<usize>>,
    has_tied_head: bool,
    dropout: f64,
    trains_all: bool,
    /// What stands beside the weights.
    parts: Vec<PartOutline>,
}

/// How a step is run.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Number format of the base and of the activations.
    pub dtype: DType,
    /// Rows of a forward pass.
    pub batch_size: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Forward passes whose gradients make one step.
    pub grad_accumulation: usize,
    /// Of the first blocks, how many are computed again in the backward.
    pub recompute: usize,
    /// Numbers that the optimizer keeps for each trained parameter, at most ([`moments`](crate::OptimizerChoice::moments)); 2 for AdamW.
    pub moments: usize,
    /// Share of the tokens that are learned, and for which there are logits.
    pub learned: f64,
    /// The device. On a GPU, what CubeCL's memory pools and the driver hold beyond the tensors is counted, too.
    pub backend: Option<Backend>,
    /// Floating-point operations per second of a matrix product, if known.
    pub flops_per_second: Option<f64>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            batch_size: 8,
            seq_len: 512,
            grad_accumulation: 1,
            recompute: 0,
            moments: 2,
            learned: 1.0,
            backend: None,
            flops_per_second: None,
        }
    }
}

impl PlanOptions {
    /// The same where the counts below stay within 128 bits: whatever a user asks for is counted.
    fn bounded(&self) -> Self {
        Self {
            batch_size: self.batch_size.min(1 << 24),
            seq_len: self.seq_len.min(1 << 24),
            grad_accumulation: self.grad_accumulation.min(1 << 16),
            moments: self.moments.min(1 << 16),
            ..self.clone()
        }
    }

    /// Tokens of a forward pass.
    fn tokens(&self) -> u128 {
        self.batch_size as u128 * self.seq_len as u128
    }
}

fn saturated(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl From<&RunConfig> for PlanOptions {
    /// A step of this run, on rows as long as they may be of which every token is learned.
    fn from(config: &RunConfig) -> Self {
        Self {
            dtype: config.dtype.into(),
            batch_size: config.training.batch_size,
            seq_len: config.training.max_seq_len,
            grad_accumulation: config.training.grad_accumulation,
            recompute: config.recompute,
            moments: config.training.optimizer.moments(),
            ..Self::default()
        }
    }
}

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// `model_type` of the configuration.
    pub model_type: &'static str,
    /// Counts, exact.
    pub parameters: PlanParameters,
    /// Bytes of `adapter_model.safetensors`, of several adapters together, exact.
    pub adapter_bytes: u64,
    /// Bytes at the peak of a step, by part.
    pub memory: MemoryParts,
    /// Floating-point operations of the matrix products of one optimizer step.
    pub flops: StepFlops,
    /// Seconds of these at the rate of the options; a step takes longer.
    pub seconds: Option<f64>,
    /// Tokens of one optimizer step.
    pub tokens: u64,
}

/// Counts of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlanParameters {
    /// Of the base.
    pub base: usize,
    /// Of the adapter, and of modules that are trained as a whole.
    pub trained: usize,
    /// Of the base and the adapter, what is frozen of it included; what is trained as a whole counts once.
    pub total: usize,
    /// Layers with an adapter.
    pub layers: usize,
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The configuration of the model.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// The adapter, for this model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A method beside the weights, for this model.
    #[error(transparent)]
    Part(#[from] PartError),
    /// More layers than a description of them is made for: a fault of the configuration.
    #[error(
        "the configuration asks for {layers} inner layers, experts counted; at most {most} are planned for"
    )]
    TooManyLayers {
        /// Inner layers, each expert being one.
        layers: usize,
        /// The most.
        most: usize,
    },
    /// A kind of model that nothing is known of here.
    #[error("nothing is known of what a model of the kind {model_type} takes")]
    Kind {
        /// Its `model_type`.
        model_type: &'static str,
    },
}

/// A linear layer of the base, where it stands, and the adapter on it.
#[derive(Clone, Debug)]
struct Placed {
    block: Option<usize>,
    place: Place,
    shape: [usize; 2],
    /// Its path has the number of an expert.
    is_expert: bool,
    adapter: Option<OutlineLayer>,
    /// The weight itself is trained.
    is_trained: bool,
}

impl Planner {
    /// Looks at what the configuration would put onto a model; nothing is loaded.
    ///
    /// # Errors
    /// [`PlanError::Model`] for sizes that do not fit each other, [`PlanError::Adapter`] for everything that attaching would
    /// refuse.
    pub fn new(model: &ModelConfig, adapter: &LoraConfig) -> Result<Self, PlanError> {
        Self::with_parts(model, Some(adapter), &[])
    }

    /// The same with methods that stand beside the weights, or with these alone.
    ///
    /// # Errors
    /// As for [`Self::new`]; [`PlanError::Part`] for what such a method would refuse.
    pub fn with_parts(
        model: &ModelConfig,
        adapter: Option<&LoraConfig>,
        parts: &[PartSettings],
    ) -> Result<Self, PlanError> {
        let outlines = model::outline(model, Wanted { adapter, parts })?;
        let dropout = adapter.map_or(0.0, |adapter| adapter.dropout);
        Ok(Self::of(model, outlines, dropout, false))
    }

    /// The same for training every parameter of a model, without an adapter.
    ///
    /// # Errors
    /// [`PlanError::Model`] for sizes that do not fit each other.
    pub fn of_all_parameters(model: &ModelConfig) -> Result<Self, PlanError> {
        let wanted = Wanted {
            adapter: None,
            parts: &[],
        };
        let outlines = model::outline(model, wanted)?;
        Ok(Self::of(model, outlines, 0.0, true))
    }

    fn of(model: &ModelConfig, (outline, parts): Outlines, dropout: f64, trains_all: bool) -> Self {
        let mut anatomy = Anatomy::of(model);
        let places = parts.iter().map(|part| part.virtual_tokens).sum::<usize>();
        anatomy.max_positions = anatomy
            .max_positions
            .map(|most| most.saturating_sub(places));
        let layers = model::placed(&anatomy, &outline, trains_all);
        let mut of_blocks = vec![Vec::new(); anatomy.blocks.len()];
        for (index, layer) in layers.iter().enumerate() {
            if let Some(block) = layer.block {
                of_blocks[block].push(index);
            }
        }
        let is_head =
            |layer: &Placed| layer.block.is_none() && layer.shape[1] == anatomy.vocab_size;
        Self {
            model_type: model.model_type(),
            has_tied_head: model::has_tied_head(model, &anatomy) && !layers.iter().any(is_head),
            anatomy,
            outline,
            layers,
            of_blocks,
            dropout,
            trains_all,
            parts,
        }
    }

    /// What the configuration puts onto the model.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What stands beside the weights.
    pub fn parts(&self) -> &[PartOutline] {
        &self.parts
    }

    /// The sizes of the model; of its positions those that virtual tokens leave.
    pub fn anatomy(&self) -> &Anatomy {
        &self.anatomy
    }

    /// What a run with these options takes.
    pub fn plan(&self, options: &PlanOptions) -> Plan {
        let options = &options.bounded();
        let base = self.outline.base_parameters();
        let flops = self.flops(options);
        Plan {
            model_type: self.model_type,
            parameters: PlanParameters {
                base,
                trained: self.trained(),
                total: base + self.outline.added() + self.beside(),
                layers: self.outline.layers.len(),
            },
            adapter_bytes: self.outline.file_bytes
                + self.parts.iter().map(|part| part.file_bytes).sum::<u64>(),
            memory: self.memory(options),
            flops,
            seconds: options
                .flops_per_second
                .map(|rate| flops.total as f64 / rate),
            tokens: saturated(options.tokens() * options.grad_accumulation as u128),
        }
    }

    fn trained(&self) -> usize {
        match self.trains_all {
            true => self.outline.base_parameters(),
            false => self.outline.trained() + self.beside(),
        }
    }

    /// Parameters beside the weights.
    fn beside(&self) -> usize {
        self.parts.iter().map(|part| part.trained).sum()
    }

    /// Options whose rows have the places of virtual tokens: what goes through the blocks.
    fn with_places(&self, options: &PlanOptions) -> PlanOptions {
        let places = self.parts.iter().map(|part| part.virtual_tokens);
        PlanOptions {
            seq_len: options.seq_len + places.sum::<usize>(),
            ..options.clone()
        }
    }

    /// The first block in which anything is trained: below it nothing is kept and nothing differentiated.
    fn first_block(&self) -> usize {
        let trained = |layer: &&Placed| layer.adapter.is_some() || layer.is_trained;
        // What stands beside the weights is in the first block, or in front of it.
        let embedding = self.trains_all
            || !self.parts.is_empty()
            || self.outline.layers.iter().any(|layer| {
                self.anatomy.block(&layer.layer).is_none() && !self.is_head(&layer.layer)
            });
        match embedding {
            true => 0,
            false => {
                let blocks = self.layers.iter().filter(trained);
                let blocks = blocks.filter_map(|layer| layer.block);
                blocks.min().unwrap_or(self.anatomy.blocks.len())
            }
        }
    }

    fn is_head(&self, layer: &str) -> bool {
        self.layers.iter().any(|placed| {
            placed.block.is_none()
                && placed
                    .adapter
                    .as_ref()
                    .is_some_and(|adapter| adapter.layer == layer)
        })
    }
}

/// What methods beside the weights come to on a model that is not loaded.
pub(crate) fn outline_parts(
    model: &ModelConfig,
    parts: &[PartSettings],
) -> Result<Vec<PartOutline>, PlanError> {
    let wanted = Wanted {
        adapter: None,
        parts,
    };
    Ok(model::outline(model, wanted)?.1)
}

#[cfg(test)]
mod tests;
