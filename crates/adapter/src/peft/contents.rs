//! What a folder holds for a plan: its tensors, checked as a whole, and what they become on a module.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use burn::module::Module;
use burn_lora_linalg::Matrix;

use super::keys::{SHARED, layer_key, saved_key, transpose};
use super::tensors::Stored;
use crate::attach::{finish, projections, widths};
use crate::beside::Beside;
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::{AdapterError, TensorFault, nearest};
use crate::factors::Factors;
use crate::initial::{Initialization, plain_of, started_over};
use crate::method::{MethodConfig, Projections};
use crate::plan::Planned;
use crate::saved::{SavedParameter, replace_values, saved_parameters};
use crate::view::Kind;

/// The tensors of a file by key, and its path.
pub(super) type File = (PathBuf, HashMap<String, Stored>);

/// The adapter of a folder, before it is put onto a module.
pub(super) struct Contents {
    config: LoraConfig,
    plan: Vec<Planned>,
    tensors: Tensors,
}

/// The tensors of a file for a plan, in Burn's layout.
struct Tensors {
    /// The values of each planned adapter.
    values: Vec<Vec<Vec<f32>>>,
    /// What the layers share.
    shared: Option<Projections>,
    /// Parameters of the base by their paths: those saved beside the adapter, and embeddings that were resized.
    replaced: HashMap<String, Vec<f32>>,
}

impl Contents {
    pub(super) fn put<M: Module>(
        self,
        module: M,
        name: &str,
    ) -> Result<(M, LoraConfig), AdapterError> {
        let Self {
            config,
            plan,
            tensors,
        } = self;
        let module = replace_values(module, tensors.replaced);
        let shared = tensors.shared.as_ref();
        let module = finish(module, name, &plan, tensors.values, &config, shared)?;
        Ok((module, config))
    }

    /// For the base as it is, where the factors are over one that lost what they started from.
    pub(super) fn over_base<M: Module>(
        mut self,
        module: &M,
        start: Option<&Initialization>,
    ) -> Result<Self, AdapterError> {
        let Some(start) = start else {
            return Ok(self);
        };
        let starts = started_over(module, &self.config, &self.plan, start)?;
        let mut pairs = HashMap::new();
        for (site, values) in self.plan.iter().zip(&self.tensors.values) {
            if let (Some(then), [a, b, ..]) = (starts.get(&site.path), values.as_slice()) {
                let [d_in, d_out] = site.view.dims();
                let now = Factors {
                    a: Matrix::from_f32(a, [d_in, site.rank]),
                    b: Matrix::from_f32(b, [site.rank, d_out]),
                    scale: then.scale,
                };
                pairs.insert(site.path.clone(), [now, then.clone()]);
            }
        }
        let plain = plain_of(&self.config, &self.plan, pairs)?;
        for (site, values) in plain.plan.iter().zip(&mut self.tensors.values) {
            if let (Some(factors), [a, b, ..]) =
                (plain.factors.get(&site.path), values.as_mut_slice())
            {
                (*a, *b) = (factors.a.to_f32(), factors.b.to_f32());
            }
        }
        Ok(Self {
            config: plain.config,
            plan: plain.plan,
            ..self
        })
    }
}

/// The adapter of a file for a plan.
///
/// # Errors
/// [`AdapterError::Tensors`] with every tensor that does not fit.
pub(super) fn contents_of<M: Module>(
    module: &M,
    (path, file): File,
    plan: Vec<Planned>,
    config: LoraConfig,
) -> Result<Contents, AdapterError> {
    let beside = Beside::new(&config, &plan);
    let saved = saved_parameters(module, &beside);
    let tensors = read_tensors(file, &plan, saved, &beside, &config);
    let tensors = tensors.map_err(|faults| AdapterError::Tensors { path, faults })?;
    drop(beside);
    Ok(Contents {
        config,
        plan,
        tensors,
    })
}

