//! The values of what is trained beside an adapter and saved with it: PEFT's `modules_to_save`, mostly a new head, and biases.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};

use crate::beside::Beside;
use crate::lora::cast;
use crate::sites::Path;

/// The names that PEFT gives to heads that classify, whichever of them a model has.
pub const PEFT_HEADS: [&str; 2] = ["classifier", "score"];

/// Whether a parameter lies in a module whose path ends with one of the names, which is PEFT's rule: `classifier` also
/// names a `pre_classifier`.
pub fn is_saved(parameter_path: &str, names: &[String]) -> bool {
    !names.is_empty()
        && parameter_path.match_indices('.').any(|(end, _)| {
            let module = &parameter_path[..end];
            names.iter().any(|name| module.ends_with(name.as_str()))
        })
}

/// A parameter of a saved module.
#[derive(Clone, Debug)]
pub(crate) struct SavedParameter {
    /// Its path.
    pub(crate) path: String,
    /// Its key in an adapter file, without PEFT's prefix.
    pub(crate) file_path: String,
    /// Its shape in an adapter file.
    pub(crate) file_shape: Vec<usize>,
    /// Whether the file holds its transpose, as for every linear layer.
    pub(crate) transposed: bool,
}

/// The parameters that are saved beside an adapter, in the module's order.
pub(crate) fn saved_parameters<M: Module>(module: &M, beside: &Beside<'_>) -> Vec<SavedParameter> {
    let mut finder = Finder::new(beside, false);
    module.visit(&mut finder);
    finder.found.into_iter().map(|(saved, _)| saved).collect()
}

/// The parameters that are saved beside an adapter with their values as f32, in Burn's order.
pub(crate) fn saved_values<M: Module>(
    module: &M,
    beside: &Beside<'_>,
) -> Vec<(SavedParameter, Vec<f32>)> {
    let mut finder = Finder::new(beside, true);
    module.visit(&mut finder);
    finder.found
}

struct Finder<'a> {
    beside: &'a Beside<'a>,
    with_values: bool,
    path: Path,
    found: Vec<(SavedParameter, Vec<f32>)>,
}

impl<'a> Finder<'a> {
    fn new(beside: &'a Beside<'a>, with_values: bool) -> Self {
        Self {
            beside,
            with_values,
            path: Path::default(),
            found: Vec::new(),
        }
    }
}

impl ModuleVisitor for Finder<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.path.in_reparameterization() || !self.beside.holds(&path) {
            return;
        }
        let transposed = D == 2 && self.path.owner() == "Struct:Linear";
        let mut file_shape = param.lazy_shape().to_vec();
        if transposed {
            file_shape.reverse();
        }
        let saved = SavedParameter {
            file_path: self.beside.file_path(&path),
            path,
            file_shape,
            transposed,
        };
        let values = match self.with_values {
            true => cast(param.base(), DType::F32)
                .into_data()
                .iter::<f32>()
                .collect(),
            false => Vec::new(),
        };
        self.found.push((saved, values));
    }
}

/// Exchanges the values of parameters, given in Burn's order by their paths.
pub(crate) fn replace_values<M: Module>(module: M, values: HashMap<String, Vec<f32>>) -> M {
    module.map(&mut Replacer {
        path: Path::default(),
        values,
    })
}

struct Replacer {
    path: Path,
    values: HashMap<String, Vec<f32>>,
}

impl ModuleMapper for Replacer {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.in_reparameterization() {
            return param;
        }
        match self.values.remove(&self.path.join()) {
            Some(values) => param.map(|old| {
                let data = TensorData::new(values, old.dims());
                Tensor::from_data(data, (&old.device(), old.dtype()))
            }),
            None => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_end_of_a_module_path() {
        let names = ["classifier".to_string()];
        for path in [
            "classifier.weight",
            "classifier.dense.bias",
            "pre_classifier.weight",
            "model.classifier.out_proj.weight",
        ] {
            assert!(is_saved(path, &names), "{path}");
        }
        for path in [
            "bert.pooler.dense.weight",
            "classifiers.weight",
            "classifier",
        ] {
            assert!(!is_saved(path, &names), "{path}");
        }
        assert!(!is_saved("classifier.weight", &[]));
    }
}
