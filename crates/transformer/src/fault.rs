//! What is wrong inside a file of weights.

use burn::tensor::DType;
use thiserror::Error;

/// One fault of a weights file, found before any of its tensors is read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FileFault {
    /// Not even room for the length of the header.
    #[error("the file has {bytes} bytes, and its header's length alone takes 8")]
    TooShort {
        /// The size of the file.
        bytes: u64,
    },
    /// The header is said to reach beyond the end of the file.
    #[error("the header is said to have {header} bytes, and {left} follow its length")]
    HeaderBeyondFile {
        /// The length that the file names.
        header: u64,
        /// The bytes that are there.
        left: u64,
    },
    /// The header is longer than any that the format allows.
    #[error(
        "the header is said to have {header} bytes, more than the {limit} that the format allows"
    )]
    HeaderTooLarge {
        /// The length that the file names.
        header: u64,
        /// The most that the format allows.
        limit: u64,
    },
    /// The header is no JSON object.
    #[error("the header is not a JSON object: {0}")]
    NotJson(String),
    /// The header says something else of a tensor than its dtype, shape and place.
    #[error("`{tensor}` in the header: {problem}")]
    Entry {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A name that the header gives to more than one tensor.
    #[error("`{tensor}` is in the header more than once")]
    Repeated {
        /// The tensor.
        tensor: String,
    },
    /// A tensor whose bytes are not as many as its shape asks for.
    #[error("`{tensor}` is {dtype} {shape:?}, which takes {expected} bytes; its place has {found}")]
    ByteCount {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The bytes of that shape.
        expected: u64,
        /// The bytes of its place in the file.
        found: u64,
    },
    /// Tensors placed beyond the end of the file.
    #[error(
        "{tensors} tensors, `{first}` the first, reach beyond the end of the file: it would need {needed} bytes and has {found}"
    )]
    Truncated {
        /// How many tensors.
        tensors: usize,
        /// The first of them in the file.
        first: String,
        /// The size of the file that the header describes.
        needed: u64,
        /// The size of the file.
        found: u64,
    },
    /// Two tensors at one place.
    #[error("`{tensor}` overlaps `{other}`")]
    Overlap {
        /// The tensor that begins later.
        tensor: String,
        /// The one that it runs into.
        other: String,
    },
    /// Bytes that belong to no tensor, which the format does not allow.
    #[error("{bytes} bytes {place} belong to no tensor")]
    Stray {
        /// How many.
        bytes: u64,
        /// Where: before which tensor, or at the end.
        place: String,
    },
    /// A PyTorch file that is damaged, or that holds what is not read.
    #[error("{0}")]
    Pickle(String),
}

/// A tensor with a number that is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// The file, without its folder.
    pub file: String,
    /// The tensor.
    pub tensor: String,
    /// The position of the first such number, by the shape in the file.
    pub position: Vec<usize>,
    /// The number in the file.
    pub value: f32,
    /// The dtype that cannot hold the number, where the number itself is finite.
    pub overflows: Option<DType>,
    /// How many numbers of the tensor are like it.
    pub count: usize,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            tensor,
            position,
            value,
            overflows,
            count,
        } = self;
        write!(f, "{tensor} in {file}: {value} at {position:?}")?;
        if let Some(dtype) = overflows {
            write!(f, ", too large for {dtype:?}")?;
        }
        match count - 1 {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
