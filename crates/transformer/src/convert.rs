//! Numbers between the bytes of a file and the dtype of a tensor, on the host, one tensor at a time.

use burn::tensor::{DType, Element, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

/// The width of the square blocks in which a matrix is transposed, so that both sides stay in the cache.
const BLOCK: usize = 32;

/// A float that weights are stored in.
trait Stored: Copy {
    const BYTES: usize;
    fn from_le(bytes: &[u8]) -> Self;
    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
}

macro_rules! stored {
    ($float:ty, $bytes:expr, $to:expr, $from:expr) => {
        impl Stored for $float {
            const BYTES: usize = $bytes;
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; $bytes];
                array.copy_from_slice(bytes);
                <$float>::from_le_bytes(array)
            }
            fn to_f32(self) -> f32 {
                $to(self)
            }
            fn from_f32(value: f32) -> Self {
                $from(value)
            }
        }
    };
}

stored!(f32, 4, |x| x, |x| x);
stored!(f16, 2, f16::to_f32, f16::from_f32);
stored!(bf16, 2, bf16::to_f32, bf16::from_f32);

/// The file's name of a dtype, if weights may have it.
pub(crate) fn file_dtype(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F32 => Some(Dtype::F32),
        DType::F16 => Some(Dtype::F16),
        DType::BF16 => Some(Dtype::BF16),
        _ => None,
    }
}

/// Whether weights of this dtype can be read.
pub(crate) fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// The numbers in `bytes` as `to`. `shape` is that of the result; with `transposed` the file holds its transpose.
///
/// Both dtypes were checked before: anything that is not f16 or bf16 counts as f32.
pub(crate) fn read(
    bytes: &[u8],
    from: Dtype,
    shape: &[usize],
    transposed: bool,
    to: DType,
) -> TensorData {
    match from {
        Dtype::F16 => read_from::<f16>(bytes, shape, transposed, to),
        Dtype::BF16 => read_from::<bf16>(bytes, shape, transposed, to),
        _ => read_from::<f32>(bytes, shape, transposed, to),
    }
}

fn read_from<S: Stored>(bytes: &[u8], shape: &[usize], transposed: bool, to: DType) -> TensorData {
    match to {
        DType::F16 => read_as::<S, f16>(bytes, shape, transposed),
        DType::BF16 => read_as::<S, bf16>(bytes, shape, transposed),
        _ => read_as::<S, f32>(bytes, shape, transposed),
    }
}

fn read_as<S: Stored, T: Stored + Element>(
    bytes: &[u8],
    shape: &[usize],
    transposed: bool,
) -> TensorData {
    let numbers = bytes.chunks_exact(S::BYTES);
    let convert = |chunk| T::from_f32(S::from_le(chunk).to_f32());
    let values = match (transposed, shape) {
        (true, [rows, columns]) => {
            let mut values = vec![T::from_f32(0.0); rows * columns];
            let number = |at: usize| convert(&bytes[at * S::BYTES..(at + 1) * S::BYTES]);
            for row_block in (0..*rows).step_by(BLOCK) {
                for column_block in (0..*columns).step_by(BLOCK) {
                    for row in row_block..(row_block + BLOCK).min(*rows) {
                        for column in column_block..(column_block + BLOCK).min(*columns) {
                            values[row * columns + column] = number(column * rows + row);
                        }
                    }
                }
            }
            values
        }
        _ => numbers.map(convert).collect(),
    };
    TensorData::new(values, shape.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_while_it_converts() {
        let file: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        // The file holds [2, 3]; the tensor is its transpose.
        let data = read(&file, Dtype::F32, &[3, 2], true, DType::BF16);
        assert_eq!(data.dtype(), DType::BF16);
        let values: Vec<f32> = data.iter::<f32>().collect();
        assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn a_large_transpose_crosses_its_blocks() {
        let (rows, columns) = (70, 45);
        let file: Vec<u8> = (0..rows * columns)
            .flat_map(|i| (i as f32).to_le_bytes())
            .collect();
        let data = read(&file, Dtype::F32, &[rows, columns], true, DType::F32);
        let values = data.try_to_vec::<f32>().expect("f32");
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(values[row * columns + column], (column * rows + row) as f32);
            }
        }
    }

    #[test]
    fn half_precision_survives_every_way() {
        for (dtype, bits) in [
            (Dtype::F16, f16::from_f32(1.5).to_le_bytes()),
            (Dtype::BF16, bf16::from_f32(1.5).to_le_bytes()),
        ] {
            for to in [DType::F32, DType::F16, DType::BF16] {
                let data = read(&bits, dtype, &[1], false, to);
                assert_eq!(data.iter::<f32>().collect::<Vec<_>>(), [1.5]);
            }
        }
    }
}
