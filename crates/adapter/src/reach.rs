//! Reaching the stacks inside a module.
//!
//! Burn shows a visitor the parameters of a reparameterization but not the reparameterization itself, and a mapper
//! cannot exchange it. Both pass through [`AdapterStack`]'s own `visit` and `map`, so the two sides meet in a
//! thread-local cell: the walker arms it when it enters a stack, the stack answers, and the walker disarms it when it
//! leaves. Nothing is armed outside of the two walks in this file.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, Reparameterization};
use burn::tensor::Tensor;

use crate::error::AdapterError;
use crate::method::Method;
use crate::sites::{Path, REPARAMETERIZATION};
use crate::stack::{AdapterStack, Chosen};
use crate::view::{Kind, View};

enum Cell {
    Idle,
    /// A walker waits for the stack it has just entered.
    Asking,
    /// The stack's answer.
    Shown(AdapterStack),
    /// What the next mapped stack turns into.
    Replacement(AdapterStack),
}

thread_local! {
    static CELL: RefCell<Cell> = const { RefCell::new(Cell::Idle) };
}

fn exchange(next: Cell) -> Cell {
    CELL.with(|cell| cell.replace(next))
}

/// Called by a stack that is visited.
pub(crate) fn show(stack: &AdapterStack) {
    CELL.with(|cell| {
        let mut cell = cell.borrow_mut();
        if matches!(*cell, Cell::Asking) {
            *cell = Cell::Shown(stack.clone());
        }
    });
}

/// Called by a stack that is mapped.
pub(crate) fn take_replacement() -> Option<AdapterStack> {
    match exchange(Cell::Idle) {
        Cell::Replacement(stack) => Some(stack),
        _ => None,
    }
}

fn is_stack(name: &str, container: &str) -> bool {
    container == REPARAMETERIZATION && name == AdapterStack::NAME
}

/// A parameter that carries adapters, seen as a matrix.
#[derive(Clone, Debug)]
pub struct AdaptedWeight {
    /// Path of the parameter inside the module, `model.layers.0.self_attn.q_proj.weight`.
    pub path: String,
    /// The frozen weight as the matrix that methods change: `[d_in, d_out]` of a linear layer, the rows of an embedding,
    /// `[channels_in x kernel, channels_out]` of a convolution, `[1, n]` of a vector.
    pub base: Tensor<2>,
    /// Its adapters.
    pub stack: AdapterStack,
}

impl AdaptedWeight {
    /// Path of the layer that holds the weight: without a closing `.weight`.
    pub fn module_path(&self) -> &str {
        crate::sites::module_path(&self.path)
    }
}

/// Whether a forward of this module draws random numbers: those of its adapters' dropout.
pub fn drops_inputs<M: Module>(module: &M) -> bool {
    let drops = |weight: &AdaptedWeight| {
        let methods = weight.stack.chosen(Chosen::Active);
        let rows = weight.stack.rows().is_some();
        let mut adapters = weight.stack.adapters().iter().filter(|_| rows);
        methods.into_iter().any(Method::drops) || adapters.any(|adapter| adapter.method.drops())
    };
    all_stacks(module).iter().any(drops)
}

/// All parameters of a module that carry adapters, in the module's order. Tensors are shared, not copied.
pub fn adapted_weights<M: Module>(module: &M) -> Vec<AdaptedWeight> {
    let stacks = all_stacks(module).into_iter();
    stacks
        .filter(|weight| !weight.stack.adapters().is_empty())
        .collect()
}

/// All stacks of a module, those among them from which all adapters were deleted.
pub(crate) fn all_stacks<M: Module>(module: &M) -> Vec<AdaptedWeight> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.found
}

/// [`all_stacks`] of a module that has adapters.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when it has none.
pub(crate) fn some_stacks<M: Module>(module: &M) -> Result<Vec<AdaptedWeight>, AdapterError> {
    let weights = all_stacks(module);
    let is_bare = |weight: &AdaptedWeight| weight.stack.adapters().is_empty();
    match weights.iter().all(is_bare) {
        false => Ok(weights),
        true => Err(AdapterError::NoAdapter {
            name: None,
            present: Vec::new(),
        }),
    }
}

