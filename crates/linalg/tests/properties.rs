//! What must hold of the decompositions for any matrix.

use burn_lora_linalg::{
    IncrementalSvd, LinalgError, Matrix, Normal, eigen, inverse, qr, randomized_svd, svd,
};
use proptest::prelude::*;

/// A matrix of any shape from 1 x 1 on, of full or of a lower rank.
fn matrices() -> impl Strategy<Value = Matrix> {
    (1usize..14, 1usize..14, 0usize..14, any::<u64>()).prop_map(|(rows, columns, rank, seed)| {
        let mut normal = Normal::new(seed, 0);
        match rank < rows.min(columns) {
            true => &normal.matrix(rows, rank) * &normal.matrix(rank, columns),
            false => normal.matrix(rows, columns),
        }
    })
}

fn near(x: &Matrix, y: &Matrix) -> bool {
    x.shape() == y.shape() && (x - y).norm() <= 1e-9 * (1.0 + y.norm())
}

fn has_orthonormal_columns(matrix: &Matrix) -> bool {
    let gram = &matrix.transpose() * matrix;
    near(&gram, &Matrix::identity(matrix.columns()))
}

proptest! {
    #[test]
    fn an_svd_gives_the_matrix_back(matrix in matrices()) {
        let svd = svd(&matrix).unwrap();
        let k = matrix.rows().min(matrix.columns());
        prop_assert_eq!(svd.s.len(), k);
        prop_assert!(near(&svd.product(), &matrix));
        prop_assert!(has_orthonormal_columns(&svd.u) && has_orthonormal_columns(&svd.v));
        prop_assert!(svd.s.windows(2).all(|pair| pair[0] >= pair[1]));
        prop_assert!(svd.s.iter().all(|s| *s >= 0.0));
    }

    #[test]
    fn what_a_truncated_svd_leaves_is_the_energy_of_the_rest(matrix in matrices(), rank in 0usize..14) {
        let svd = svd(&matrix).unwrap();
        let rest: f64 = svd.s.iter().skip(rank).map(|s| s * s).sum();
        let left = (&matrix - &svd.truncated(rank).product()).norm();
        prop_assert!((left - rest.sqrt()).abs() <= 1e-9 * (1.0 + matrix.norm()));
    }

    #[test]
    fn a_sketch_finds_a_matrix_of_low_rank(
        rows in 1usize..20, columns in 1usize..20, rank in 1usize..5, seed in any::<u64>()
    ) {
        let mut normal = Normal::new(seed, 1);
        let matrix = &normal.matrix(rows, rank) * &normal.matrix(rank, columns);
        let found = randomized_svd(&matrix, rank, 2, seed).unwrap();
        prop_assert!(near(&found.product(), &matrix));
        prop_assert!(has_orthonormal_columns(&found.u));
        prop_assert!(found.s.len() <= rank);
    }

    #[test]
    fn q_times_r_is_the_matrix(matrix in matrices()) {
        let qr = qr(&matrix).unwrap();
        prop_assert!(near(&(&qr.q * &qr.r), &matrix));
        prop_assert!(has_orthonormal_columns(&qr.q));
        for row in 0..qr.r.rows() {
            for column in 0..row.min(qr.r.columns()) {
                prop_assert_eq!(qr.r.get(row, column), 0.0);
            }
        }
    }

    #[test]
    fn a_symmetric_matrix_comes_back_and_is_inverted(matrix in matrices()) {
        let size = matrix.columns();
        let gram = &(&matrix.transpose() * &matrix) + &Matrix::identity(size);
        let found = eigen(&gram).unwrap();
        let back = &found.vectors.scaled_columns(&found.values) * &found.vectors.transpose();
        prop_assert!(near(&back, &gram));
        prop_assert!(near(&(&gram * &inverse(&gram).unwrap()), &Matrix::identity(size)));
    }

    #[test]
    fn batches_give_the_components_of_the_whole(matrix in matrices(), cut in 1usize..14) {
        let [rows, columns] = matrix.shape();
        let cut = cut.min(rows);
        let mut stream = IncrementalSvd::new(columns);
        stream.add(&matrix.row_range(0..cut)).unwrap();
        stream.add(&matrix.row_range(cut..rows)).unwrap();
        prop_assert_eq!(stream.count(), rows);
        let mean = |column| (0..rows).map(|row| matrix.get(row, column)).sum::<f64>() / rows as f64;
        let centered = Matrix::from_fn(rows, columns, |row, column| matrix.get(row, column) - mean(column));
        let whole = svd(&centered).unwrap();
        let energy = centered.norm().powi(2);
        for (index, share) in stream.explained().iter().enumerate() {
            let expected = whole.s.get(index).map_or(0.0, |s| s * s);
            prop_assert!((share * energy - expected).abs() < 1e-9 * (1.0 + energy));
        }
    }
}

#[test]
fn a_sketch_with_powers_comes_near_the_best_approximation() {
    let mut normal = Normal::new(7, 0);
    let (u, v) = (normal.matrix(60, 40), normal.matrix(50, 40));
    let falling: Vec<f64> = (0..40).map(|index| 0.8f64.powi(index)).collect();
    let matrix = &qr(&u).unwrap().q.scaled_columns(&falling) * &qr(&v).unwrap().q.transpose();
    let best: f64 = falling[8..].iter().map(|s| s * s).sum::<f64>().sqrt();
    let found = randomized_svd(&matrix, 8, 4, 0).unwrap();
    assert!((&matrix - &found.product()).norm() < 1.001 * best);
    let again = randomized_svd(&matrix, 8, 4, 0).unwrap();
    assert_eq!(found.u, again.u);
}

#[test]
fn what_is_not_finite_is_refused() {
    for bad in [f64::NAN, f64::INFINITY] {
        let matrix = Matrix::from_fn(3, 2, |row, _| if row == 1 { bad } else { 1.0 });
        assert_eq!(svd(&matrix).unwrap_err(), LinalgError::NotFinite);
        assert_eq!(qr(&matrix).unwrap_err(), LinalgError::NotFinite);
        assert_eq!(
            randomized_svd(&matrix, 1, 1, 0).unwrap_err(),
            LinalgError::NotFinite
        );
        assert_eq!(
            IncrementalSvd::new(1).add(&matrix).unwrap_err(),
            LinalgError::NotFinite
        );
    }
    assert_eq!(
        inverse(&Matrix::zeros(2, 2)).unwrap_err(),
        LinalgError::NotPositive
    );
}

/// `numpy.linalg.svd` of the 3 x 4 matrix `1 / (1 + row^2 + column)`, version 2.4.6.
#[test]
fn singular_values_are_those_of_numpy() {
    let matrix = Matrix::from_fn(3, 4, |row, column| {
        1.0 / (1.0 + (row * row + column) as f64)
    });
    let found = svd(&matrix).unwrap();
    for (found, expected) in found.s.iter().zip(NUMPY) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

const NUMPY: [f64; 3] = [1.404202887584476, 0.138498359944383, 0.008100497357632];
