//! One product by each library.

use rayon::prelude::*;

/// `out = a b`, with `out` and `a` row-major.
#[derive(Clone, Copy)]
pub struct Product {
    m: usize,
    k: usize,
    n: usize,
    a: *const f32,
    b: *const f32,
    /// From row to row and from column to column of `b`.
    b_strides: [usize; 2],
    out: *mut f32,
    /// From row to row of `out`.
    out_stride: usize,
}

// SAFETY: threads share a product by disjoint parts of `out` only (`shared_out`, and the libraries themselves).
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// The slices must outlive the product.
    pub fn new(
        [m, k, n]: [usize; 3],
        a: &[f32],
        b: &[f32],
        transposed: bool,
        out: &mut [f32],
    ) -> Self {
        assert_eq!([a.len(), b.len(), out.len()], [m * k, k * n, m * n]);
        Self {
            m,
            k,
            n,
            a: a.as_ptr(),
            b: b.as_ptr(),
            b_strides: if transposed { [1, k] } else { [n, 1] },
            out: out.as_mut_ptr(),
            out_stride: n,
        }
    }

    fn row_range(self, from: usize, m: usize) -> Self {
        // SAFETY: a row of the product.
        let (a, out) = unsafe {
            (
                self.a.add(from * self.k),
                self.out.add(from * self.out_stride),
            )
        };
        Self { m, a, out, ..self }
    }

    fn col_range(self, from: usize, n: usize) -> Self {
        // SAFETY: a column of the product.
        let (b, out) = unsafe { (self.b.add(from * self.b_strides[1]), self.out.add(from)) };
        Self { n, b, out, ..self }
    }

    pub fn clear(&self) {
        // SAFETY: `out` of a whole product is dense.
        unsafe { self.out.write_bytes(0, self.m * self.n) }
    }

    pub fn result(&self) -> Vec<f32> {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.out, self.m * self.n) }.to_vec()
    }
}

pub type Run = fn(&Product);

pub const LIBRARIES: [(&str, Run); COUNT] = [
    ("gemm", |p| gemm(p, gemm::Parallelism::Rayon(0))),
    ("gemm, shared out", |p| {
        shared_out(p, |p| gemm(p, gemm::Parallelism::None))
    }),
    ("matrixmultiply", matrixmultiply),
    #[cfg(target_arch = "x86_64")]
    ("private-gemm-x86", |p| {
        faer(p, rayon::current_num_threads())
    }),
    #[cfg(target_arch = "x86_64")]
    ("private-gemm-x86, shared out", |p| {
        shared_out(p, |p| faer(p, 1))
    }),
    #[cfg(feature = "openblas")]
    ("OpenBLAS", openblas),
];

const COUNT: usize = 3
    + if cfg!(target_arch = "x86_64") { 2 } else { 0 }
    + if cfg!(feature = "openblas") { 1 } else { 0 };

/// A product of its own for each thread, as in `crates/kernels/src/host/product.rs`.
fn shared_out(product: &Product, run: Run) {
    const WIDE: usize = 128;
    let threads = rayon::current_num_threads();
    let by_cols = product.n >= threads * WIDE || product.n >= product.m;
    let size = if by_cols { product.n } else { product.m };
    let step = size.div_ceil(threads).next_multiple_of(16).min(size);
    (0..size.div_ceil(step)).into_par_iter().for_each(|part| {
        let from = part * step;
        let count = step.min(size - from);
        run(&match by_cols {
            true => product.col_range(from, count),
            false => product.row_range(from, count),
        });
    });
}

fn gemm(p: &Product, threads: gemm::Parallelism) {
    let [b_row, b_col] = p.b_strides.map(|stride| stride as isize);
    // SAFETY: a product holds its operands.
    unsafe {
        gemm::gemm(
            p.m,
            p.n,
            p.k,
            p.out,
            1,
            p.out_stride as isize,
            false,
            p.a,
            1,
            p.k as isize,
            p.b,
            b_col,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

fn matrixmultiply(p: &Product) {
    let [b_row, b_col] = p.b_strides.map(|stride| stride as isize);
    // SAFETY: a product holds its operands.
    unsafe {
        matrixmultiply::sgemm(
            p.m,
            p.k,
            p.n,
            1.0,
            p.a,
            p.k as isize,
            1,
            p.b,
            b_row,
            b_col,
            0.0,
            p.out,
            p.out_stride as isize,
            1,
        );
    }
}

#[cfg(target_arch = "x86_64")]
fn faer(p: &Product, threads: usize) {
    use private_gemm_x86::{Accum, DType, DstKind, IType, InstrSet};
    use std::ptr::{from_ref, null};

    let [b_row, b_col] = p.b_strides.map(|stride| stride as isize);
    let instructions = match is_x86_feature_detected!("avx512f") {
        true => InstrSet::Avx512,
        false => InstrSet::Avx256,
    };
    // SAFETY: a product holds its operands.
    unsafe {
        private_gemm_x86::gemm(
            DType::F32,
            IType::U64,
            instructions,
            p.m,
            p.n,
            p.k,
            p.out.cast(),
            p.out_stride as isize,
            1,
            null(),
            null(),
            DstKind::Full,
            Accum::Replace,
            p.a.cast(),
            p.k as isize,
            1,
            false,
            null(),
            0,
            p.b.cast(),
            b_row,
            b_col,
            false,
            from_ref(&1.0f32).cast(),
            threads,
        );
    }
}

#[cfg(feature = "openblas")]
fn openblas(p: &Product) {
    use cblas_sys::{CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_sgemm};

    #[link(name = "openblas")]
    unsafe extern "C" {}

    let [b_row, b_col] = p.b_strides;
    let (transpose, b_stride) = match b_col {
        1 => (CBLAS_TRANSPOSE::CblasNoTrans, b_row),
        _ => (CBLAS_TRANSPOSE::CblasTrans, b_col),
    };
    let [m, n, k, a_stride, b_stride, out_stride] =
        [p.m, p.n, p.k, p.k, b_stride, p.out_stride].map(|size| size as i32);
    // SAFETY: a product holds its operands.
    unsafe {
        cblas_sgemm(
            CBLAS_LAYOUT::CblasRowMajor,
            CBLAS_TRANSPOSE::CblasNoTrans,
            transpose,
            m,
            n,
            k,
            1.0,
            p.a,
            a_stride,
            p.b,
            b_stride,
            0.0,
            p.out,
            out_stride,
        );
    }
}
