//! What a configuration would put onto a module, counted before a number of either exists.

use std::collections::HashMap;

use burn::module::Module;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::beside::Beside;
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::method::MethodConfig;
use crate::peft::{SHARED, grouped_shapes, layer_key, saved_key};
use crate::plan::{Planned, plan};
use crate::saved::saved_parameters;
use crate::sites::sites;
use crate::view::Kind;

/// What [`outline`] finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The parameters of the module itself, in its order.
    pub base: Vec<BaseParameter>,
    /// What the configuration puts onto it.
    pub layers: Vec<OutlineLayer>,
    /// The parameters of the base that are trained beside the adapter: those of whole modules, and biases.
    pub saved: Vec<String>,
    /// Numbers that layers share and nobody trains: VeRA's projections.
    pub shared_parameters: usize,
    /// The size of `adapter_model.safetensors` as [`peft::save`](crate::peft::save) writes it before AdaLoRA has given
    /// rank away.
    pub file_bytes: u64,
}

/// A parameter of a module, by its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseParameter {
    /// Its path.
    pub path: String,
    /// What it belongs to: `linear`, `bias`, `embedding`, `convolution`, `vector` (a norm) or `matrix`.
    pub kind: &'static str,
    /// Its shape in memory.
    pub shape: Vec<usize>,
}

/// One adapted parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlineLayer {
    /// Path of the layer.
    pub layer: String,
    /// Path of the parameter.
    pub parameter: String,
    /// The method, by its name.
    pub method: &'static str,
    /// Input and output width of the parameter as a matrix.
    pub shape: [usize; 2],
    /// The inner dimension; 0 where the method has none.
    pub rank: usize,
    /// Parameters that are trained.
    pub trained: usize,
    /// Parameters in memory, those among them that stay as they are drawn included.
    pub parameters: usize,
    /// Parameters that a file has.
    pub stored: usize,
}

impl Outline {
    /// Parameters of the module.
    pub fn base_parameters(&self) -> usize {
        self.base.iter().map(BaseParameter::count).sum()
    }

    /// Parameters that are trained: those of the adapter, and modules that are trained as a whole.
    pub fn trained(&self) -> usize {
        let adapter: usize = self.layers.iter().map(|layer| layer.trained).sum();
        adapter + self.saved_parameters()
    }

