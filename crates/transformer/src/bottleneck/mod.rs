//! Bottleneck adapters: small networks with a residual of their own, inside every block.

mod files;
mod host;
mod set;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use crate::activation::Activation;
use crate::adapter_folder::from_trouble;
use crate::error::bullets;
use crate::weigh::cast;
use crate::weights::normal;

pub(crate) use host::Host;
pub use host::WithBottlenecks;
pub(crate) use set::BlockBottlenecks;
use set::BottleneckSet;

/// `x + s (f(x D + d) U + u)`, through a width far below that of the model.
///
/// It trains `2 d_model r + r + d_model` parameters, and cannot be merged: between its two matrices something is not linear. `U` starts at
/// zero, so that a fresh one is the identity. PEFT has none of them; in files `peft_type` is `BOTTLENECK`.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// `[d_model, r]`
    pub down: Param<Tensor<2>>,
    /// `[r]`
    pub down_bias: Param<Tensor<1>>,
    /// `[r, d_model]`
    pub up: Param<Tensor<2>>,
    /// `[d_model]`
    pub up_bias: Param<Tensor<1>>,
    /// What its output is multiplied by.
    pub scale: f64,
    #[module(skip)]
    activation: Activation,
}

/// Where bottlenecks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BottleneckPlacement {
    /// After attention and after the inner layer, both before the residual is added (Houlsby et al., 2019, "Parameter-Efficient
    /// Transfer Learning for NLP").
    Houlsby,
    /// After the inner layer only (Pfeiffer et al., 2020, "AdapterFusion").
    Pfeiffer,
    /// Beside the inner layer, on what goes into it (He et al., 2021, "Towards a Unified View of Parameter-Efficient Transfer
    /// Learning").
    Parallel,
}

/// What bottlenecks are to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BottleneckConfig {
    /// Their inner width `r`.
    pub width: usize,
    /// Where they are.
    pub placement: BottleneckPlacement,
    /// What is between the two matrices.
    pub activation: Activation,
    /// What their output is multiplied by.
    pub scale: f64,
}

impl BottleneckConfig {
    /// Of this width, with ReLU and a scale of 1.
    pub fn new(width: usize, placement: BottleneckPlacement) -> Self {
        Self {
            width,
            placement,
            activation: Activation::Relu,
            scale: 1.0,
        }
    }

    /// How many parameters they have in a model of this width and number of blocks.
    pub fn num_parameters(&self, d_model: usize, layers: usize) -> usize {
        let places = match self.placement {
            BottleneckPlacement::Houlsby => 2,
            BottleneckPlacement::Pfeiffer | BottleneckPlacement::Parallel => 1,
        };
        layers * places * (2 * d_model * self.width + self.width + d_model)
    }

    pub(crate) fn check(&self, d_model: usize) -> Result<(), BottleneckError> {
        let mut faults = Vec::new();
        if self.width == 0 {
            faults.push("their width is 0".to_string());
        }
        if self.width > d_model {
            let width = self.width;
            faults.push(format!(
                "their width {width} exceeds {d_model}, the model's"
            ));
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            faults.push(format!("their scale is {}", self.scale));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(BottleneckError::Config { faults }),
        }
    }
}

/// Bottlenecks that cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BottleneckError {
    /// What was asked for does not fit the model.
    #[error("these bottlenecks are not possible:{}", bullets(.faults))]
    Config {
        /// Every fault.
        faults: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that does not fit the model. The model has no part of it.
    #[error("{} does not fit:{}", .path.display(), bullets(.faults))]
    Folder {
        /// The file that is to blame.
        path: std::path::PathBuf,
        /// Every fault.
        faults: Vec<String>,
    },
}

from_trouble!(BottleneckError);

impl Bottleneck {
    pub(crate) fn init(
        d_model: usize,
        config: &BottleneckConfig,
        device: &Device,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let width = config.width;
        let std = 1.0 / (3.0 * d_model as f32).sqrt();
        let down = normal(std, d_model * width, rng);
        Self {
            down: parameter(down, [d_model, width], device),
            down_bias: parameter(vec![0.0; width], [width], device),
            up: parameter(vec![0.0; width * d_model], [width, d_model], device),
            up_bias: parameter(vec![0.0; d_model], [d_model], device),
            scale: config.scale,
            activation: config.activation,
        }
    }

    /// What it adds, in the dtype of its input.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub fn change(&self, x: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let y = cast(x, DType::F32).matmul(self.down.val().unsqueeze())
            + self.down_bias.val().unsqueeze();
        let y = self.activation.apply(y); // [batch, seq, r]
        let y = y.matmul(self.up.val().unsqueeze()) + self.up_bias.val().unsqueeze();
        cast(y.mul_scalar(self.scale), dtype)
    }

    /// The input with what it adds.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x.clone() + self.change(x)
    }
}

fn parameter<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let data = TensorData::new(values, shape);
    Param::from_tensor(Tensor::from_data(data, (device, DType::F32)))
}
