//! Numbers that are not finite, found while a checkpoint is read: one of them makes every loss NaN, many steps later.

use safetensors::Dtype;

use crate::convert::{Stored, with_stored};

/// The numbers that are compared before the first culprit is looked for.
const BLOCK: usize = 4096;

/// What is wrong with the numbers of a tensor.
#[derive(Debug, PartialEq)]
pub(crate) struct Scan {
    /// The place of the first number that is not finite, in the order of the file.
    pub(crate) first: usize,
    /// That number.
    pub(crate) value: f32,
    /// How many there are.
    pub(crate) count: usize,
}

/// Finds the numbers that are not finite, or not any more as `to`.
pub(crate) fn scan(bytes: &[u8], from: Dtype, to: Dtype) -> Option<Scan> {
    with_stored!(from, S => with_stored!(to, T => scan_as::<S, T>(bytes)))
}

fn scan_as<S: Stored, T: Stored>(bytes: &[u8]) -> Option<Scan> {
    // NaN is below nothing. Without a branch for each number, the compiler compares many at once.
    let is_fine = |number: &[u8]| S::from_le(number).to_f32().abs() < T::OVERFLOW;
    let is_fine_block = |block: &[u8]| {
        let numbers = block.chunks_exact(S::BYTES);
        numbers.fold(true, |fine, number| fine & is_fine(number))
    };
    let mut found: Option<Scan> = None;
    for (index, block) in bytes.chunks(BLOCK * S::BYTES).enumerate() {
        if is_fine_block(block) {
            continue;
        }
        for (at, number) in block.chunks_exact(S::BYTES).enumerate() {
            if !is_fine(number) {
                let scan = found.get_or_insert(Scan {
                    first: index * BLOCK + at,
                    value: S::from_le(number).to_f32(),
                    count: 0,
                });
                scan.count += 1;
            }
        }
    }
    found
}

/// The position of the number at place `at` in a tensor of this shape.
pub(crate) fn position(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut position = vec![0; shape.len()];
    for (index, size) in position.iter_mut().zip(shape).rev() {
        *index = at % size.max(&1);
        at /= size.max(&1);
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn the_first_is_found_and_all_are_counted() {
        let mut values = vec![1.0; 3 * BLOCK];
        assert_eq!(scan(&bytes(&values), Dtype::F32, Dtype::F32), None);
        values[BLOCK + 7] = f32::NEG_INFINITY;
        values[2 * BLOCK + 1] = f32::NAN;
        let expected = Scan {
            first: BLOCK + 7,
            value: f32::NEG_INFINITY,
            count: 2,
        };
        assert_eq!(
            scan(&bytes(&values), Dtype::F32, Dtype::F32),
            Some(expected)
        );
        let halves = [f16::from_f32(1.0), f16::NAN]
            .map(f16::to_le_bytes)
            .concat();
        assert_eq!(
            scan(&halves, Dtype::F16, Dtype::F32).map(|s| s.first),
            Some(1)
        );
        let halves = [bf16::INFINITY].map(bf16::to_le_bytes).concat();
        assert_eq!(
            scan(&halves, Dtype::BF16, Dtype::BF16).map(|s| s.first),
            Some(0)
        );
    }

    #[test]
    fn what_a_smaller_dtype_cannot_hold_is_found_exactly() {
        for value in [65_504.0, 65_519.9, 65_520.0, 1e6, -1e6, 3.39e38, f32::MAX] {
            for to in [Dtype::F16, Dtype::BF16] {
                let holds = match to {
                    Dtype::F16 => f16::from_f32(value).is_finite(),
                    _ => bf16::from_f32(value).is_finite(),
                };
                let found = scan(&bytes(&[value]), Dtype::F32, to);
                assert_eq!(found.is_none(), holds, "{value} as {to:?}");
            }
        }
    }

    #[test]
    fn a_place_is_a_position_of_the_shape() {
        assert_eq!(position(7, &[2, 5]), [1, 2]);
        assert_eq!(position(4, &[5]), [4]);
        assert!(position(0, &[]).is_empty());
    }
}
