/// A backend of Burn that this project builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// Apple GPUs, through wgpu with Metal's own shader compiler.
    Metal,
    /// Vulkan GPUs, through wgpu with SPIR-V.
    Vulkan,
    /// The graphics interface that the machine offers: Vulkan, Metal or DX12.
    Wgpu,
    /// The CPU.
    Flex,
    /// The CPU, by way of the `ndarray` crate.
    NdArray,
}

impl Backend {
    /// All backends, the fastest first: the order in which a run without a wish picks one.
    pub const BY_PRIORITY: [Self; 7] = [
        Self::Cuda,
        Self::Rocm,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
        Self::Flex,
        Self::NdArray,
    ];

    /// The name users write, which is also the cargo feature that builds it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
        }
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// The backends of this build, the fastest first.
    pub fn built() -> Vec<Self> {
        Self::BY_PRIORITY
            .into_iter()
            .filter(|b| b.is_built())
            .collect()
    }

    pub(super) fn has_index(self) -> bool {
        matches!(self, Self::Cuda | Self::Rocm)
    }
}
