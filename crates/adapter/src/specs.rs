//! The tensors of a planned adapter, as a file has them and as parameters.

use crate::blueprint::Blueprint;
use crate::method::{LoKrShape, Second};
use crate::plan::Planned;
use crate::view::Kind;

/// One tensor of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorSpec {
    /// Its key behind the path of the layer.
    pub(crate) key: String,
    pub(crate) file_shape: Vec<usize>,
    /// Its shape as a parameter.
    pub(crate) shape: [usize; 2],
    /// Whether a file holds the transpose.
    pub(crate) transposed: bool,
}

impl TensorSpec {
    /// What a number of the layer's output is a sum over, as PyTorch counts it.
    pub(crate) fn fan_in(&self) -> usize {
        self.file_shape.iter().skip(1).product()
    }

    fn new(key: impl Into<String>, file_shape: Vec<usize>, shape: [usize; 2]) -> Self {
        Self {
            key: key.into(),
            file_shape,
            shape,
            transposed: false,
        }
    }

    fn transposed(self) -> Self {
        Self {
            transposed: true,
            ..self
        }
    }
}

impl Planned {
    /// The tensors, in the order of the method's parameters.
    pub(crate) fn specs(&self) -> Vec<TensorSpec> {
        let [d_in, d_out] = self.view.dims();
        let (view, r) = (&self.view, self.rank);
        match &self.blueprint {
            Blueprint::Lora { .. } | Blueprint::Parts(_) => self.factor_specs(),
            Blueprint::Dora => {
                let magnitude = match view.kind {
                    Kind::Conv => {
                        let mut shape = view.output_shape(1);
                        shape.swap(0, 1);
                        shape
                    }
                    _ => vec![d_out],
                };
                let mut specs = self.factor_specs();
                let key = "lora_magnitude_vector";
                specs.push(TensorSpec::new(key, magnitude, [1, d_out]));
                specs
            }
            Blueprint::Vera { .. } => vec![
                TensorSpec::new("vera_lambda_b", vec![d_out], [1, d_out]),
                TensorSpec::new("vera_lambda_d", vec![r], [1, r]),
            ],
            Blueprint::LoHa { has_core: false } => ["hada_w1", "hada_w2"]
                .into_iter()
                .flat_map(|name| {
                    let up = TensorSpec::new(format!("{name}_a"), vec![d_out, r], [r, d_out]);
                    let down = TensorSpec::new(format!("{name}_b"), vec![r, d_in], [d_in, r]);
                    [up.transposed(), down.transposed()]
                })
                .collect(),
            Blueprint::LoHa { has_core: true } => {
                let channels = view.channels();
                let factors = ["hada_w1", "hada_w2"].into_iter().flat_map(|name| {
                    let up = TensorSpec::new(format!("{name}_a"), vec![r, d_out], [r, d_out]);
                    let down = vec![r, channels];
                    let down = TensorSpec::new(format!("{name}_b"), down, [channels, r]);
                    [up, down.transposed()]
                });
                let cores = ["hada_t1", "hada_t2"].map(|name| self.core_spec(name));
                factors.chain(cores).collect()
            }
            Blueprint::LoKr(shape) => self.lokr_specs(shape),
            Blueprint::AdaLora { .. } => vec![
                TensorSpec::new("lora_A", vec![r, d_in], [d_in, r]).transposed(),
                TensorSpec::new("lora_E", vec![r, 1], [1, r]),
                TensorSpec::new("lora_B", vec![d_out, r], [r, d_out]).transposed(),
            ],
            Blueprint::Ia3 { inputs } => {
                let n = self.scaled(*inputs);
                let file = match (view.kind, inputs) {
                    (Kind::Conv, _) => {
                        let mut shape = vec![1; view.shape.len()];
                        shape[1] = n;
                        shape
                    }
                    (_, true) => vec![1, n],
                    (_, false) => vec![n, 1],
                };
                vec![TensorSpec::new("ia3_l", file, [1, n])]
            }
            Blueprint::TiedBias { .. } => Vec::new(),
            Blueprint::Dense { key, .. } => {
                let spec = TensorSpec::new(key, view.shape.clone(), [d_in, d_out]);
                vec![match view.kind {
                    Kind::Conv => spec.transposed(),
                    Kind::Linear => TensorSpec {
                        file_shape: vec![d_out, d_in],
                        ..spec
                    }
                    .transposed(),
                    _ => spec,
                }]
            }
            Blueprint::Tokens { indices, is_nested } => {
                let shape = [indices.len(), d_out];
                let key = match is_nested {
                    true => "token_adapter.trainable_tokens_delta",
                    false => "trainable_tokens_delta",
                };
                vec![TensorSpec::new(key, shape.to_vec(), shape)]
            }
        }
    }

    /// How many channels (IA)3 scales.
    fn scaled(&self, inputs: bool) -> usize {
        let [_, d_out] = self.view.dims();
        match inputs {
            true => self.view.channels(),
            false => d_out,
        }
    }

    fn factor_specs(&self) -> Vec<TensorSpec> {
        let [d_in, d_out] = self.view.dims();
        let r = self.rank;
        let [a, b] = match self.view.kind {
            Kind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
            _ => ["lora_A.weight", "lora_B.weight"],
        };
        vec![
            TensorSpec::new(a, self.view.input_shape(r), [d_in, r]).transposed(),
            TensorSpec::new(b, self.view.output_shape(r), [r, d_out]).transposed(),
        ]
    }

    /// A core of a kernel; PEFT gives one of a `Conv1d` a fourth dimension.
    fn core_spec(&self, name: &str) -> TensorSpec {
        let r = self.rank;
        let mut file = [&[r, r], self.view.kernel_shape()].concat();
        file.resize(file.len().max(4), 1);
        TensorSpec::new(name, file, [r, r * self.view.kernel()])
    }

    fn lokr_specs(&self, shape: &LoKrShape) -> Vec<TensorSpec> {
        let r = self.rank;
        let kernel = self.view.kernel_shape();
        let ([l, k], [m, n]) = (shape.outputs, shape.inputs);
        let width = n * self.view.kernel();
        let pair = |name: &str, rows: usize, columns: usize| {
            [
                TensorSpec::new(format!("{name}_a"), vec![rows, r], [rows, r]),
                TensorSpec::new(format!("{name}_b"), vec![r, columns], [r, columns]),
            ]
        };
        let mut specs = Vec::new();
        match shape.split_first {
            true => specs.extend(pair("lokr_w1", l, m)),
            false => specs.push(TensorSpec::new("lokr_w1", vec![l, m], [l, m])),
        }
        match shape.second {
            Second::Factors => specs.extend(pair("lokr_w2", k, width)),
            Second::Core => specs.extend([
                TensorSpec::new("lokr_w2_a", vec![r, k], [r, k]),
                TensorSpec::new("lokr_w2_b", vec![r, n], [r, n]),
                self.core_spec("lokr_t2"),
            ]),
            Second::Whole => {
                let file = [&[k, n], kernel].concat();
                specs.push(TensorSpec::new("lokr_w2", file, [k, width]));
            }
        }
        specs
    }
}
