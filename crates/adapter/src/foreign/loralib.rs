use std::path::Path;

use burn_lora_linalg::Matrix;

use crate::error::AdapterError;
use crate::factors::reading::Names;
use crate::factors::{FactorSet, Factors};
use crate::peft::tensors;

const NAMES: Names = Names {
    prefix: "",
    a: ".lora_A",
    b: ".lora_B",
};

/// The parts of a fused projection that loralib's `MergedLinear` adapts: its `enable_lora`, for layers whose path ends with
/// this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledParts {
    /// The end of the layers' paths, `c_attn`.
    pub layer: String,
    /// One flag for each part, `[true, false, true]` for q and v of a fused qkv.
    pub enabled: Vec<bool>,
}

/// What a state dictionary of loralib does not say itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LoralibOptions {
    /// `lora_alpha`, which is divided by the rank.
    pub alpha: f64,
    /// What is put in front of each path to give the model's, or taken away where it begins with `-`.
    pub prefix: String,
    /// The fused projections.
    pub merged: Vec<EnabledParts>,
}

impl LoralibOptions {
    /// With this `lora_alpha`, paths as they are, and no fused projection.
    pub fn new(alpha: f64) -> Self {
        Self {
            alpha,
            prefix: String::new(),
            merged: Vec::new(),
        }
    }

    /// Names the layers that are fused and the parts of them that are adapted.
    pub fn with_merged(mut self, layer: &str, enabled: &[bool]) -> Self {
        self.merged.push(EnabledParts {
            layer: layer.to_string(),
            enabled: enabled.to_vec(),
        });
        self
    }

    /// Puts this in front of each path.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_string();
        self
    }

    fn path(&self, path: &str) -> String {
        match self.prefix.strip_prefix('-') {
            Some(less) => path.strip_prefix(less).unwrap_or(path).to_string(),
            None => format!("{}{path}", self.prefix),
        }
    }

    fn parts(&self, path: &str) -> Option<&EnabledParts> {
        self.merged.iter().find(|parts| {
            let rest = path.strip_suffix(parts.layer.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

/// Reads a state dictionary of the original loralib, which `lora_state_dict` selects from a model's: `<path>.lora_A [r, in]`
/// and `<path>.lora_B [out, r]`, in a PyTorch file or in safetensors. Tensors without `lora_` in their names, the model's
/// own, are passed over.
///
/// Of a fused projection the file has the factors of the adapted parts one below the other; they become one adapter of the
/// whole projection, whose rank is the sum and whose B is zero where a part of A has nothing to say.
///
/// # Errors
///
/// [`AdapterError::Io`]; [`AdapterError::Tensors`] with every factor that lacks its counterpart or is not finite;
/// [`AdapterError::Factors`] with every layer whose factors do not fit each other, or not their parts.
pub fn read_loralib(file: &Path, options: &LoralibOptions) -> Result<FactorSet, AdapterError> {
    let is_safetensors = file.extension().is_some_and(|end| end == "safetensors");
    let stored = match is_safetensors {
        true => tensors::read_safetensors(file)?,
        false => tensors::read_old(file)?,
    };
    let factors = stored.into_iter().filter(|(key, _)| key.contains("lora_"));
    let pairs = NAMES
        .pairs(factors)
        .map_err(|faults| AdapterError::Tensors {
            path: file.into(),
            faults,
        })?;
    let mut faults = Vec::new();
    if !options.alpha.is_finite() || options.alpha == 0.0 {
        faults.push(format!("lora_alpha is {}", options.alpha));
    }
    if pairs.is_empty() {
        faults.push("the file holds no lora_A and lora_B".to_string());
    }
    let mut set = FactorSet::default();
    for (path, [a, b]) in pairs {
        let built = match options.parts(&path) {
            None => plain(a, b, options.alpha),
            Some(parts) => fused(&a, &b, options.alpha, &parts.enabled),
        };
        match built {
            Ok(factors) => drop(set.layers.insert(options.path(&path), factors)),
            Err(fault) => faults.push(format!("{path}: {fault}")),
        }
    }
    match faults.is_empty() {
        true => Ok(set),
        false => Err(AdapterError::Factors {
            action: "reading the adapter",
            faults,
        }),
    }
}

fn plain(a: Matrix, b: Matrix, alpha: f64) -> Result<Factors, String> {
    let rank = a.rows();
    if b.columns() != rank {
        let (a, b) = (a.shape(), b.shape());
        let hint = "; of a fused projection the parts must be named";
        return Err(format!("lora_A is {a:?} and lora_B {b:?}{hint}"));
    }
    Ok(Factors {
        a: a.transpose(),
        b: b.transpose(),
        scale: alpha / rank as f64,
    })
}

/// `a` is `[parts * r, in]`, `b` is `[parts * width, r]`.
fn fused(a: &Matrix, b: &Matrix, alpha: f64, enabled: &[bool]) -> Result<Factors, String> {
    let count = enabled.iter().filter(|enabled| **enabled).count();
    let rank = b.columns();
    if count == 0 || rank == 0 || a.rows() != count * rank || !b.rows().is_multiple_of(count) {
        let (a, b) = (a.shape(), b.shape());
        return Err(format!(
            "lora_A is {a:?} and lora_B {b:?}, for {count} adapted parts"
        ));
    }
    let width = b.rows() / count;
    // The place of each part of the output among the adapted ones.
    let mut next = 0..;
    let places: Vec<Option<usize>> = enabled
        .iter()
        .map(|enabled| enabled.then(|| next.next()).flatten())
        .collect();
    let b = Matrix::from_fn(count * rank, width * enabled.len(), |row, column| {
        let (part, inside) = (row / rank, row % rank);
        match places[column / width] {
            Some(place) if place == part => b.get(place * width + column % width, inside),
            _ => 0.0,
        }
    });
    Ok(Factors {
        a: a.transpose(),
        b,
        scale: alpha / rank as f64,
    })
}
