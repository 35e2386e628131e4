//! Where the tensors of a planned adapter start, and the method that they make.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};

use crate::config::LoraConfig;
use crate::init::{Draw, LoraInit, parameter};
use crate::lora::{Lora, cast};
use crate::method::{
    AdaLora, Dense, Dora, Ia3, LoHa, LoKr, LoKrShape, Method, MethodConfig, Parts, Projections,
    Second, TiedBias, Tokens, Vera, column_norms,
};
use crate::plan::Planned;
use crate::view::Kind;

/// What is put onto one parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Blueprint {
    Lora {
        is_a_frozen: bool,
    },
    Dora,
    Vera {
        d_initial: f64,
    },
    LoHa {
        has_core: bool,
    },
    LoKr(LoKrShape),
    AdaLora {
        start_rank: usize,
    },
    Ia3 {
        inputs: bool,
    },
    TiedBias {
        weight: String,
    },
    Dense {
        key: String,
        scale: f64,
    },
    Tokens {
        indices: Vec<usize>,
        is_nested: bool,
    },
    Parts(Vec<Range<usize>>),
}

impl Planned {
    /// Whether the start depends on the weight.
    pub(crate) fn needs_base(&self) -> bool {
        matches!(self.blueprint, Blueprint::Dora | Blueprint::Tokens { .. })
    }

    /// Where the tensors start.
    ///
    /// Drawn on the host, so that a seed means the same adapter on every device.
    pub(crate) fn initial(&self, config: &LoraConfig, base: Option<&Tensor<2>>) -> Vec<Vec<f32>> {
        let mut draw = Draw::new(config.seed, self.index);
        let is_random = config.init == LoraInit::Random;
        let [d_in, d_out] = self.view.dims();
        let r = self.rank;
        let shapes: Vec<usize> = self
            .specs()
            .iter()
            .map(|spec| spec.shape.iter().product())
            .collect();
        match &self.blueprint {
            Blueprint::Lora { .. } | Blueprint::Parts(_) => self.initial_factors(config, &mut draw),
            Blueprint::Dora => {
                let mut values = self.initial_factors(config, &mut draw);
                let magnitude = base.map(|base| self.magnitude(config, &values, base));
                values.push(magnitude.unwrap_or_else(|| vec![1.0; d_out]));
                values
            }
            Blueprint::Vera { d_initial } => vec![
                match is_random {
                    true => draw.uniform(d_out, 1),
                    false => vec![0.0; d_out],
                },
                vec![*d_initial as f32; r],
            ],
            // Of LoHa the second down-projection starts at 0, of LoKr the first factor.
            Blueprint::LoHa { .. } | Blueprint::LoKr(_) => {
                let silent = match &self.blueprint {
                    Blueprint::LoHa { .. } => 3,
                    _ => 0,
                };
                let specs = self.specs();
                let values = specs.iter().zip(&shapes).enumerate();
                let values =
                    values.map(
                        |(place, (spec, count))| match place == silent && !is_random {
                            true => vec![0.0; *count],
                            false => draw.uniform(*count, spec.fan_in()),
                        },
                    );
                values.collect()
            }
            Blueprint::AdaLora { .. } => {
                let a = draw.normal(shapes[0], 0.02);
                let e = match is_random {
                    true => draw.normal(r, 100.0),
                    false => vec![0.0; r],
                };
                vec![a, e, draw.normal(shapes[2], 0.02)]
            }
            Blueprint::Ia3 { .. } => vec![match is_random {
                true => draw
                    .normal(shapes[0], 0.5)
                    .iter()
                    .map(|v| 1.0 + v)
                    .collect(),
                false => vec![1.0; shapes[0]],
            }],
            Blueprint::TiedBias { .. } => Vec::new(),
            Blueprint::Dense { .. } => vec![match is_random {
                true => draw.uniform(shapes[0], d_in),
                false => vec![0.0; shapes[0]],
            }],
            Blueprint::Tokens { indices, .. } => vec![match (is_random, base) {
                (false, Some(base)) => rows(base, indices),
                _ => draw.normal(shapes[0], 1.0),
            }],
        }
    }

    /// Both factors; of an embedding A is 0 and B normal, of all else A is drawn and B 0.
    fn initial_factors(&self, config: &LoraConfig, draw: &mut Draw) -> Vec<Vec<f32>> {
        let [d_in, d_out] = self.view.dims();
        if let Blueprint::Parts(columns) = &self.blueprint {
            return self.initial_parts(config, draw, columns);
        }
        if self.view.kind == Kind::Embedding && config.init != LoraInit::Random {
            return vec![
                vec![0.0; d_in * self.rank],
                draw.normal(self.rank * d_out, 1.0),
            ];
        }
        let (a, b) = draw.factors(&config.init, [d_in, self.rank, d_out]);
        vec![a, b]
    }

