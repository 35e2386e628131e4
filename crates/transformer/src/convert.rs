//! Numbers between the bytes of a file and the dtype of a tensor, on the host, one tensor at a time.

use burn::tensor::{DType, Element, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

/// The width of the square blocks in which a matrix is transposed, so that both sides stay in the cache.
const BLOCK: usize = 32;

/// A float that weights are stored in.
pub(crate) trait Stored: Copy {
    const BYTES: usize;
    const DTYPE: Dtype;
    /// The smallest f32 that becomes infinite.
    const OVERFLOW: f32;
    fn from_le(bytes: &[u8]) -> Self;
    fn put_le(self, bytes: &mut Vec<u8>);
    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
    fn bits(self) -> u32;
    fn from_bits(bits: u32) -> Self;

    /// From another float; from the same one bit by bit.
    fn cast<S: Stored>(other: S) -> Self {
        match S::DTYPE == Self::DTYPE {
            true => Self::from_bits(other.bits()),
            false => Self::from_f32(other.to_f32()),
        }
    }
}

macro_rules! stored {
    ($float:ty, $bits:ty, $dtype:ident, $overflow:expr, $to:expr, $from:expr) => {
        impl Stored for $float {
            const BYTES: usize = size_of::<$float>();
            const DTYPE: Dtype = Dtype::$dtype;
            const OVERFLOW: f32 = $overflow;
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$float>()];
                array.copy_from_slice(bytes);
                <$float>::from_le_bytes(array)
            }
            fn put_le(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
            fn to_f32(self) -> f32 {
                $to(self)
            }
            fn from_f32(value: f32) -> Self {
                $from(value)
            }
            fn bits(self) -> u32 {
                u32::from(self.to_bits())
            }
            fn from_bits(bits: u32) -> Self {
                <$float>::from_bits(bits as $bits)
            }
        }
    };
}

stored!(f32, u32, F32, f32::INFINITY, |x| x, |x| x);
// Halfway between the largest finite number and the next power of two, which is where rounding turns.
stored!(f16, u16, F16, 65_520.0, f16::to_f32, f16::from_f32);
stored!(
    bf16,
    u16,
    BF16,
    f32::from_bits(0x7f7f_8000),
    bf16::to_f32,
    bf16::from_f32
);

/// Runs `$body` with `$float` standing for the float of a file's dtype; anything that is not f16 or bf16 counts as f32,
/// because the dtypes were checked before.
macro_rules! with_stored {
    ($dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            safetensors::Dtype::F16 => {
                type $float = half::f16;
                $body
            }
            safetensors::Dtype::BF16 => {
                type $float = half::bf16;
                $body
            }
            _ => {
                type $float = f32;
                $body
            }
        }
    };
}
pub(crate) use with_stored;

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
    bytes: Vec<u8>,
    from: Dtype,
    shape: &[usize],
    transposed: bool,
    to: DType,
) -> TensorData {
    let target = file_dtype(to).unwrap_or(Dtype::F32);
    let is_transposed = transposed && shape.len() == 2;
    // Bytes that are right as they are need no second copy of the tensor.
    if from == target && !is_transposed && cfg!(target_endian = "little") {
        return TensorData::from_bytes_vec(bytes, shape.to_vec(), to);
    }
    with_stored!(from, S => with_stored!(target, T => match (is_transposed, shape) {
        (true, [rows, columns]) => {
            TensorData::new(transpose::<S, T>(&bytes, *rows, *columns), shape.to_vec())
        }
        _ => {
            let numbers = bytes.chunks_exact(S::BYTES);
            let values: Vec<T> = numbers.map(|chunk| T::cast(S::from_le(chunk))).collect();
            TensorData::new(values, shape.to_vec())
        }
    }))
}

/// `[rows, columns]` from the bytes of `[columns, rows]`.
fn transpose<S: Stored, T: Stored + Element>(bytes: &[u8], rows: usize, columns: usize) -> Vec<T> {
    let mut values = vec![T::from_f32(0.0); rows * columns];
    let number = |at: usize| T::cast(S::from_le(&bytes[at * S::BYTES..(at + 1) * S::BYTES]));
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    values[row * columns + column] = number(column * rows + row);
                }
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_while_it_converts() {
        let file: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        // The file holds [2, 3]; the tensor is its transpose.
        let data = read(file, Dtype::F32, &[3, 2], true, DType::BF16);
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
        let data = read(file, Dtype::F32, &[rows, columns], true, DType::F32);
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
                let data = read(bits.to_vec(), dtype, &[1], false, to);
                assert_eq!(data.iter::<f32>().collect::<Vec<_>>(), [1.5]);
            }
        }
    }
}
