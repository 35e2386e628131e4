use std::fmt::Write;
use std::path::PathBuf;

use crate::sites::Site;

/// What can be wrong with an adapter, its configuration or its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The configuration contradicts itself or the module.
    #[error("the adapter's configuration is wrong:{}", list(faults))]
    Config {
        /// Every fault, in words.
        faults: Vec<String>,
    },
    /// Targets that match no layer.
    #[error("no layer matches:{}", list(&near_misses(targets)))]
    NoSuchTarget {
        /// Each name or expression that matches nothing, with the nearest names that exist.
        targets: Vec<(String, Vec<String>)>,
    },
    /// Layers of a kind that the method is not made for.
    #[error("{kind}:{}", list(layers))]
    NotAdaptable {
        /// Paths of the layers.
        layers: Vec<String>,
        /// Which method cannot adapt what.
        kind: String,
    },
    /// A weight has an adapter of this name already.
    #[error("an adapter named \"{name}\" is attached already, to:{}", list(layers))]
    DuplicateName {
        /// The name.
        name: String,
        /// Paths of the layers that have it.
        layers: Vec<String>,
    },
    /// The module has no adapter, or none of this name.
    #[error("the module has no adapter{}; it has: {}", named(name), names(present))]
    NoAdapter {
        /// The name asked for.
        name: Option<String>,
        /// The names that exist.
        present: Vec<String>,
    },
    /// A change that a merged module cannot take.
    #[error("the adapters are merged; unmerge them before {action}")]
    Merged {
        /// What was asked for.
        action: &'static str,
    },
    /// Weights that would hold NaN or infinity once merged.
    #[error(
        "merging would write NaN or infinity, so nothing was merged; the adapters of these layers are to blame:{}",
        list(layers)
    )]
    NotFinite {
        /// Paths of the layers.
        layers: Vec<String>,
    },
    /// Factors that cannot be made, combined, converted or attached.
    #[error("{action} is not possible:{}", list(faults))]
    Factors {
        /// What was asked for.
        action: &'static str,
        /// Every fault, in words.
        faults: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration file that is no PEFT configuration.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An adapter that uses what this crate does not support.
    #[error("{} uses what is not supported here:{}", path.display(), list(features))]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// Each field with its value.
        features: Vec<String>,
    },
    /// Faults of several kinds: of a configuration, of its targets, of the tensors.
    #[error("several things are wrong:{}", list(&indented(errors)))]
    Several {
        /// Each kind with all its culprits.
        errors: Vec<AdapterError>,
    },
    /// Tensors of an adapter file that do not fit the module.
    #[error("{} does not fit the model, nothing was loaded:{}", path.display(), list(faults))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Every tensor that is missing, unexpected, or of the wrong shape, dtype or content.
        faults: Vec<TensorFault>,
    },
}

/// One tensor that does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// The model needs it and the file lacks it.
    #[error("missing {key} {shape:?}")]
    Missing {
        /// Its key.
        key: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// The file has it and the model has no place for it.
    #[error("unexpected {key} {shape:?}{}", nearest_hint(nearest))]
    Unexpected {
        /// Its key.
        key: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The key expected that is most like it.
        nearest: Option<String>,
    },
    /// Its shape is wrong.
    #[error("{key} has the shape {found:?}, the model and the configuration need {expected:?}")]
    Shape {
        /// Its key.
        key: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// It is the A of a convolution in groups, and looks across them.
    #[error(
        "{key} looks at the channels of all {groups} groups of its convolution; the kernel has no weights between groups, so that \
         no change of it does the same"
    )]
    AcrossGroups {
        /// Its key.
        key: String,
        /// How many groups there are.
        groups: usize,
    },
    /// Its dtype is no float type.
    #[error("{key} has the dtype {dtype}, which is not f32, f16 or bf16")]
    DType {
        /// Its key.
        key: String,
        /// The dtype in the file.
        dtype: String,
    },
    /// It holds NaN or infinity.
    #[error("{key} holds NaN or infinity")]
    NotFinite {
        /// Its key.
        key: String,
    },
}

impl AdapterError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// One error of all that is wrong. Faults of one kind in one place become one list.
    pub(crate) fn all(errors: Vec<Self>) -> Result<(), Self> {
        let mut several: Vec<Self> = Vec::new();
        let flat = errors.into_iter().flat_map(|error| match error {
            Self::Several { errors } => errors,
            one => vec![one],
        });
        for error in flat {
            if !several.iter_mut().any(|known| known.takes_in(&error)) {
                several.push(error);
            }
        }
        match several.len() {
            0 => Ok(()),
            1 => Err(several.remove(0)),
            _ => Err(Self::Several { errors: several }),
        }
    }

    /// Takes in the faults of another error, if they are of one kind in one place.
    fn takes_in(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Config { faults }, Self::Config { faults: more }) => {
                faults.extend(more.iter().cloned());
            }
            (
                Self::Tensors { path, faults },
                Self::Tensors {
                    path: at,
                    faults: more,
                },
            ) if path == at => {
                faults.extend(more.iter().cloned());
            }
            _ => return false,
        }
        true
    }

    pub(crate) fn no_such_target(targets: Vec<String>, sites: &[Site]) -> Self {
        let targets = targets
            .into_iter()
            .map(|target| {
                let nearest = nearest_layers(&target, sites);
                (target, nearest)
            })
            .collect();
        Self::NoSuchTarget { targets }
    }
}

/// The candidate that is most like `name`, unless none is.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(x, _), (y, _)| x.total_cmp(y))
        .map(|(_, candidate)| candidate)
}

/// The nearest layer names to a target that matched nothing; all names where none is near.
fn nearest_layers(target: &str, sites: &[Site]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let layers = sites
        .iter()
        .filter(|site| !site.is_embedding() && !site.is_vector());
    for site in layers {
        let path = site.module_path();
        let name = path.rsplit('.').next().unwrap_or(path);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let last = target.rsplit('.').next().unwrap_or(target);
    match nearest(last, names.iter().copied()) {
        Some(name) => vec![name.to_string()],
        None => names.into_iter().map(str::to_string).collect(),
    }
}

/// One item a line, indented.
fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().fold(String::new(), |mut text, item| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  - {item}");
        text
    })
}

/// Errors whose own lists stand under them.
fn indented(errors: &[AdapterError]) -> Vec<String> {
    let errors = errors.iter();
    errors
        .map(|error| error.to_string().replace('\n', "\n  "))
        .collect()
}

/// The value, or none, and its error among the others.
pub(crate) fn noted<T>(
    result: Result<T, AdapterError>,
    errors: &mut Vec<AdapterError>,
) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

fn near_misses(targets: &[(String, Vec<String>)]) -> Vec<String> {
    targets
        .iter()
        .map(|(target, nearest)| match nearest.as_slice() {
            [] => format!("\"{target}\" (the module has no linear layer)"),
            [one] => format!("\"{target}\" (did you mean \"{one}\"?)"),
            many => format!("\"{target}\" (the layers are: {})", many.join(", ")),
        })
        .collect()
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or(String::new(), |key| format!(" (nearest: {key})"))
}

fn named(name: &Option<String>) -> String {
    name.as_ref()
        .map_or(String::new(), |name| format!(" named \"{name}\""))
}

fn names(present: &[String]) -> String {
    match present.is_empty() {
        true => "none".to_string(),
        false => present.join(", "),
    }
}
