//! Which keys queries see, as kernels read it: from one key to before another.

use std::ops::Range;

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use crate::attention_mask::Visible;

/// The bounds that a mask was first asked for: all layers of a model ask for the same.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Rows, queries and keys.
    sizes: [usize; 3],
    memory: CubeTensor,
}

/// Where the keys start and end: of each query of each row of the batch, or of each row; nothing if they are all.
///
/// # Shapes
/// - sizes: the rows of the batch, queries, keys
/// - output: `[rows, queries, 2]`, or `[rows, 2]`, in one dimension
pub(super) fn bounds(
    visible: &Visible,
    sizes: [usize; 3],
    beside: &CubeTensor,
) -> Option<CubeTensor> {
    if !visible.is_ranged() && !visible.is_padded() {
        return None;
    }
    let made = || copied(&numbers(visible, sizes), beside);
    let first = visible.bounds.get_or_init(|| Bounds {
        sizes,
        memory: made(),
    });
    let same = first.sizes == sizes && first.memory.device == beside.device;
    Some(if same { first.memory.clone() } else { made() })
}

fn numbers(visible: &Visible, [rows, queries, keys]: [usize; 3]) -> Vec<u32> {
    let pair = |keys: Range<usize>| [keys.start as u32, keys.end as u32];
    if visible.is_ranged() {
        let of_row = |row| (0..queries).map(move |query| visible.range(row, query, keys));
        (0..rows).flat_map(of_row).flat_map(pair).collect()
    } else {
        let of_row = |row| visible.keys_of(row, keys);
        (0..rows).map(of_row).flat_map(pair).collect()
    }
}

fn copied(numbers: &[u32], beside: &CubeTensor) -> CubeTensor {
    let handle = beside
        .client
        .create_from_slice(bytemuck::cast_slice(numbers));
    CubeTensor::new_contiguous(
        beside.client.clone(),
        beside.device.clone(),
        Shape::from(vec![numbers.len()]),
        handle,
        DType::U32,
    )
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tensor};
    use burn_cubecl::ops::into_data_sync;

    use super::*;
    use crate::AttentionMask;
    use crate::comparison::gpus;
    use crate::cube::apply::primitive;

    fn visible(mask: &AttentionMask) -> std::sync::Arc<Visible> {
        mask.rule().flatten().expect("a rule that hides something")
    }

    #[test]
    fn layers_share_the_bounds_of_a_mask_on_gpus() {
        for gpu in gpus().into_iter().map(Device::inner) {
            let beside = primitive(Tensor::<1>::zeros([1], &gpu));
            let packed = AttentionMask::causal_documents(4, &[vec![1, 3], vec![4]], None, &gpu);
            let padded = AttentionMask::causal_left_padded(4, 0, &[0, 3], &gpu);
            let expected: [&[u32]; 2] = [
                &[0, 1, 1, 2, 1, 3, 1, 4, 0, 1, 0, 2, 0, 3, 0, 4],
                &[0, 4, 3, 4],
            ];
            for (mask, expected) in [packed, padded].iter().zip(expected) {
                let visible = visible(mask);
                let of = |sizes| bounds(&visible, sizes, &beside).expect("it hides keys");
                let (first, second) = (of([2, 4, 4]), of([2, 4, 4]));
                assert!(!first.can_mut() && !second.can_mut());
                // Fewer rows have bounds of their own.
                let fewer = of([1, 4, 4]);
                assert!(fewer.can_mut());
                for (made, expected) in
                    [(second, expected), (fewer, &expected[..expected.len() / 2])]
                {
                    let numbers = into_data_sync(made).try_to_vec::<u32>();
                    assert_eq!(numbers.expect("whole numbers"), expected);
                }
            }
            let all = AttentionMask::causal(4, 0, &gpu);
            assert!(bounds(&visible(&all), [2, 4, 4], &beside).is_none());
        }
    }
}
