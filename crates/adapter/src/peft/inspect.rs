//! What an adapter's folder holds, without its base.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn_lora_linalg::Matrix;

use super::keys::PREFIX;
use super::load::read_config;
use super::tensors::{self, Stored};
use super::{CONFIG_FILE, PeftConfig};
use crate::change::LayerChange;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::method::MethodConfig;

/// What [`inspect`] finds.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// The configuration.
    pub config: PeftConfig,
    /// What it means here.
    pub adapter: LoraConfig,
    /// The file of the weights.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Numbers of all tensors.
    pub parameters: usize,
    /// How many tensors there are of each dtype.
    pub dtypes: BTreeMap<String, usize>,
    /// The layers, in the order of their names.
    pub layers: Vec<AdapterLayer>,
    /// The modules that are in the file as a whole, or that layers share.
    pub others: Vec<String>,
    /// Everything for which the folder would be refused, in words.
    pub faults: Vec<String>,
}

/// A layer of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayer {
    /// Its path.
    pub layer: String,
    /// Numbers that the file has for it.
    pub parameters: usize,
    /// The inner dimension, where the file has two factors.
    pub rank: Option<usize>,
    /// What the product is multiplied by.
    pub scale: Option<f64>,
    /// The Frobenius norm of what is added to the weight, where the file has two factors.
    pub change: Option<LayerChange>,
}

/// The two factors of a layer, behind its path.
pub(super) const A: &str = ".lora_A.weight";
pub(super) const B: &str = ".lora_B.weight";
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// All that a file may have of a layer, by any method.
const ENDINGS: [&str; 29] = [
    A,
    B,
    MAGNITUDE,
    ".lora_B.bias",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_A",
    ".lora_B",
    ".lora_E",
    ".vera_lambda_b",
    ".vera_lambda_d",
    ".hada_w1_a",
    ".hada_w1_b",
    ".hada_w2_a",
    ".hada_w2_b",
    ".hada_t1",
    ".hada_t2",
    ".lokr_w1",
    ".lokr_w2",
    ".lokr_w1_a",
    ".lokr_w1_b",
    ".lokr_w2_a",
    ".lokr_w2_b",
    ".lokr_t2",
    ".ia3_l",
    ".token_adapter.trainable_tokens_delta",
    ".trainable_tokens_delta",
    ".delta.weight",
    ".delta.bias",
];

/// Looks at a folder of PEFT by its files alone. What is wrong with its tensors is in the report and no error.
///
/// # Errors
/// A configuration or a file of weights that is not there or cannot be read.
pub fn inspect(folder: &Path) -> Result<AdapterReport, AdapterError> {
    let config = read_config(folder)?;
    let (file, stored) = tensors::read(folder)?;
    let bytes = std::fs::metadata(&file).map_err(AdapterError::io(&file))?;
    let mut faults: Vec<String> = config
        .unsupported
        .iter()
        .map(|feature| format!("{CONFIG_FILE} asks for what is not supported: {feature}"))
        .collect();
    let adapter = config.adapter.clone();
    if let Err(error) = adapter.check() {
        faults.push(error.to_string());
    }
    let mut dtypes = BTreeMap::new();
    let mut parameters = 0;
    for tensor in stored.values() {
        let name = match &tensor.dtype {
            Ok(dtype) => format!("{dtype:?}"),
            Err(name) => name.clone(),
        };
        *dtypes.entry(name).or_default() += 1;
        parameters += tensor.shape.iter().product::<usize>();
    }
    let (layers, others) = layers(stored, &adapter, &mut faults);
    Ok(AdapterReport {
        config,
        adapter,
        bytes: bytes.len(),
        file,
        parameters,
        dtypes,
        layers,
        others,
        faults,
    })
}

