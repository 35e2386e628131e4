use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

/// A tensor for each parameter, by the parameter's path.
pub type Parameters = BTreeMap<String, TensorData>;

/// The stored value of every float parameter: an adapted weight is shown without its adapters, and they beside it.
pub fn parameters<M: Module>(module: &M) -> Parameters {
    collect(module, None)
}

/// The gradient of every parameter that has one.
pub fn gradients<M: Module>(module: &M, gradients: &Gradients) -> Parameters {
    collect(module, Some(gradients))
}

fn collect<M: Module>(module: &M, gradients: Option<&Gradients>) -> Parameters {
    let mut collector = Collector {
        path: Vec::new(),
        gradients,
        found: Parameters::new(),
    };
    module.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    path: Vec<String>,
    gradients: Option<&'a Gradients>,
    found: Parameters,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match self.gradients {
            None => Some(param.base()),
            Some(gradients) => param.base().grad(gradients),
        };
        if let Some(value) = value {
            let again = self.found.insert(self.path.join("."), value.into_data());
            assert!(again.is_none(), "two parameters at {}", self.path.join("."));
        }
    }
}
