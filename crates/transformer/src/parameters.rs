//! Some of a module's parameters, taken out and put in by their paths.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::weigh::cast;

/// What Burn calls the container of what is put onto a weight.
const REPARAMETERIZATION: &str = "Reparameterization";

/// Where a parameter is, or will be once it has values.
pub(crate) fn device_of<const D: usize>(param: &Param<Tensor<D>>) -> Device {
    match param.is_initialized() {
        true => param.base().device(),
        false => param.lazy_device(),
    }
}

/// A parameter as a file of PyTorch's has it.
pub(crate) struct Parameter {
    /// Its shape in the file.
    pub(crate) shape: Vec<usize>,
    /// Whether the file holds its transpose, as for every linear layer.
    transposed: bool,
    /// Row by row, as in the file.
    pub(crate) values: Vec<f32>,
}

impl Parameter {
    /// Values as the file has them, in Burn's order.
    pub(crate) fn in_burns_order(&self, values: &[f32]) -> Vec<f32> {
        match (self.transposed, &self.shape[..]) {
            (true, [rows, columns]) => transpose(values, [*rows, *columns]),
            _ => values.to_vec(),
        }
    }
}

/// The parameters that are wanted by path and container, by path.
pub(crate) fn parameters<M: Module>(
    module: &M,
    wanted: impl Fn(&str, &str) -> bool,
) -> BTreeMap<String, Parameter> {
    let mut collector = Collector {
        path: Vec::new(),
        wanted,
        found: BTreeMap::new(),
    };
    module.visit(&mut collector);
    collector.found
}

/// Exchanges the values of parameters, given in Burn's order by their paths.
pub(crate) fn fill<M: Module>(module: M, values: HashMap<String, Vec<f32>>) -> M {
    let path = Vec::new();
    module.map(&mut Filler { path, values })
}

struct Collector<W> {
    /// Names, each with its container.
    path: Vec<(String, String)>,
    wanted: W,
    found: BTreeMap<String, Parameter>,
}

impl<W: Fn(&str, &str) -> bool> ModuleVisitor for Collector<W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_string(), container.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let path = names.join(".");
        let container = self.path.last().map_or("", |(_, container)| container);
        // What is put onto a weight is an adapter's.
        let mut containers = self.path.iter().map(|(_, container)| container);
        if containers.any(|container| container == REPARAMETERIZATION) {
            return;
        }
        if !(self.wanted)(&path, container) {
            return;
        }
        let transposed = D == 2 && container == "Struct:Linear";
        let mut value = cast(param.base(), DType::F32);
        if transposed {
            value = value.swap_dims(0, 1);
        }
        let parameter = Parameter {
            shape: value.dims().to_vec(),
            transposed,
            values: value.into_data().iter::<f32>().collect(),
        };
        self.found.insert(path, parameter);
    }
}

struct Filler {
    path: Vec<String>,
    values: HashMap<String, Vec<f32>>,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&self.path.join(".")) {
            Some(values) => param.map(|old| {
                let data = TensorData::new(values, old.shape());
                let new = Tensor::from_data(data, (&old.device(), old.dtype()));
                // What is trained goes on to be.
                new.set_require_grad(old.is_require_grad())
            }),
            None => param,
        }
    }
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    turned
        .map(|(row, column)| values[row * columns + column])
        .collect()
}
