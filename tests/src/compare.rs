use burn::tensor::{DType, Tensor, TensorData};

/// The values of a tensor of any float dtype, row by row.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    values(tensor.into_data())
}

pub(crate) fn values(data: TensorData) -> Vec<f32> {
    data.convert_dtype(DType::F32).try_into_vec().unwrap()
}

/// The largest absolute difference of two lists of the same length; NaN if any value is.
pub fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len(), "the lengths differ");
    left.iter()
        .zip(right)
        .map(|(l, r)| (l - r).abs())
        .fold(0.0, |worst, gap| {
            if gap.is_nan() || gap > worst {
                gap
            } else {
                worst
            }
        })
}

/// Fails unless every value is within `tolerance` (absolute) of the expected one.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(
        actual.len(),
        expected.len(),
        "{what}: the number of values differs"
    );
    let off = |(index, (a, e)): (usize, (&f32, &f32))| {
        // Written so that NaN fails.
        let within = (a - e).abs() <= tolerance;
        (!within).then_some((index, *a, *e))
    };
    let culprits: Vec<_> = actual
        .iter()
        .zip(expected)
        .enumerate()
        .filter_map(off)
        .collect();
    if let Some((index, a, e)) = culprits.first() {
        panic!(
            "{what}: {} of {} values differ by more than {tolerance:e}, the most by {:e}; the first at {index}: {a} instead of {e}",
            culprits.len(),
            actual.len(),
            largest_difference(actual, expected),
        );
    }
}

/// Fails unless the values are equal, bit for bit but for the sign of zero.
#[track_caller]
pub fn assert_same(what: &str, actual: &[f32], expected: &[f32]) {
    assert_close(what, actual, expected, 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "1 of 2 values differ")]
    fn a_nan_is_no_match() {
        assert_close("values", &[1.0, f32::NAN], &[1.0, 2.0], 1e3);
    }

    #[test]
    fn the_largest_difference_does_not_lose_a_nan() {
        assert_eq!(largest_difference(&[1.0, 5.0], &[1.5, 3.0]), 2.0);
        assert!(largest_difference(&[f32::NAN, 5.0], &[1.5, 3.0]).is_nan());
    }
}
