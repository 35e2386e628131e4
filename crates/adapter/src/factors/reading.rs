//! LoRA folders of PEFT, without a module.

use std::collections::BTreeMap;
use std::path::Path;

use burn_lora_linalg::Matrix;
use serde_json::Value;

use super::{FactorSet, Factors, plain_layer};
use crate::error::{AdapterError, TensorFault, noted};
use crate::initial::{Initialization, start_of};
use crate::method::MethodConfig;
use crate::peft::tensors::{self, Stored};
use crate::peft::{CONFIG_FILE, read_config};

/// A tensor as a matrix, if it has two dimensions.
fn matrix(key: &str, stored: &Stored) -> Result<Option<Matrix>, TensorFault> {
    let numbers = stored.numbers(key)?;
    Ok(match stored.shape[..] {
        [rows, columns] => Some(Matrix::from_f32(&numbers, [rows, columns])),
        _ => None,
    })
}

impl FactorSet {
    /// Reads a LoRA folder of PEFT by its files alone: ranks come from the tensors, scales from the configuration.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every tensor that is no factor, lacks its counterpart, disagrees with it, or is
    /// not finite. A folder whose factors are over a base that lost what they started from is refused:
    /// [`load_over`](Self::load_over) reads it.
    pub fn load(folder: &Path) -> Result<Self, AdapterError> {
        match read_folder(folder)? {
            (set, None) => Ok(set),
            (_, Some(start)) => Err(AdapterError::Unsupported {
                path: folder.join(CONFIG_FILE),
                features: vec![format!(
                    "init_lora_weights {}: the factors are over a base that lost what they started from; they mean nothing \
                     without the base (FactorSet::load_over)",
                    start.word()
                )],
            }),
        }
    }

    /// Reads a LoRA folder of PEFT as [`load`](Self::load) does, also one that was saved in the middle of PiSSA or OLoRA: `weight`
    /// is asked for the base's weight of each layer, `[d_in, d_out]`, one after the other, and the factors become those of the
    /// LoRA over that base which does the same ([`to_plain`](crate::to_plain)).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); [`AdapterError::Factors`] with every layer whose weight has another shape, or cannot be decomposed;
    /// whatever `weight` fails with.
    pub fn load_over(
        folder: &Path,
        mut weight: impl FnMut(&str) -> Result<Matrix, AdapterError>,
    ) -> Result<Self, AdapterError> {
        let (set, Some(start)) = read_folder(folder)? else {
            return Self::load(folder);
        };
        let mut faults = Vec::new();
        let mut plain = Self::default();
        for (path, now) in set.layers {
            let weight = weight(&path)?;
            if weight.shape() != now.shape() {
                let (found, meant) = (weight.shape(), now.shape());
                faults.push(format!("{path} is {meant:?}, the base's weight {found:?}"));
                continue;
            }
            let layer = start_of(&start, &weight, now.rank(), now.scale)
                .and_then(|then| plain_layer(&now, &then));
            match layer {
                Ok(layer) => drop(plain.layers.insert(path, layer)),
                Err(error) => faults.push(format!("{path}: {error}")),
            }
        }
        match faults.is_empty() {
            true => Ok(plain),
            false => Err(AdapterError::Factors {
                action: "taking the initial factors from the weights",
                faults,
            }),
        }
    }
}

/// The factors of a folder as they stand there, and what they started from if the base is to lose it.
fn read_folder(folder: &Path) -> Result<(FactorSet, Option<Initialization>), AdapterError> {
    let config = read_config(folder)?;
    let mut features = config.unsupported;
    let path = folder.join(CONFIG_FILE);
    let start = config.start;
    let config = config.adapter;
    if config.method != MethodConfig::Lora {
        features.push(format!(
            "the method \"{}\"; factors are LoRA's",
            config.method.word()
        ));
    }
    let mut errors = Vec::new();
    if !features.is_empty() {
        errors.push(AdapterError::Unsupported { path, features });
    }
    let is_lora = errors.is_empty();
    let patterns = noted(config.check(), &mut errors);
    let stored = noted(tensors::read(folder), &mut errors);
    let names = Names {
        prefix: "base_model.model.",
        a: ".lora_A.weight",
        b: ".lora_B.weight",
    };
    // Of another method, every tensor would be a stranger.
    let pairs = stored.filter(|_| is_lora).and_then(|(path, stored)| {
        let pairs = names.pairs(stored);
        let pairs = pairs.and_then(|pairs| transposed(pairs, &names));
        let pairs = pairs.map_err(|faults| AdapterError::Tensors { path, faults });
        noted(pairs, &mut errors)
    });
    AdapterError::all(errors)?;
    let (Some(patterns), Some(pairs)) = (patterns, pairs) else {
        return Ok((FactorSet::default(), start));
    };
    let layer = |(path, [a, b]): (String, [Matrix; 2])| {
        let alpha = patterns.alpha(&path, config.alpha);
        let scale = config.scale(a.columns(), alpha);
        (path, Factors { a, b, scale })
    };
    Ok((pairs.into_iter().map(layer).collect(), start))
}

