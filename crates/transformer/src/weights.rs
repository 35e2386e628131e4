//! Where a model's parameters come from.
//!
//! Each architecture has one constructor that asks for its parameters by name and shape. The same constructor declares
//! what a checkpoint must hold, reads it, and draws fresh weights, so that no name is written twice.

use std::collections::HashMap;

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, Linear};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora_kernels::side_by_side;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checkpoint::{Checkpoint, Entry};
use crate::error::LoadError;
use crate::load::{LoadOptions, LoadReport};
use crate::named::Named;
use crate::norm::{LayerNorm, RmsNorm};
use crate::reader::{Outcome, Reader};

/// A parameter as a checkpoint holds it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) path: String,
    /// The shape in memory.
    pub(crate) shape: Vec<usize>,
    /// Whether the file holds the transpose: PyTorch's linear layers are `[d_out, d_in]`, Burn's `[d_in, d_out]`.
    pub(crate) transposed: bool,
    fresh: Fresh,
}

impl Key {
    /// The shape in the file.
    pub(crate) fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }
}

/// What a parameter holds before any training.
#[derive(Debug, Clone, Copy)]
enum Fresh {
    /// Normally distributed with this standard deviation.
    Normal(f64),
    Zeros,
    Ones,
}

enum Source<'a> {
    /// Notes what is asked for and allocates nothing.
    Declare(Vec<Key>),
    /// A checkpoint.
    Read(Box<Reader<'a>>),
    /// Nothing: every parameter starts fresh.
    Draw,
}

/// Hands a constructor its parameters, all of them frozen.
pub(crate) struct Weights<'a> {
    source: Source<'a>,
    dtype: DType,
    device: Device,
    /// The standard deviation of fresh matrices.
    std: f64,
    /// What fresh matrices are drawn from.
    rng: Option<Box<ChaCha8Rng>>,
}

impl<'a> Weights<'a> {
    pub(crate) fn declare(device: &Device) -> Self {
        Self {
            source: Source::Declare(Vec::new()),
            dtype: DType::F32,
            device: device.clone(),
            std: 0.0,
            rng: None,
        }
    }

    /// Reads the declared keys that were found in a checkpoint, each under its path. Call [`Self::finish`] afterwards.
    ///
    /// `std` is the standard deviation of fresh rows and matrices.
    pub(crate) fn read(
        checkpoint: &'a Checkpoint,
        found: HashMap<String, &'a Entry>,
        options: &'a LoadOptions,
        std: f64,
    ) -> Self {
        Self {
            source: Source::Read(Box::new(Reader::new(checkpoint, found, options, std))),
            dtype: options.dtype,
            device: options.device.clone(),
            std,
            rng: None,
        }
    }

    pub(crate) fn draw(std: f64, seed: u64, device: &Device) -> Self {
        let weights = Self {
            source: Source::Draw,
            dtype: DType::F32,
            device: device.clone(),
            std: 0.0,
            rng: None,
        };
        weights.with_fresh(std, seed)
    }

    /// Draws what the source does not hold.
    pub(crate) fn with_fresh(mut self, std: f64, seed: u64) -> Self {
        self.std = std;
        self.rng = Some(Box::new(ChaCha8Rng::seed_from_u64(seed)));
        self
    }

    /// What the constructor asked for.
    pub(crate) fn into_keys(self) -> Vec<Key> {
        match self.source {
            Source::Declare(keys) => keys,
            _ => Vec::new(),
        }
    }

    /// Changes the standard deviation of fresh matrices.
    pub(crate) fn set_std(&mut self, std: f64) {
        self.std = std;
    }

    /// What was read, or everything that went wrong since; then the model that was built is none.
    pub(crate) fn finish(self) -> Result<LoadReport, LoadError> {
        match self.source {
            Source::Read(reader) => reader.finish(),
            _ => Ok(LoadReport::default()),
        }
    }

    /// The standard deviation of fresh matrices.
    pub(crate) fn std(&self) -> f64 {
        self.std
    }

    /// A linear layer stored `[d_out, d_in]`, as PyTorch's `nn.Linear`.
    pub(crate) fn linear(&mut self, path: &str, d_in: usize, d_out: usize, bias: bool) -> Linear {
        Linear {
            weight: self.matrix(path, [d_in, d_out], true, self.std),
            bias: bias.then(|| self.vector(path, "bias", d_out, Fresh::Zeros)),
        }
    }

    /// A linear layer with a bias, stored `[d_in, d_out]` as GPT-2's `Conv1D`.
    pub(crate) fn conv1d(&mut self, path: &str, d_in: usize, d_out: usize, std: f64) -> Linear {
        Linear {
            weight: self.matrix(path, [d_in, d_out], false, std),
            bias: Some(self.vector(path, "bias", d_out, Fresh::Zeros)),
        }
    }

    /// Layers of the same input, their weights and their biases laid out so that one product has all of them, if they are there.
    pub(crate) fn side_by_side<const N: usize>(
        &self,
        layers: [Named<Linear>; N],
    ) -> [Named<Linear>; N] {
        if layers.iter().any(|layer| !layer.weight.is_initialized()) {
            return layers;
        }
        let mut weights = self.laid(layers.iter().map(|layer| &layer.weight));
        let mut biases = self.laid(layers.iter().filter_map(|layer| layer.bias.as_ref()));
        layers.map(|layer| {
            layer.map_inner(|layer| Linear {
                weight: exchanged(layer.weight, &mut weights),
                bias: layer.bias.map(|bias| exchanged(bias, &mut biases)),
            })
        })
    }

