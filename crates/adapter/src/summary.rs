use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::method::Method;
use crate::reach::adapted_weights;
use crate::sites::Path;

/// One adapted layer in a [`ParameterSummary`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterRow {
    /// Path of the layer.
    pub layer: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Its method.
    pub method: &'static str,
    /// Input and output width of the layer.
    pub shape: [usize; 2],
    /// Rank of the adapter; 0 where its method has none.
    pub rank: usize,
    /// What its product is multiplied by; 1 where its method has no such number.
    pub scale: f64,
    /// Parameters of the adapter.
    pub parameters: usize,
}

/// How many parameters a module has and trains.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSummary {
    /// Parameters that receive gradients.
    pub trainable: usize,
    /// All parameters, the adapters' included.
    pub total: usize,
    /// The adapted layers.
    pub rows: Vec<AdapterRow>,
}

/// Counts a module's parameters and lists its adapters.
pub fn summary<M: Module>(module: &M) -> ParameterSummary {
    let mut counter = Counter::default();
    module.visit(&mut counter);
    let rows = adapted_weights(module).into_iter().flat_map(|weight| {
        let shape = weight.base.dims();
        let layer = weight.module_path().to_string();
        let row = move |adapter: &crate::NamedAdapter| AdapterRow {
            layer: layer.clone(),
            adapter: adapter.name.clone(),
            shape,
            method: adapter.method.name(),
            rank: adapter.method.rank().unwrap_or(0),
            scale: adapter.method.scale().unwrap_or(1.0),
            parameters: adapter.method.num_parameters(),
        };
        let adapters = weight.stack.adapters().iter();
        // A bias that is scaled with its weight has no parameter of its own.
        let own = adapters.filter(|adapter| !matches!(adapter.method, Method::TiedBias(_)));
        own.map(row).collect::<Vec<_>>()
    });
    ParameterSummary {
        rows: rows.collect(),
        ..counter.summary
    }
}

struct Counter {
    summary: ParameterSummary,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            summary: ParameterSummary {
                trainable: 0,
                total: 0,
                rows: Vec::new(),
            },
        }
    }
}

/// The paths of the parameters of the base that are trained: those beside an adapter, once one is attached.
pub(crate) fn trained_of_base<M: Module>(module: &M) -> Vec<String> {
    #[derive(Default)]
    struct Finder {
        path: Path,
        found: Vec<String>,
    }
    impl ModuleVisitor for Finder {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.path.in_reparameterization() && is_trainable(param) {
                self.found.push(self.path.join());
            }
        }
    }
    let mut finder = Finder::default();
    module.visit(&mut finder);
    finder.found
}

impl ModuleVisitor for Counter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let count = param.lazy_shape().num_elements();
        self.summary.total += count;
        if is_trainable(param) {
            self.summary.trainable += count;
        }
    }
}

/// Whether the parameter has gradients in training. Away from an autodiff device a tensor cannot say so; its parameter
/// remembers, and tells when it is put into training.
fn is_trainable<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    match param.base().is_autodiff() {
        true => param.is_require_grad(),
        false => param.clone().train().is_require_grad(),
    }
}

impl ParameterSummary {
    /// The share of parameters that are trained, in percent.
    pub fn trainable_percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.total.max(1) as f64
    }

    /// The counts in the line that users of PEFT know.
    pub fn line(&self) -> String {
        format!(
            "trainable params: {} || all params: {} || trainable%: {:.4}",
            thousands(self.trainable),
            thousands(self.total),
            self.trainable_percent()
        )
    }
}

impl fmt::Display for ParameterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.layer.len()).max();
        let width = width.unwrap_or(0).max("layer".len());
        if !self.rows.is_empty() {
            let (shape, rank, scale) = ("shape", "rank", "scale");
            writeln!(
                f,
                "{:width$}  {shape:>14}  {rank:>5}  {scale:>7}  parameters",
                "layer"
            )?;
        }
        for row in &self.rows {
            writeln!(
                f,
                "{:width$}  {:>14}  {:>5}  {:>7}  {:>10}",
                row.layer,
                format!("{} x {}", row.shape[0], row.shape[1]),
                row.rank,
                format!("{:.4}", row.scale)
                    .trim_end_matches('0')
                    .trim_end_matches('.'),
                thousands(row.parameters),
            )?;
        }
        f.write_str(&self.line())
    }
}

/// `1234567` as `1,234,567`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_that_peft_prints() {
        let summary = ParameterSummary {
            trainable: 294_912,
            total: 124_734_720,
            rows: Vec::new(),
        };
        assert_eq!(
            summary.line(),
            "trainable params: 294,912 || all params: 124,734,720 || trainable%: 0.2364"
        );
    }
}