/// The tensors of a file, or every fault of it.
fn read_tensors(
    mut unused: HashMap<String, Stored>,
    plan: &[Planned],
    saved: Vec<SavedParameter>,
    beside: &Beside<'_>,
    config: &LoraConfig,
) -> Result<Tensors, Vec<TensorFault>> {
    let mut faults = Vec::new();
    let mut expected = Vec::new();
    let mut replaced = HashMap::new();
    for planned in plan
        .iter()
        .filter(|planned| planned.view.kind == Kind::Embedding)
    {
        let key = layer_key(planned.module_path(), "base_layer.weight");
        if let Some(stored) = unused.remove(&key) {
            match read(&key, &stored, &planned.view.shape, false) {
                Ok(values) => drop(replaced.insert(planned.path.clone(), values)),
                Err(fault) => faults.push(fault),
            }
        }
    }
    drop_tied_rows(&mut unused, plan);
    drop_idle_biases(&mut unused, &saved, beside);
    let has_shared = unused.contains_key(SHARED[0]);
    let mut take = |key: String, shape: &[usize], transposed: bool| {
        let values = match unused.remove(&key) {
            Some(stored) => read(&key, &stored, shape, transposed),
            None => Err(TensorFault::Missing {
                key: key.clone(),
                shape: shape.to_vec(),
            }),
        };
        expected.push(key);
        values.unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        })
    };
    let mut values = Vec::new();
    for planned in plan {
        let specs = planned.specs().into_iter().map(|spec| {
            let key = layer_key(planned.module_path(), &spec.key);
            match spec.transposed {
                // A kernel is transposed as the matrix that it is flattened to.
                true => {
                    let read = take(key, &spec.file_shape, false);
                    let [rows, columns] = spec.shape;
                    match read.len() == rows * columns {
                        true => transpose(&read, [columns, rows]),
                        false => read,
                    }
                }
                false => take(key, &spec.file_shape, false),
            }
        });
        values.push(specs.collect());
    }
    let shared = match &config.method {
        MethodConfig::Vera(vera) if vera.save_projection || has_shared => {
            let (rank, widths) = (config.rank, widths(plan));
            Some(Projections {
                a: take(SHARED[0].to_string(), &[rank, widths[0]], false),
                b: take(SHARED[1].to_string(), &[widths[1], rank], false),
                rank,
                widths,
            })
        }
        _ => projections(plan, config),
    };
    for saved in saved {
        let key = saved_key(&saved.file_path);
        let values = take(key, &saved.file_shape, saved.transposed);
        replaced.insert(saved.path, values);
    }
    let mut unexpected: Vec<_> = unused.into_iter().collect();
    unexpected.sort_by(|(x, _), (y, _)| x.cmp(y));
    for (key, stored) in unexpected {
        let nearest = nearest(&key, expected.iter().map(String::as_str)).map(str::to_string);
        let shape = stored.shape;
        faults.push(TensorFault::Unexpected {
            key,
            shape,
            nearest,
        });
    }
    match faults.is_empty() {
        true => Ok(Tensors {
            values,
            shared,
            replaced,
        }),
        false => Err(faults),
    }
}

/// Drops the copies of trained rows that PEFT writes under the name of a head that is tied to the embedding.
fn drop_tied_rows(tensors: &mut HashMap<String, Stored>, plan: &[Planned]) {
    let tokens = plan
        .iter()
        .filter(|planned| matches!(planned.blueprint, Blueprint::Tokens { .. }));
    let keys = tokens.flat_map(|planned| {
        let specs = planned.specs().into_iter();
        specs.map(|spec| layer_key(planned.module_path(), &spec.key))
    });
    for key in keys.collect::<Vec<_>>() {
        let Some((key, rows)) = tensors.remove_entry(&key) else {
            continue;
        };
        tensors.retain(|other, copy| {
            let is_copy = other.ends_with(".trainable_tokens_delta")
                && (&copy.shape, &copy.bytes) == (&rows.shape, &rows.bytes);
            !is_copy
        });
        tensors.insert(key, rows);
    }
}

/// Drops biases that say nothing: those of the frozen copy of a saved module, and the second names of tied ones.
fn drop_idle_biases(
    tensors: &mut HashMap<String, Stored>,
    saved: &[SavedParameter],
    beside: &Beside<'_>,
) {
    let keys: HashSet<String> = saved.iter().map(|one| saved_key(&one.file_path)).collect();
    let known: Vec<(Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .filter(|(key, _)| keys.contains(*key) && key.ends_with(".bias"))
        .map(|(_, stored)| (stored.shape.clone(), stored.bytes.clone()))
        .collect();
    tensors.retain(|key, stored| {
        let is_copy = beside.trains_all_biases()
            && key.ends_with(".bias")
            && !key.contains(".lora_")
            && !keys.contains(key)
            && known
                .iter()
                .any(|(shape, bytes)| (shape, bytes) == (&stored.shape, &stored.bytes));
        !is_copy && !beside.is_idle(key)
    });
}

/// One tensor as f32, transposed from PEFT's layout into Burn's where the two differ.
fn read(
    key: &str,
    stored: &Stored,
    expected: &[usize],
    transposed: bool,
) -> Result<Vec<f32>, TensorFault> {
    if stored.shape != expected {
        return Err(TensorFault::Shape {
            key: key.to_string(),
            found: stored.shape.clone(),
            expected: expected.to_vec(),
        });
    }
    let values = stored.numbers(key)?;
    Ok(match (transposed, expected) {
        (true, [rows, columns]) => transpose(&values, [*rows, *columns]),
        _ => values,
    })
}