    fn laid<'p, const D: usize>(
        &self,
        params: impl Iterator<Item = &'p Param<Tensor<D>>>,
    ) -> std::vec::IntoIter<Tensor<D>> {
        let tensors: Vec<Tensor<D>> = params.map(Param::val).collect();
        let laid = self
            .device
            .memory_persistent_allocations(tensors, side_by_side);
        laid.into_iter()
    }

    pub(crate) fn embedding(&mut self, path: &str, n: usize, d: usize) -> Embedding {
        Embedding {
            weight: self.matrix(path, [n, d], false, self.std),
        }
    }

    pub(crate) fn rms_norm(&mut self, path: &str, d: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: self.vector(path, "weight", d, Fresh::Ones),
            eps,
        }
    }

    /// An RMS norm whose weight is stored as its difference from 1.
    pub(crate) fn rms_norm_from_one(&mut self, path: &str, d: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: self.vector(path, "weight", d, Fresh::Zeros),
            eps,
        }
    }

    pub(crate) fn layer_norm(&mut self, path: &str, d: usize, eps: f64) -> LayerNorm {
        LayerNorm {
            weight: self.vector(path, "weight", d, Fresh::Ones),
            bias: Some(self.vector(path, "bias", d, Fresh::Zeros)),
            eps,
        }
    }

    /// A layer norm without bias.
    pub(crate) fn scaling_norm(&mut self, path: &str, d: usize, eps: f64) -> LayerNorm {
        LayerNorm {
            weight: self.vector(path, "weight", d, Fresh::Ones),
            bias: None,
            eps,
        }
    }

    /// A vector that starts at 0.
    pub(crate) fn zeros(&mut self, path: &str, name: &str, d: usize) -> Param<Tensor<1>> {
        self.vector(path, name, d, Fresh::Zeros)
    }

    /// The weights of a convolution, in PyTorch's order.
    pub(crate) fn kernel(&mut self, path: &str, shape: [usize; 3]) -> Param<Tensor<3>> {
        self.parameter(Key {
            path: format!("{path}.weight"),
            shape: shape.to_vec(),
            transposed: false,
            fresh: Fresh::Normal(self.std),
        })
    }

    fn matrix(
        &mut self,
        path: &str,
        shape: [usize; 2],
        transposed: bool,
        std: f64,
    ) -> Param<Tensor<2>> {
        self.parameter(Key {
            path: format!("{path}.weight"),
            shape: shape.to_vec(),
            transposed,
            fresh: Fresh::Normal(std),
        })
    }

    fn vector(&mut self, path: &str, name: &str, d: usize, fresh: Fresh) -> Param<Tensor<1>> {
        self.parameter(Key {
            path: match path.is_empty() {
                true => name.to_owned(),
                false => format!("{path}.{name}"),
            },
            shape: vec![d],
            transposed: false,
            fresh,
        })
    }

    fn parameter<const D: usize>(&mut self, key: Key) -> Param<Tensor<D>> {
        let stored = match &mut self.source {
            Source::Declare(keys) => {
                let shape = key.shape.clone();
                keys.push(key);
                return placeholder(shape, &self.device);
            }
            Source::Read(reader) => match reader.read(&key) {
                Outcome::Read(data) => Some(data),
                Outcome::Absent => None,
                Outcome::Failed => return placeholder(key.shape, &self.device),
            },
            Source::Draw => None,
        };
        let data = match (stored, &mut self.rng) {
            (Some(data), _) => data,
            (None, Some(rng)) => TensorData::new(draw(&key, rng), key.shape),
            // The declared keys and those asked for come from one constructor.
            (None, None) => unreachable!("{} was not declared", key.path),
        };
        let options = (&self.device, self.dtype);
        let tensor = self
            .device
            .memory_persistent_allocations(data, |data| Tensor::<D>::from_data(data, options));
        // An untracked tensor makes a frozen parameter.
        Param::initialized(ParamId::new(), tensor)
    }
}

/// A parameter with the next of these as its value.
fn exchanged<const D: usize>(
    param: Param<Tensor<D>>,
    values: &mut impl Iterator<Item = Tensor<D>>,
) -> Param<Tensor<D>> {
    param.map(|value| values.next().unwrap_or(value))
}

/// A parameter that has a shape and no values; asking for them gives zeros.
fn placeholder<const D: usize>(shape: Vec<usize>, device: &Device) -> Param<Tensor<D>> {
    let zeros = shape.clone();
    Param::uninitialized(
        ParamId::new(),
        move |device, _| Tensor::zeros(zeros, device),
        device.clone(),
        false,
        shape.into(),
    )
}

fn draw(key: &Key, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let count = key.shape.iter().product();
    match key.fresh {
        Fresh::Zeros => vec![0.0; count],
        Fresh::Ones => vec![1.0; count],
        Fresh::Normal(std) => normal(std as f32, count, rng),
    }
}

/// Normally distributed numbers by the Box-Muller transform, two from each pair of uniform ones.
pub(crate) fn normal(std: f32, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // In (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt() * std;
        let (sin, cos) = (rng.random::<f32>() * std::f32::consts::TAU).sin_cos();
        values.extend([radius * cos, radius * sin]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_matrices_have_the_asked_spread() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values = normal(0.02, 100_001, &mut rng);
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let var = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        assert_eq!(values.len(), 100_001);
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((var.sqrt() - 0.02).abs() < 3e-4, "{}", var.sqrt());
    }

    #[test]
    fn declaring_allocates_nothing() {
        let mut weights = Weights::declare(&Device::flex());
        // A petabyte, were it built.
        let linear = weights.linear("big", 1 << 24, 1 << 24, false);
        assert!(!linear.weight.is_initialized());
        let keys = weights.into_keys();
        assert_eq!(keys[0].path, "big.weight");
        assert_eq!(keys[0].shape, [1 << 24, 1 << 24]);
    }
}