/// How a file names the two factors of a layer.
pub(crate) struct Names {
    pub(crate) prefix: &'static str,
    pub(crate) a: &'static str,
    pub(crate) b: &'static str,
}

pub(crate) type Pairs = BTreeMap<String, [Matrix; 2]>;

impl Names {
    /// The factors of each layer, as they are stored.
    pub(crate) fn pairs(
        &self,
        stored: impl IntoIterator<Item = (String, Stored)>,
    ) -> Result<Pairs, Vec<TensorFault>> {
        let mut faults = Vec::new();
        let mut halves: BTreeMap<String, [Option<Matrix>; 2]> = BTreeMap::new();
        let mut stored: Vec<_> = stored.into_iter().collect();
        stored.sort_by(|(x, _), (y, _)| x.cmp(y));
        for (key, tensor) in stored {
            let shape = tensor.shape.clone();
            let path = key.strip_prefix(self.prefix).and_then(|key| {
                let a = key.strip_suffix(self.a).map(|path| (path, 0));
                a.or_else(|| key.strip_suffix(self.b).map(|path| (path, 1)))
            });
            let Some((path, half)) = path else {
                let nearest = None;
                faults.push(TensorFault::Unexpected {
                    key,
                    shape,
                    nearest,
                });
                continue;
            };
            match matrix(&key, &tensor) {
                Err(fault) => faults.push(fault),
                Ok(Some(matrix)) => {
                    halves.entry(path.to_string()).or_default()[half] = Some(matrix);
                }
                Ok(None) => {
                    let nearest = None;
                    faults.push(TensorFault::Unexpected {
                        key,
                        shape,
                        nearest,
                    });
                }
            }
        }
        let mut pairs = Pairs::new();
        for (path, halves) in halves {
            match halves {
                [Some(a), Some(b)] => drop(pairs.insert(path, [a, b])),
                [a, b] => {
                    let missing = if a.is_none() { self.a } else { self.b };
                    let there = a.or(b).map_or(Vec::new(), |matrix| matrix.shape().to_vec());
                    faults.push(TensorFault::Missing {
                        key: format!("{}{path}{missing}", self.prefix),
                        shape: there,
                    });
                }
            }
        }
        match faults.is_empty() {
            true => Ok(pairs),
            false => Err(faults),
        }
    }
}

/// From `[r, in]` and `[out, r]` to ours.
fn transposed(pairs: Pairs, names: &Names) -> Result<Pairs, Vec<TensorFault>> {
    let turned = pairs
        .into_iter()
        .map(|(path, [a, b])| (path, [a.transpose(), b.transpose()]));
    check_ranks(turned.collect(), names)
}

/// Refuses pairs that cannot be multiplied.
pub(crate) fn check_ranks(pairs: Pairs, names: &Names) -> Result<Pairs, Vec<TensorFault>> {
    let odd = pairs.iter().filter(|(_, [a, b])| a.columns() != b.rows());
    let faults: Vec<TensorFault> = odd
        .map(|(path, [a, b])| TensorFault::Shape {
            key: format!("{}{path}{}", names.prefix, names.b),
            found: b.shape().to_vec(),
            expected: vec![a.columns(), b.columns()],
        })
        .collect();
    match faults.is_empty() {
        true => Ok(pairs),
        false => Err(faults),
    }
}

/// A number of a configuration.
pub(crate) fn number(config: &Value, path: &[&str]) -> Option<f64> {
    path.iter()
        .try_fold(config, |value, key| value.get(key))?
        .as_f64()
}