    /// The factors of the parts side by side, as a file would have them.
    fn initial_parts(
        &self,
        config: &LoraConfig,
        draw: &mut Draw,
        columns: &[Range<usize>],
    ) -> Vec<Vec<f32>> {
        let [d_in, d_out] = self.view.dims();
        let each = self.rank / columns.len();
        let mut joined = [vec![0.0; d_in * self.rank], vec![0.0; self.rank * d_out]];
        for (place, columns) in columns.iter().enumerate() {
            let (a, b) = draw.factors(&config.init, [d_in, each, columns.len()]);
            for (row, values) in a.chunks(each).enumerate() {
                joined[0][row * self.rank + place * each..][..each].copy_from_slice(values);
            }
            for (k, values) in b.chunks(columns.len()).enumerate() {
                let start = (place * each + k) * d_out + columns.start;
                joined[1][start..][..columns.len()].copy_from_slice(values);
            }
        }
        joined.into()
    }

    /// The lengths of the columns of `W + s A B`.
    fn magnitude(&self, config: &LoraConfig, values: &[Vec<f32>], base: &Tensor<2>) -> Vec<f32> {
        let device = base.device();
        let specs = self.specs();
        let factor = |place: usize| {
            let data = TensorData::new(values[place].clone(), specs[place].shape);
            Tensor::<2>::from_data(data, (&device, DType::F32))
        };
        let delta = factor(0).matmul(factor(1)).mul_scalar(self.scale(config));
        let direction = cast(base.clone(), DType::F32) + delta;
        column_norms(direction).into_data().iter::<f32>().collect()
    }

    /// What the change is multiplied by.
    pub(crate) fn scale(&self, config: &LoraConfig) -> f64 {
        match &self.blueprint {
            Blueprint::Dense { scale, .. } => *scale,
            Blueprint::AdaLora { start_rank } => config.scale(*start_rank, self.alpha),
            Blueprint::Parts(columns) => config.scale(self.rank / columns.len(), self.alpha),
            _ => config.scale(self.rank, self.alpha),
        }
    }

    /// The method of these values, trainable. `placed` has what was built before, by the paths of the parameters.
    pub(crate) fn build(
        &self,
        values: Vec<Vec<f32>>,
        config: &LoraConfig,
        shared: Option<&Projections>,
        placed: &HashMap<String, Method>,
    ) -> Option<Method> {
        let device = &self.device;
        let specs = self.specs();
        let mut tensors = values.into_iter().zip(&specs);
        let mut next = || {
            let (values, spec) = tensors.next()?;
            Some(parameter(values, spec.shape, device))
        };
        let (scale, dropout) = (self.scale(config), config.dropout);
        let lora = |a: Param<Tensor<2>>, b: Param<Tensor<2>>| Lora {
            a,
            b,
            alpha: self.alpha,
            scale,
            dropout,
            start: None,
        };
        Some(match &self.blueprint {
            Blueprint::Lora { is_a_frozen } => {
                let (a, b) = (next()?, next()?);
                Method::Lora(lora(a.set_require_grad(!is_a_frozen), b))
            }
            Blueprint::Dora => Method::Dora(Dora {
                lora: lora(next()?, next()?),
                magnitude: next()?,
            }),
            Blueprint::Vera { .. } => {
                let [a, b] = shared?.of(self.view.dims(), device);
                Method::Vera(Vera {
                    lambda_b: next()?,
                    lambda_d: next()?,
                    a,
                    b,
                    dropout,
                })
            }
            Blueprint::LoHa { has_core } => Method::LoHa(LoHa {
                b1: next()?,
                a1: next()?,
                b2: next()?,
                a2: next()?,
                t1: if *has_core { Some(next()?) } else { None },
                t2: if *has_core { Some(next()?) } else { None },
                scale,
                dropout: config.method.delta_dropout(),
            }),
            Blueprint::LoKr(shape) => {
                let mut several =
                    |count: usize| (0..count).map(|_| next()).collect::<Option<Vec<_>>>();
                let is_line = shape.second == Second::Whole && self.view.shape.len() == 3;
                Method::LoKr(LoKr {
                    w1: several(if shape.split_first { 2 } else { 1 })?,
                    w2: several(match shape.second {
                        Second::Whole => 1,
                        Second::Factors => 2,
                        Second::Core => 3,
                    })?,
                    rank: self.rank,
                    scale,
                    line_kernel: is_line.then(|| self.view.kernel()),
                    dropout: config.method.delta_dropout(),
                })
            }
            Blueprint::AdaLora { .. } => Method::AdaLora(AdaLora {
                a: next()?,
                e: next()?,
                b: next()?,
                scale,
                dropout,
                config: match &config.method {
                    MethodConfig::AdaLora(adalora) => Arc::new(adalora.clone()),
                    _ => Arc::default(),
                },
            }),
            Blueprint::Ia3 { inputs } => Method::Ia3(Ia3 {
                scales: next()?,
                inputs: *inputs,
                kernel: self.view.kernel().max(1),
            }),
            Blueprint::TiedBias { weight } => match placed.get(weight)? {
                Method::Ia3(ia3) => Method::TiedBias(TiedBias::of(ia3)),
                _ => return None,
            },
            Blueprint::Dense { key, .. } => Method::Dense(Dense {
                delta: next()?,
                scale,
                of_lora: key == "lora_B.bias",
            }),
            Blueprint::Tokens { indices, .. } => Method::Tokens(Tokens {
                rows: next()?,
                indices: indices.clone(),
            }),
            Blueprint::Parts(columns) => {
                let (a, b) = (next()?.val(), next()?.val());
                Method::Parts(self.parts(columns, [a, b], lora))
            }
        })
    }

