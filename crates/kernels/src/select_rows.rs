use burn::tensor::{Int, Tensor};

#[cfg(feature = "cube")]
use crate::cube;

/// Some rows of a matrix, each at most once.
///
/// `y_i = x_rows(i)`
///
/// As [`Tensor::select`], but that no row is named twice lets a GPU put every row of the gradient back on its own.
///
/// # Shapes
///
/// - x: `[n, d]`
/// - rows: `[m]`, from 0 to `n - 1`
/// - output: `[m, d]`
pub fn select_rows(x: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if cube::takes(&x) && rows.dims()[0] > 0 {
        return cube::select_rows(x, rows);
    }
    x.select(0, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};

    #[test]
    fn rows_and_their_gradients_keep_their_places() {
        let device = device();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let x = x.require_grad();
        let rows = Tensor::<1, Int>::from_data([2, 0], &device);
        let y = select_rows(x.clone(), rows);
        assert_values(y.clone(), &[5.0, 6.0, 1.0, 2.0]);
        let scale = Tensor::from_floats([[1.0, 10.0], [100.0, 1000.0]], &device);
        let grads = (y * scale).sum().backward();
        let grad = x.grad(&grads).expect("x is tracked");
        assert_values(grad, &[100.0, 1000.0, 0.0, 0.0, 1.0, 10.0]);
    }
}
