//! What a module holds: the path, shape and owner of each of its parameters.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// What Burn calls the container of a reparameterization's parameters.
pub(crate) const REPARAMETERIZATION: &str = "Reparameterization";

/// The stack of names that a visitor or mapper has entered.
#[derive(Default)]
pub(crate) struct Path {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Path {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_string());
        self.containers.push(container.to_string());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    pub(crate) fn join(&self) -> String {
        self.names.join(".")
    }

    /// The type that holds the current parameter, `Struct:Linear`.
    pub(crate) fn owner(&self) -> &str {
        self.containers.last().map_or("", String::as_str)
    }

    pub(crate) fn in_reparameterization(&self) -> bool {
        self.containers
            .iter()
            .any(|container| container == REPARAMETERIZATION)
    }
}

/// A layer's path as targets name it: the parameter's path without a closing `.weight`.
pub(crate) fn module_path(parameter_path: &str) -> &str {
    parameter_path
        .strip_suffix(".weight")
        .unwrap_or(parameter_path)
}

/// A rank-2 parameter that an adapter could go onto.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Path of the parameter.
    pub(crate) path: String,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) device: Device,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Linear,
    Embedding,
    Other,
}

impl Site {
    pub(crate) fn module_path(&self) -> &str {
        module_path(&self.path)
    }

    pub(crate) fn is_linear(&self) -> bool {
        self.kind == Kind::Linear
    }

    pub(crate) fn is_embedding(&self) -> bool {
        self.kind == Kind::Embedding
    }
}

/// Every rank-2 parameter of the base, in the module's order; parameters of adapters are left out.
pub(crate) fn sites<M: Module>(module: &M) -> Vec<Site> {
    let mut finder = Finder::default();
    module.visit(&mut finder);
    finder.sites
}

#[derive(Default)]
struct Finder {
    path: Path,
    sites: Vec<Site>,
}

impl ModuleVisitor for Finder {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D != 2 || self.path.in_reparameterization() {
            return;
        }
        let shape = param.lazy_shape();
        self.sites.push(Site {
            path: self.path.join(),
            d_in: shape[0],
            d_out: shape[1],
            device: param.lazy_device(),
            kind: match self.path.owner() {
                "Struct:Linear" => Kind::Linear,
                "Struct:Embedding" => Kind::Embedding,
                _ => Kind::Other,
            },
        });
    }
}