    /// Cuts the product that a file holds into its parts.
    fn parts(
        &self,
        columns: &[Range<usize>],
        [a, b]: [Tensor<2>; 2],
        lora: impl Fn(Param<Tensor<2>>, Param<Tensor<2>>) -> Lora,
    ) -> Parts {
        let [d_in, d_out] = self.view.dims();
        let each = self.rank / columns.len();
        let parts = columns.iter().enumerate().map(|(place, columns)| {
            let ranks = place * each..(place + 1) * each;
            let a = a.clone().slice([0..d_in, ranks.clone()]);
            let b = b.clone().slice([ranks, columns.clone()]);
            let own = |tensor: Tensor<2>| {
                let shape = tensor.dims();
                let values = tensor.into_data().iter::<f32>().collect();
                parameter(values, shape, &self.device)
            };
            lora(own(a), own(b))
        });
        Parts {
            parts: parts.collect(),
            columns: columns.to_vec(),
            width: d_out,
        }
    }

    /// Whether a method is what is planned; in words what is not.
    pub(crate) fn describes(&self, method: &Method, config: &LoraConfig) -> Result<(), String> {
        let layer = self.module_path();
        let is_same_kind = matches!(
            (&self.blueprint, method),
            (Blueprint::Lora { .. }, Method::Lora(_))
                | (Blueprint::Dora, Method::Dora(_))
                | (Blueprint::Vera { .. }, Method::Vera(_))
                | (Blueprint::LoHa { .. }, Method::LoHa(_))
                | (Blueprint::LoKr(_), Method::LoKr(_))
                | (Blueprint::AdaLora { .. }, Method::AdaLora(_))
                | (Blueprint::Ia3 { .. }, Method::Ia3(_))
                | (Blueprint::TiedBias { .. }, Method::TiedBias(_))
                | (Blueprint::Dense { .. }, Method::Dense(_))
                | (Blueprint::Tokens { .. }, Method::Tokens(_))
                | (Blueprint::Parts(_), Method::Parts(_))
        );
        if !is_same_kind {
            return Err(format!(
                "{layer} has an adapter of the method {}, the configuration means {}",
                method.name(),
                config.method
            ));
        }
        if let (Some(rank), Some(scale)) = (method.rank(), method.scale()) {
            let meant = self.scale(config);
            if (rank, scale) != (self.rank, meant) {
                return Err(format!(
                    "{layer} has rank {rank} and scale {scale}, the configuration means rank {} and scale {meant}",
                    self.rank
                ));
            }
        }
        if matches!(method, Method::Parts(_)) {
            return Ok(());
        }
        let is = |shape: [usize; 2], param: &Param<Tensor<2>>| param.lazy_shape().to_vec() == shape;
        let specs = self.specs();
        let parameters = method.inner().parameters();
        let fits = specs.len() == parameters.len()
            && specs
                .iter()
                .zip(parameters)
                .all(|(spec, param)| is(spec.shape, param));
        match fits {
            true => Ok(()),
            false => Err(format!(
                "{layer} has parameters of other shapes than the configuration means"
            )),
        }
    }
}

/// Some rows of a matrix, as f32.
fn rows(matrix: &Tensor<2>, indices: &[usize]) -> Vec<f32> {
    let [_, columns] = matrix.dims();
    let chosen = indices
        .iter()
        .map(|index| matrix.clone().slice([*index..index + 1, 0..columns]));
    let chosen: Vec<Tensor<2>> = chosen.collect();
    let values = cast(Tensor::cat(chosen, 0), DType::F32).into_data();
    values.iter::<f32>().collect()
}

/// The matrix of a parameter as f32 on the host, for a file.
pub(crate) fn host(tensor: Tensor<2>) -> Vec<f32> {
    cast(tensor, DType::F32).into_data().iter::<f32>().collect()
}
