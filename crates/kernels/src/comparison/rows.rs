use burn::tensor::{Int, Tensor};

use super::case::{Case, close, flat};
use super::devices::{all_devices, devices};

#[test]
fn select_rows() {
    for (n, d) in [(1, 5), (77, 64)] {
        // Every second row, from the last to the first.
        let rows: Vec<i32> = (0..n as i32).rev().step_by(2).collect();
        let select = |x: &[Tensor<1>]| {
            let device = x[0].device().inner();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &device);
            (x[0].clone().reshape([n, d]), rows)
        };
        let case = Case {
            name: "select_rows",
            sizes: &[n * d],
            ours: &|x| {
                let (x, rows) = select(x);
                flat(crate::select_rows(x, rows))
            },
            portable: &|x| {
                let (x, rows) = select(x);
                flat(x.select(0, rows))
            },
        };
        case.check();
    }
}

#[test]
fn no_rows_have_gradients_of_zero() {
    // With overflow checks, burn-cubecl 0.22.1 panics where it looks whether a tensor without rows has gaps.
    let all = match cfg!(debug_assertions) {
        true => devices(),
        false => all_devices(),
    };
    for device in all {
        let x = Tensor::<2>::zeros([0, 40], &device).require_grad();
        let weight = Tensor::<1>::ones([40], &device).require_grad();
        let matrix = Tensor::<2>::ones([40, 3], &device).require_grad();
        let bias = Tensor::<1>::ones([3], &device).require_grad();
        let y = crate::rms_norm(x.clone(), weight.clone(), 1e-5);
        let y = crate::projection(y, matrix.clone(), Some(bias.clone()), None);
        assert_eq!(y.dims(), [0, 3]);
        let grads = crate::silu_mul(y.clone(), y).sum().backward();
        let zero = |grad: Option<Tensor<1>>, size: usize| {
            close(
                &grad.expect("tracked"),
                &Tensor::zeros([size], &device),
                0.0,
            );
        };
        zero(weight.grad(&grads), 40);
        zero(bias.grad(&grads), 3);
        zero(matrix.grad(&grads).map(flat), 120);
    }
}
