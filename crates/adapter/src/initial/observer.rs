use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn_lora_linalg::{IncrementalSvd, LinalgError, Matrix};

use super::{Evidence, Initialization};
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::factors::host;
use crate::plan::plan;
use crate::sites::Path;

/// What is kept of a layer's inputs.
#[derive(Clone, Debug)]
pub(crate) enum InputStatistics {
    /// The principal components.
    Components(IncrementalSvd),
    /// The sum of the inputs' outer products, and how many forwards it is of.
    Covariance { sum: Matrix, count: usize },
}

impl InputStatistics {
    fn add(&mut self, rows: &Matrix) -> Result<(), LinalgError> {
        match self {
            Self::Components(components) => components.add(rows),
            Self::Covariance { sum, count } => {
                if !rows.is_finite() {
                    return Err(LinalgError::NotFinite);
                }
                // As CorDA's authors do it, each forward by its largest element.
                let most = rows.iter().fold(f64::NEG_INFINITY, f64::max).abs();
                let unit = if most > 0.0 { 1.0 / most } else { 1.0 };
                let rows = rows.scaled(unit);
                *sum = &*sum + &(&rows.transpose() * &rows);
                *count += 1;
                Ok(())
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Components(components) => components.count() == 0,
            Self::Covariance { count, .. } => *count == 0,
        }
    }
}

/// Watches what goes into the layers that a configuration targets, while a model runs on data of the task: what
/// [EVA](Initialization::Eva) and [CorDA](Initialization::Corda) start from.
///
/// It sees the layers that compute by [`project`](crate::project), ours and any that call it; a plain `Linear` of Burn does not
/// tell of its inputs. Batches are not kept, only what is needed of them.
#[derive(Debug)]
pub struct Observer {
    layers: HashMap<ParamId, String>,
    inputs: BTreeMap<String, InputStatistics>,
    faults: Vec<String>,
}

/// A running observation.
struct Watch {
    observer: Observer,
    /// Which of the rows count; `None` is all.
    rows: Option<Vec<bool>>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Called by a projection with its input, `[..., d_in]`.
pub(crate) fn observe<const D: usize>(weight: &Param<Tensor<2>>, x: &Tensor<D>) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch
            && let Some(path) = watch.observer.layers.get(&weight.id)
        {
            let width = x.dims()[D - 1];
            let count = x.shape().num_elements() / width.max(1);
            let mut rows = host(x.clone().detach().reshape([count, width]));
            if let Some(mask) = &watch.rows {
                if mask.len() != count {
                    let mask = mask.len();
                    let fault = format!("{path} has {count} inputs, of which {mask} are marked");
                    watch.observer.faults.push(fault);
                    return;
                }
                let kept: Vec<usize> = (0..count).filter(|row| mask[*row]).collect();
                rows = rows.pick_rows(&kept);
            }
            if let Some(inputs) = watch.observer.inputs.get_mut(path)
                && let Err(error) = inputs.add(&rows)
            {
                watch.observer.faults.push(format!("{path}: {error}"));
            }
        }
    });
}

impl Observer {
    /// Watches for an initialization, which must be one that [needs](Initialization::needs) inputs, over the layers that the
    /// configuration targets.
    ///
    /// # Errors
    ///
    /// As [`attach`](crate::attach), for the configuration; [`AdapterError::Factors`] for another initialization.
    pub fn new<M: Module>(
        module: &M,
        config: &LoraConfig,
        initialization: &Initialization,
    ) -> Result<Self, AdapterError> {
        let plan = plan(module, config)?;
        let mut inputs = BTreeMap::new();
        for site in &plan {
            let statistics = match initialization {
                Initialization::Eva(eva) => {
                    InputStatistics::Components(IncrementalSvd::new(eva.most(site.rank)))
                }
                Initialization::Corda(_) => InputStatistics::Covariance {
                    sum: Matrix::zeros(site.view.dims()[0], site.view.dims()[0]),
                    count: 0,
                },
                other => {
                    return Err(refused(vec![format!("{} needs no inputs", other.word())]));
                }
            };
            inputs.insert(site.module_path().to_string(), statistics);
        }
        let mut finder = Finder::default();
        module.visit(&mut finder);
        let layers = plan.iter().filter_map(|site| {
            let id = finder.ids.get(&site.path)?;
            Some((*id, site.module_path().to_string()))
        });
        Ok(Self {
            layers: layers.collect(),
            inputs,
            faults: Vec::new(),
        })
    }

    /// Watches while a closure runs the module, or a clone of it, on this thread. Of the inputs of each layer only the marked rows
    /// count, those of tokens that are no padding, say; `None` is all.
    ///
    /// # Panics
    ///
    /// If another observer is watching on this thread.
    pub fn watch<R>(&mut self, rows: Option<&[bool]>, forward: impl FnOnce() -> R) -> R {
        let empty = Self {
            layers: HashMap::new(),
            inputs: BTreeMap::new(),
            faults: Vec::new(),
        };
        let watch = Watch {
            observer: std::mem::replace(self, empty),
            rows: rows.map(<[bool]>::to_vec),
        };
        let before = WATCH.replace(Some(watch));
        assert!(before.is_none(), "one observer at a time");
        let guard = Stop;
        let result = forward();
        if let Some(watch) = guard.take() {
            *self = watch.observer;
        }
        result
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Factors`] with every layer that had no input, or one that is not finite.
    pub fn finish(self) -> Result<Evidence, AdapterError> {
        let mut faults = self.faults;
        let unseen = self.inputs.iter().filter(|(_, inputs)| inputs.is_empty());
        faults.extend(unseen.map(|(path, _)| format!("{path} had no input")));
        match faults.is_empty() {
            true => Ok(Evidence {
                inputs: self.inputs,
                gradients: BTreeMap::new(),
            }),
            false => Err(refused(faults)),
        }
    }
}

/// Ends the watch, also when the forward panics.
struct Stop;

impl Stop {
    fn take(self) -> Option<Watch> {
        WATCH.take()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        WATCH.take();
    }
}

fn refused(faults: Vec<String>) -> AdapterError {
    AdapterError::Factors {
        action: "watching the inputs",
        faults,
    }
}

/// The ids of the base's parameters.
#[derive(Default)]
struct Finder {
    path: Path,
    ids: HashMap<String, ParamId>,
}

impl ModuleVisitor for Finder {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.path.in_reparameterization() {
            self.ids.insert(self.path.join(), param.id);
        }
    }
}
