use std::fmt;

use burn::tensor::{DType, Device};

use super::backend::Backend;
use super::error::DeviceError;
use super::probe::probe;

/// The device of a run: a backend and, for CUDA and ROCm, which of several GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceChoice {
    backend: Backend,
    index: Option<usize>,
}

const OPTION: &str = "--device";
const VARIABLE: &str = "BURN_DEVICE";

impl DeviceChoice {
    /// Chooses by what the user asked for, else by `BURN_DEVICE`, else the fastest backend of this build
    /// ([`Backend::BY_PRIORITY`]).
    ///
    /// # Errors
    /// An unknown name, a backend that is not built, a wrong index, or a build without backends.
    pub fn resolve(asked: Option<&str>) -> Result<Self, DeviceError> {
        match (asked, std::env::var(VARIABLE).ok().as_deref()) {
            (Some(name), _) => Self::parse(name, OPTION),
            // Burn reads the variable too and panics at a name it does not know, an index included.
            (None, Some(name)) if name.contains(':') => Err(DeviceError::Index {
                name: name.to_string(),
                origin: VARIABLE,
                reason: format!("the variable takes no index; use `{OPTION} {name}`"),
            }),
            (None, Some(name)) if !name.trim().is_empty() => Self::parse(name, VARIABLE),
            _ => Self::best(),
        }
    }

    /// The fastest backend of this build.
    ///
    /// # Errors
    /// [`DeviceError::NoneBuilt`].
    pub fn best() -> Result<Self, DeviceError> {
        let backend = Backend::built().into_iter().next();
        let backend = backend.ok_or(DeviceError::NoneBuilt)?;
        Ok(Self {
            backend,
            index: None,
        })
    }

    /// Reads `cuda`, `cuda:1`, `wgpu` and so on; `origin` is named in errors.
    fn parse(asked: &str, origin: &'static str) -> Result<Self, DeviceError> {
        let text = asked.trim().to_lowercase();
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text.as_str(), None),
        };
        let backend = Backend::BY_PRIORITY
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| unknown(asked, name, origin))?;
        if !backend.is_built() {
            return Err(DeviceError::NotBuilt {
                backend: backend.name(),
                origin,
                built: Backend::built().into_iter().map(Backend::name).collect(),
            });
        }
        let index = index.map(|index| parse_index(backend, index)).transpose();
        let index = index.map_err(|reason| DeviceError::Index {
            name: asked.to_string(),
            origin,
            reason,
        })?;
        Ok(Self { backend, index })
    }

    /// The backend.
    pub fn backend(self) -> Backend {
        self.backend
    }

    /// Opens the device and runs one operation on it, so that a missing driver shows here and not in the first step.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`].
    pub fn open(self) -> Result<Device, DeviceError> {
        let unavailable = |reason| DeviceError::Unavailable {
            device: self.to_string(),
            reason,
            others: Backend::built()
                .into_iter()
                .filter(|backend| *backend != self.backend)
                .map(Backend::name)
                .collect(),
        };
        let device = self
            .device()
            .ok_or_else(|| unavailable("it is not in this build".to_string()))?;
        probe(&device).map_err(unavailable)?;
        Ok(device)
    }

    fn device(self) -> Option<Device> {
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        let index = self.index.map_or(
            burn::tensor::DeviceIndex::Default,
            burn::tensor::DeviceIndex::Specified,
        );
        match self.backend {
            #[cfg(feature = "cuda")]
            Backend::Cuda => Some(Device::cuda(index)),
            #[cfg(feature = "rocm")]
            Backend::Rocm => Some(Device::rocm(index)),
            #[cfg(feature = "metal")]
            Backend::Metal => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "flex")]
            Backend::Flex => Some(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            // Gone in Burn 0.23; a portable second opinion until then.
            Backend::NdArray => Some(Device::ndarray()),
            #[allow(unreachable_patterns)] // Unless every backend is built.
            _ => None,
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}:{index}", self.backend.name()),
            None => f.write_str(self.backend.name()),
        }
    }
}

/// The number formats that weights come in.
const DTYPES: [(&str, DType); 3] = [
    ("f32", DType::F32),
    ("bf16", DType::BF16),
    ("f16", DType::F16),
];

/// Checks that a device computes in a number format, which it may not although it can store it.
///
/// # Errors
/// [`DeviceError::Dtype`].
pub fn require_dtype(
    choice: DeviceChoice,
    device: &Device,
    dtype: DType,
) -> Result<(), DeviceError> {
    if device.supports_dtype(dtype) {
        return Ok(());
    }
    let supported = |(_, dtype): &(&str, DType)| device.supports_dtype(*dtype);
    Err(DeviceError::Dtype {
        device: choice.to_string(),
        dtype: dtype.name(),
        supported: DTYPES
            .into_iter()
            .filter(supported)
            .map(|(name, _)| name)
            .collect(),
    })
}

fn parse_index(backend: Backend, index: &str) -> Result<usize, String> {
    if !backend.has_index() {
        return Err(format!("{} takes no index", backend.name()));
    }
    index.parse().map_err(|_| {
        format!(
            "\"{index}\" is no index of a GPU; write {}:0",
            backend.name()
        )
    })
}

fn unknown(asked: &str, name: &str, origin: &'static str) -> DeviceError {
    let known = Backend::BY_PRIORITY.map(Backend::name);
    let nearest = known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.6)
        .map(|(_, known)| known);
    DeviceError::Unknown {
        name: asked.to_string(),
        origin,
        nearest,
        known: known.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let error = DeviceChoice::parse("cudda", OPTION).expect_err("no such backend");
        assert_eq!(
            error.to_string(),
            "--device names the unknown device \"cudda\", did you mean \"cuda\"?; \
             known: cuda, rocm, metal, vulkan, wgpu, flex, ndarray"
        );
    }

    #[cfg(not(feature = "rocm"))]
    #[test]
    fn a_backend_that_is_not_built_names_its_feature() {
        let error = DeviceChoice::parse("rocm", VARIABLE).expect_err("not built");
        let text = error.to_string();
        assert!(
            text.starts_with("BURN_DEVICE asks for rocm, which is not in this build"),
            "{text}"
        );
        assert!(text.ends_with("build with `--features rocm`"), "{text}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_cpu_opens_and_takes_no_index() {
        let choice = DeviceChoice::parse(" Flex ", OPTION).expect("built");
        assert_eq!(choice.to_string(), "flex");
        let device = choice.open().expect("a CPU is there");
        require_dtype(choice, &device, DType::BF16).expect("flex computes in bf16");

        let error = DeviceChoice::parse("flex:1", OPTION).expect_err("no index");
        assert_eq!(
            error.to_string(),
            "--device asks for \"flex:1\": flex takes no index"
        );
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn a_format_the_device_lacks_is_an_error() {
        let choice = DeviceChoice::parse("ndarray", OPTION).expect("built");
        let device = choice.open().expect("a CPU is there");
        let error = require_dtype(choice, &device, DType::F16).expect_err("ndarray has no f16");
        assert_eq!(
            error.to_string(),
            "ndarray does not compute in f16; it does in: f32"
        );
    }

    #[test]
    fn without_a_wish_the_fastest_built_is_taken() {
        match DeviceChoice::best() {
            Ok(choice) => assert_eq!(Some(choice.backend()), Backend::built().first().copied()),
            Err(error) => assert_eq!(error, DeviceError::NoneBuilt),
        }
    }
}
