//! What a module holds: the path, shape and owner of each of its parameters.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::view::{Kind, View};

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

/// A parameter that an adapter could go onto.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Path of the parameter.
    pub(crate) path: String,
    pub(crate) view: View,
    pub(crate) device: Device,
}

impl Site {
    pub(crate) fn module_path(&self) -> &str {
        module_path(&self.path)
    }

    /// The path of the module that holds the parameter, whatever the parameter is called.
    pub(crate) fn owner_path(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(owner, _)| owner)
    }

    pub(crate) fn is_linear(&self) -> bool {
        self.view.kind == Kind::Linear
    }

    pub(crate) fn is_embedding(&self) -> bool {
        self.view.kind == Kind::Embedding
    }

    /// Whether it is a vector: a bias, or a norm's weight.
    pub(crate) fn is_vector(&self) -> bool {
        self.view.shape.len() < 2
    }
}

/// Every float parameter of the base, in the module's order; parameters of adapters are left out.
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
        if self.path.in_reparameterization() {
            return;
        }
        let shape = param.lazy_shape().to_vec();
        let kind = match (self.path.owner(), shape.len()) {
            ("Struct:Linear", 2) => Kind::Linear,
            ("Struct:Linear", 1) => Kind::Bias,
            ("Struct:Embedding", 2) => Kind::Embedding,
            (_, 0 | 1) => Kind::Vector,
            (_, 2) => Kind::Other,
            _ => Kind::Conv,
        };
        self.sites.push(Site {
            path: self.path.join(),
            view: View { kind, shape },
            device: param.lazy_device(),
        });
    }
}
