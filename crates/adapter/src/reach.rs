//! Reaching the stacks inside a module.
//!
//! Burn shows a visitor the parameters of a reparameterization but not the reparameterization itself, and a mapper
//! cannot exchange it. Both pass through [`AdapterStack`]'s own `visit` and `map`, so the two sides meet in a
//! thread-local cell: the walker arms it when it enters a stack, the stack answers, and the walker disarms it when it
//! leaves. Nothing is armed outside of the two walks in this file.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, Reparameterization};
use burn::tensor::Tensor;

use crate::sites::{Path, REPARAMETERIZATION};
use crate::stack::AdapterStack;

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

/// A weight that carries adapters.
#[derive(Clone, Debug)]
pub struct AdaptedWeight {
    /// Path of the weight parameter inside the module, `model.layers.0.self_attn.q_proj.weight`.
    pub path: String,
    /// The frozen weight.
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
        let stack = &weight.stack;
        let mut adapters = stack.adapters().iter();
        stack.is_enabled() && adapters.any(|adapter| adapter.lora.drops_inputs())
    };
    adapted_weights(module).iter().any(drops)
}

/// All weights of a module that carry adapters, in the module's order. Tensors are shared, not copied.
pub fn adapted_weights<M: Module>(module: &M) -> Vec<AdaptedWeight> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.found
}

#[derive(Default)]
struct Collector {
    path: Path,
    /// The rank-2 parameter visited last: Burn visits a weight right before its reparameterization.
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
        if D == 2 && !self.path.in_reparameterization() {
            // Rank 2 is known here but not to the type system; the reshape is the identity.
            let base = param.base();
            let shape = base.shape();
            self.last = Some(base.reshape([shape[0], shape[1]]));
        }
    }
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
