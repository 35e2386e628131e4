/// Why no device could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A name that is no backend.
    #[error("{origin} names the unknown device \"{name}\"{}; known: {}", hint(nearest), known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was asked for: `--device` or `BURN_DEVICE`.
        origin: &'static str,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// An index where none is possible, or something else after the colon.
    #[error("{origin} asks for \"{name}\": {reason}")]
    Index {
        /// What was asked for.
        name: String,
        /// Where it was asked for.
        origin: &'static str,
        /// What is wrong with the index.
        reason: String,
    },
    /// The backend is not part of this build.
    #[error(
        "{origin} asks for {backend}, which is not in this build (it has: {}); build with `--features {backend}`",
        names(built)
    )]
    NotBuilt {
        /// The backend, which is also the feature's name.
        backend: &'static str,
        /// Where it was asked for.
        origin: &'static str,
        /// The backends of this build.
        built: Vec<&'static str>,
    },
    /// The build has no backend at all.
    #[error(
        "this build has no backend; build with `--features flex` for the CPU, or `wgpu` or `cuda` for a GPU"
    )]
    NoneBuilt,
    /// The backend is built, but finds no driver or no device.
    #[error("{device} cannot be used on this machine: {reason}{}", instead(others))]
    Unavailable {
        /// The device.
        device: String,
        /// What its runtime said.
        reason: String,
        /// Other backends of this build.
        others: Vec<&'static str>,
    },
    /// The device does not compute in this number format.
    #[error(
        "{device} does not compute in {dtype}; it does in: {}",
        names(supported)
    )]
    Dtype {
        /// The device.
        device: String,
        /// The format asked for.
        dtype: &'static str,
        /// Formats it computes in.
        supported: Vec<&'static str>,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"))
}

fn names(names: &[&'static str]) -> String {
    match names.is_empty() {
        true => "none".to_string(),
        false => names.join(", "),
    }
}

fn instead(others: &[&'static str]) -> String {
    match others.is_empty() {
        true => String::new(),
        false => format!("; this build could use: {}", others.join(", ")),
    }
}