/// A tensor as numbers.
struct Values {
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

impl Values {
    /// As a matrix, if it has two dimensions.
    fn matrix(&self) -> Option<Matrix> {
        match self.shape[..] {
            [rows, columns] => Some(Matrix::from_f32(&self.numbers, [rows, columns])),
            _ => None,
        }
    }
}

/// What the file has of one layer.
#[derive(Default)]
struct Parts {
    parameters: usize,
    a: Option<Values>,
    b: Option<Values>,
    has_magnitude: bool,
}

fn layers(
    stored: HashMap<String, Stored>,
    adapter: &LoraConfig,
    faults: &mut Vec<String>,
) -> (Vec<AdapterLayer>, Vec<String>) {
    let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
    let mut others = Vec::new();
    let mut stored: Vec<_> = stored.into_iter().collect();
    stored.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (key, tensor) in stored {
        let values = match tensor.numbers(&key) {
            Ok(numbers) => Values {
                shape: tensor.shape.clone(),
                numbers,
            },
            Err(fault) => {
                faults.push(fault.to_string());
                continue;
            }
        };
        let Some((layer, ending)) = key.strip_prefix(PREFIX).and_then(split) else {
            others.push(key);
            continue;
        };
        let parts = parts.entry(layer.to_string()).or_default();
        parts.parameters += values.numbers.len();
        match ending {
            A => parts.a = Some(values),
            B => parts.b = Some(values),
            MAGNITUDE => parts.has_magnitude = true,
            _ => {}
        }
    }
    let patterns = adapter.check().ok();
    let layers = parts.into_iter().map(|(layer, parts)| {
        let alpha = match &patterns {
            Some(patterns) => patterns.alpha(&layer, adapter.alpha),
            None => adapter.alpha,
        };
        let factors = factors(&layer, &parts, faults);
        let meant = patterns
            .as_ref()
            .map(|patterns| patterns.rank(&layer, adapter.rank));
        if let (Some((a, _)), Some(meant)) = (&factors, meant)
            && a.rows() != meant
        {
            faults.push(format!(
                "{layer} has factors of rank {}, the configuration says {meant}",
                a.rows()
            ));
        }
        if adapter.method == MethodConfig::Dora && !parts.has_magnitude {
            faults.push(format!("{layer} has no magnitudes, which DoRA needs"));
        }
        let scale = factors
            .as_ref()
            .map(|(a, _)| adapter.scale(a.rows(), alpha));
        AdapterLayer {
            parameters: parts.parameters,
            rank: factors.as_ref().map(|(a, _)| a.rows()),
            scale,
            change: factors.zip(scale).map(|((a, b), scale)| LayerChange {
                layer: layer.clone(),
                method: "Lora",
                rank: Some(a.rows()),
                norm: product_norm(&a, &b) * scale.abs(),
                weight_norm: None,
            }),
            layer,
        }
    });
    (layers.collect(), others)
}

/// The path of a layer and what follows it in a key.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    ENDINGS
        .into_iter()
        .filter_map(|ending| Some((key.strip_suffix(ending)?, ending)))
        // `a.token_adapter.trainable_tokens_delta` ends with the shorter name, too.
        .max_by_key(|(_, ending)| ending.len())
}

/// `[rank, in]` and `[out, rank]`, if a layer has both, as matrices that fit each other.
fn factors(layer: &str, parts: &Parts, faults: &mut Vec<String>) -> Option<(Matrix, Matrix)> {
    let (a, b) = match (&parts.a, &parts.b) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return None,
        (Some(_), None) => {
            faults.push(format!("{layer} has a lora_A and no lora_B"));
            return None;
        }
        (None, Some(_)) => {
            faults.push(format!("{layer} has a lora_B and no lora_A"));
            return None;
        }
    };
    // A convolution's factors are more than matrices.
    let (a, b) = (a.matrix()?, b.matrix()?);
    if a.rows() != b.columns() {
        faults.push(format!(
            "{layer} has a lora_A {:?} and a lora_B {:?}, which do not fit",
            a.shape(),
            b.shape()
        ));
        return None;
    }
    Some((a, b))
}

/// `|B A|`, by `sum((A A') * (B' B))`, of matrices as small as the rank.
fn product_norm(a: &Matrix, b: &Matrix) -> f64 {
    let left = a * &a.transpose();
    let right = &b.transpose() * b;
    let square: f64 = left.iter().zip(right.iter()).map(|(l, r)| l * r).sum();
    square.max(0.0).sqrt()
}
