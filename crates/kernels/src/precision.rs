//! The dtype in which sums and exponentials are computed.

use burn::tensor::DType;

/// `f32` for every dtype that is narrower, otherwise the dtype itself.
pub(crate) fn accumulator(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}
