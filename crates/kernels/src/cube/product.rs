//! The seam through which every matrix product of the GPU forms goes.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::memory::empty;

/// `a b` in this dtype, of two matrices or views of them.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`, output: `[m, n]` without gaps
pub(crate) fn product(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let [m, n] = [a.meta.shape()[0], b.meta.shape()[1]];
    let out = empty(&a, &[m, n], dtype);
    product_into(a, b, out.clone());
    out
}
