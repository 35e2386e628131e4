use std::str::FromStr;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{AdapterError, nearest};
use crate::initial::{INITIALIZATIONS, Initialization};

/// How the parameters of a fresh adapter start.
///
/// A word chooses it: `"gaussian".parse()`. `default` and `gaussian` are drawn; the others are those of
/// [`Initialization`], by PEFT's values of `init_lora_weights`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LoraInit {
    /// A is Kaiming-uniform with `a = sqrt(5)`, which is `U(-1/sqrt(d_in), 1/sqrt(d_in))`; B is zero (PEFT's default). Of an
    /// embedding A is zero and B normal. Methods without such factors start as PEFT has them start.
    #[default]
    KaimingUniform,
    /// A is normal with standard deviation `1 / r`; B is zero.
    Gaussian,
    /// All parameters random, so that the adapter changes the output at once. For tests of what follows.
    Random,
    /// From the weights, the activations or the gradients. [`attach`](crate::attach) does those that look at the weights only;
    /// the others need evidence ([`attach_initialized`](crate::attach_initialized)).
    Informed(Initialization),
}

impl From<Initialization> for LoraInit {
    fn from(initialization: Initialization) -> Self {
        Self::Informed(initialization)
    }
}

impl FromStr for LoraInit {
    type Err = AdapterError;

    fn from_str(word: &str) -> Result<Self, AdapterError> {
        let word = word.trim();
        match word {
            // PEFT's own value is `true`.
            "default" | "true" => return Ok(Self::KaimingUniform),
            "gaussian" => return Ok(Self::Gaussian),
            _ => {}
        }
        Initialization::parse(word)
            .map(Self::Informed)
            .ok_or_else(|| {
                let words: Vec<&str> = INITIALIZATIONS.iter().map(|info| info.word).collect();
                let hint = nearest(word, words.iter().copied());
                let hint =
                    hint.map_or(String::new(), |word| format!(" (did you mean \"{word}\"?)"));
                AdapterError::Config {
                    faults: vec![format!(
                        "there is no initialization \"{word}\"{hint}; there are {}",
                        words.join(", ")
                    )],
                }
            })
    }
}

/// Random values of one adapted weight.
///
/// Drawn on the host, so that a seed means the same adapter on every device.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// `index` numbers the adapted weight.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self(rng)
    }

    /// The factors `[d_in, rank]` and `[rank, d_out]`.
    pub(crate) fn factors(
        &mut self,
        init: &LoraInit,
        [d_in, rank, d_out]: [usize; 3],
    ) -> (Vec<f32>, Vec<f32>) {
        let a = match init {
            LoraInit::KaimingUniform | LoraInit::Random | LoraInit::Informed(_) => {
                self.uniform(d_in * rank, d_in)
            }
            LoraInit::Gaussian => self.normal(d_in * rank, 1.0 / rank as f64),
        };
        let b = match init {
            LoraInit::Random => self.uniform(rank * d_out, rank),
            _ => vec![0.0; rank * d_out],
        };
        (a, b)
    }

    /// Kaiming-uniform values with `a = sqrt(5)`: within `1 / sqrt(fan_in)`.
    pub(crate) fn uniform(&mut self, count: usize, fan_in: usize) -> Vec<f32> {
        let bound = 1.0 / (fan_in as f32).sqrt();
        (0..count)
            .map(|_| self.0.random_range(-bound..bound))
            .collect()
    }

    /// Normal values by the Box-Muller transform.
    pub(crate) fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
        (0..count)
            .map(|_| {
                let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
                let angle = std::f64::consts::TAU * self.0.random::<f64>();
                (std * radius * angle.cos()) as f32
            })
            .collect()
    }
}

/// A trainable f32 parameter, whatever the device's default dtype.
pub(crate) fn parameter(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    let data = TensorData::new(values, shape);
    Param::from_tensor(Tensor::from_data(data, (device, DType::F32)))
}
