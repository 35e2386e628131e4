//! PyTorch's own files (`pytorch_model.bin`), by the reader that burn-store uses.
//!
//! Such a file is a program for a stack machine that builds objects. The reader runs no Python: of all classes it knows
//! tensors and containers, keeps others as a name, and bounds depth, copies and sizes.

use std::path::Path;

use pytorch_reader::{DType, PytorchError, PytorchReader};
use safetensors::Dtype;

use crate::error::LoadError;
use crate::fault::FileFault;

/// What a tensor's bytes are read through.
#[derive(Debug)]
pub(crate) struct Handle(pytorch_reader::Tensor);

impl Handle {
    /// In the order of the shape, whatever the layout in the file.
    pub(crate) fn read(&self) -> std::io::Result<Vec<u8>> {
        self.0.read()
    }
}

pub(crate) struct Pickled {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) handle: Handle,
}

/// The tensors of a file, none of them read.
pub(crate) fn read(path: &Path) -> Result<Vec<Pickled>, LoadError> {
    let damaged = |reason: String| LoadError::Damaged {
        path: path.into(),
        faults: vec![FileFault::Pickle(reason)],
    };
    let reader = match PytorchReader::new(path) {
        Ok(reader) => reader,
        Err(PytorchError::Io(source)) if source.raw_os_error().is_some() => {
            return Err(LoadError::Read {
                path: path.into(),
                source,
            });
        }
        Err(error) => return Err(damaged(error.to_string())),
    };
    if reader.is_empty() {
        return Err(damaged("it holds no tensor".into()));
    }
    let mut tensors: Vec<Pickled> = reader
        .into_tensors()
        .into_iter()
        .map(|(name, tensor)| Pickled {
            name,
            dtype: dtype(tensor.dtype()),
            shape: tensor.shape().to_vec(),
            handle: Handle(tensor),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