/// The adapters of a module with the paths of their parameters, where the module may hide its base.
pub(crate) fn visible_stacks<M: Module>(module: &M) -> Vec<(String, AdapterStack)> {
    struct Stacks {
        path: Path,
        found: Vec<(String, AdapterStack)>,
    }
    impl ModuleVisitor for Stacks {
        fn enter_module(&mut self, name: &str, container: &str) {
            if is_stack(name, container) {
                exchange(Cell::Asking);
            }
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, name: &str, container: &str) {
            self.path.exit();
            if is_stack(name, container)
                && let Cell::Shown(stack) = exchange(Cell::Idle)
            {
                self.found.push((self.path.join(), stack));
            }
        }
    }
    let mut stacks = Stacks {
        path: Path::default(),
        found: Vec::new(),
    };
    module.visit(&mut stacks);
    stacks.found
}

/// The values of parameters as matrices, by their paths.
pub(crate) fn bases<'a, M: Module>(
    module: &M,
    paths: impl IntoIterator<Item = &'a str>,
) -> HashMap<String, Tensor<2>> {
    let mut finder = Bases {
        path: Path::default(),
        wanted: paths.into_iter().map(str::to_string).collect(),
        found: HashMap::new(),
    };
    if !finder.wanted.is_empty() {
        module.visit(&mut finder);
    }
    finder.found
}

struct Bases {
    path: Path,
    wanted: HashSet<String>,
    found: HashMap<String, Tensor<2>>,
}

impl ModuleVisitor for Bases {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if !self.path.in_reparameterization() && self.wanted.contains(&path) {
            let view = View {
                kind: Kind::Other,
                shape: param.lazy_shape().to_vec(),
            };
            self.found.insert(path, view.matrix(param.base()));
        }
    }
}

#[derive(Default)]
struct Collector {
    path: Path,
    /// The parameter visited last, seen as a matrix: Burn visits one right before its reparameterization.
    last: Option<Tensor<2>>,
    found: Vec<AdaptedWeight>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container: &str) {
        if is_stack(name, container) {
            exchange(Cell::Asking);
        }
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.path.exit();
        if is_stack(name, container)
            && let Cell::Shown(stack) = exchange(Cell::Idle)
            && let Some(base) = self.last.take()
        {
            self.found.push(AdaptedWeight {
                path: self.path.join(),
                base,
                stack,
            });
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.path.in_reparameterization() {
            let base = param.base();
            let view = View {
                kind: Kind::Other,
                shape: base.shape().to_vec(),
            };
            self.last = Some(view.matrix(base));
        }
    }
}

/// Applies a change to every stack of a module.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has no adapter.
pub(crate) fn replace_all<M: Module>(
    module: M,
    change: impl Fn(AdapterStack) -> AdapterStack,
) -> Result<M, AdapterError> {
    let weights = some_stacks(&module)?;
    let stacks: HashMap<_, _> = weights
        .into_iter()
        .map(|weight| (weight.path, change(weight.stack)))
        .collect();
    Ok(replace_stacks(module, stacks))
}

/// Exchanges the stacks of a module; a path without a stack in `stacks` keeps what it has.
pub(crate) fn replace_stacks<M: Module>(module: M, stacks: HashMap<String, AdapterStack>) -> M {
    module.map(&mut Replacer {
        path: Path::default(),
        stacks,
    })
}

struct Replacer {
    path: Path,
    stacks: HashMap<String, AdapterStack>,
}

impl ModuleMapper for Replacer {
    fn enter_module(&mut self, name: &str, container: &str) {
        if is_stack(name, container)
            && let Some(stack) = self.stacks.remove(&self.path.join())
        {
            exchange(Cell::Replacement(stack));
        }
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
}