    /// Parameters that the adapter adds, trained or not.
    pub fn added(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    /// Parameters of modules that are trained as a whole.
    pub fn saved_parameters(&self) -> usize {
        let is_saved = |parameter: &&BaseParameter| self.saved.contains(&parameter.path);
        let saved = self.base.iter().filter(is_saved);
        saved.map(BaseParameter::count).sum()
    }
}

impl BaseParameter {
    /// How many numbers it has.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Counts what [`attach`](crate::attach) would put onto a module. No parameter is looked at but for its shape, so the
/// module may be one whose values are not there.
///
/// # Errors
/// Those of [`attach`](crate::attach): everything that is wrong with the configuration, by itself and for this module.
pub fn outline<M: Module>(module: &M, config: &LoraConfig) -> Result<Outline, AdapterError> {
    let planned = plan(module, config)?;
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for planned in &planned {
        let key = |key: &str| layer_key(planned.module_path(), key);
        let mut specs = planned.specs();
        let grouped = grouped_shapes(planned, config).into_iter().flatten();
        for (spec, shape) in specs.iter_mut().zip(grouped) {
            spec.file_shape = shape;
        }
        let specs = specs.into_iter();
        tensors.extend(specs.map(|spec| (key(&spec.key), spec.file_shape)));
    }
    let shared = shared(&planned, config);
    if let MethodConfig::Vera(vera) = &config.method
        && vera.save_projection
    {
        let keys = SHARED.map(str::to_string);
        tensors.extend(
            keys.into_iter()
                .zip(shared.iter().map(|dims| dims.to_vec())),
        );
    }
    let saved = saved_parameters(module, &Beside::new(config, &planned));
    tensors.extend(
        saved
            .iter()
            .map(|saved| (saved_key(&saved.file_path), saved.file_shape.clone())),
    );
    let layers = planned
        .iter()
        // A bias that is scaled with its weight has no parameter of its own.
        .filter(|planned| !matches!(planned.blueprint, Blueprint::TiedBias { .. }))
        .map(Planned::outline);
    Ok(Outline {
        base: base_parameters(module),
        layers: layers.collect(),
        saved: saved.into_iter().map(|saved| saved.path).collect(),
        shared_parameters: shared.iter().map(|[rows, columns]| rows * columns).sum(),
        file_bytes: weights_bytes(tensors),
    })
}

/// The parameters of a module by their shapes, those of adapters left out. Values are not looked at.
pub fn base_parameters<M: Module>(module: &M) -> Vec<BaseParameter> {
    let base = sites(module).into_iter().map(|site| BaseParameter {
        path: site.path,
        kind: match site.view.kind {
            Kind::Linear => "linear",
            Kind::Bias => "bias",
            Kind::Embedding => "embedding",
            Kind::Conv => "convolution",
            Kind::Vector => "vector",
            Kind::Other => "matrix",
        },
        shape: site.view.shape,
    });
    base.collect()
}

impl Planned {
    fn outline(&self) -> OutlineLayer {
        let shape = self.view.dims();
        let specs = self.specs();
        let count = |shape: &[usize; 2]| shape[0] * shape[1];
        let stored: usize = specs.iter().map(|spec| count(&spec.shape)).sum();
        let trained = match &self.blueprint {
            Blueprint::Lora { is_a_frozen: true } => specs.last().map_or(0, |b| count(&b.shape)),
            // A file has the parts as one product; what lies between them is 0 and nobody's parameter.
            Blueprint::Parts(columns) => {
                let each = self.rank / columns.len().max(1);
                let parts = columns.iter();
                parts.map(|columns| each * (shape[0] + columns.len())).sum()
            }
            _ => stored,
        };
        OutlineLayer {
            layer: self.module_path().to_string(),
            parameter: self.path.clone(),
            method: self.method_name(),
            shape,
            rank: match &self.blueprint {
                Blueprint::Ia3 { .. } | Blueprint::Dense { .. } | Blueprint::Tokens { .. } => 0,
                _ => self.rank,
            },
            trained,
            parameters: match &self.blueprint {
                Blueprint::Parts(_) => trained,
                _ => stored,
            },
            stored,
        }
    }

    fn method_name(&self) -> &'static str {
        match &self.blueprint {
            Blueprint::Lora { .. } => "Lora",
            Blueprint::Dora => "Dora",
            Blueprint::Vera { .. } => "Vera",
            Blueprint::LoHa { .. } => "LoHa",
            Blueprint::LoKr(_) => "LoKr",
            Blueprint::AdaLora { .. } => "AdaLora",
            Blueprint::Ia3 { .. } => "Ia3",
            Blueprint::TiedBias { .. } => "TiedBias",
            Blueprint::Dense { .. } => "Dense",
            Blueprint::Tokens { .. } => "Tokens",
            Blueprint::Parts(_) => "Parts",
        }
    }
}

/// The shapes of VeRA's projections in a file: each layer uses a part of them, the widest the whole.
fn shared(planned: &[Planned], config: &LoraConfig) -> Vec<[usize; 2]> {
    if !matches!(config.method, MethodConfig::Vera(_)) {
        return Vec::new();
    }
    let widest = |side: usize| planned.iter().map(|site| site.view.dims()[side]).max();
    let rank = planned.iter().map(|site| site.rank).max().unwrap_or(0);
    let (d_in, d_out) = (widest(0).unwrap_or(0), widest(1).unwrap_or(0));
    vec![[rank, d_in], [d_out, rank]]
}

/// The size of a safetensors file of f32 tensors with PEFT's mark: eight bytes, the header in a multiple of eight, the
/// numbers.
pub fn weights_bytes(mut tensors: Vec<(String, Vec<usize>)>) -> u64 {
    tensors.sort();
    let mut end = 0;
    let infos = tensors.into_iter().map(|(key, shape)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape,
            data_offsets: (start, end),
        };
        (key, info)
    });
    let infos = infos.collect();
    let mark = HashMap::from([("format".to_string(), "pt".to_string())]);
    let header = Metadata::new(Some(mark), infos)
        .ok()
        .and_then(|header| serde_json::to_string(&header).ok())
        .map_or(0, |header| header.len().next_multiple_of(8));
    (8 + header + end) as u64
}
