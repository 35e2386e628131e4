//! The options that say where and in which format a model computes.

use burn::tensor::{DType, Device};
use burn_lora::train::{DeviceChoice, require_dtype};
use clap::{Args, ValueEnum};

use crate::failure::Failure;

/// Where, and in which number format.
#[derive(Debug, Args)]
pub struct Compute {
    /// flex, ndarray, wgpu, vulkan, metal, cuda, rocm, with an index if there are several (cuda:1); must be built, as a
    /// cargo feature. By default BURN_DEVICE, then the fastest built
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Number format of the model
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub dtype: Precision,
}

/// Number formats of a model.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Precision {
    /// 32 bits
    F32,
    /// 16 bits, the range of f32
    Bf16,
    /// 16 bits, overflows above 65,504
    F16,
}

impl Precision {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

impl Compute {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// A device that is unknown, not built or not there, or that does not compute in the format.
    pub fn open(&self) -> Result<(DeviceChoice, Device), Failure> {
        let choice = DeviceChoice::resolve(self.device.as_deref())?;
        let device = choice.open()?;
        require_dtype(choice, &device, self.dtype.into())?;
        Ok((choice, device))
    }
}
