use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
use crate::rope::RopeTables;

/// Queries, keys and values out of what one projection made for all three, queries and keys rotated if there are angles.
///
/// # Shapes
///
/// - qkv: `[batch, seq, (heads of queries + of keys + of values) * d]`
/// - output: `[batch, seq, heads, d]` each
///
/// # Panics
///
/// If the heads do not divide the width.
pub fn split_heads(
    qkv: Tensor<3>,
    heads: [usize; 3],
    rotation: Option<&RopeTables>,
) -> [Tensor<4>; 3] {
    let [batch, seq, width] = qkv.dims();
    let all: usize = heads.iter().sum();
    assert!(
        all > 0 && width.is_multiple_of(all),
        "{all} heads do not divide {width} numbers"
    );
    #[cfg(feature = "cube")]
    if cube::takes(&qkv) {
        let rotation = rotation.map(RopeTables::on_gpu);
        return cube::split_heads(qkv, heads, rotation);
    }
    let d = width / all;
    let part = |from: usize, heads: usize| -> Tensor<4> {
        let part = qkv.clone().narrow(2, from * d, heads * d);
        part.reshape([batch, seq, heads, d])
    };
    let rotated = |x: Tensor<4>| match rotation {
        Some(tables) => tables.apply(x),
        None => x,
    };
    let [q, k, v] = heads;
    [rotated(part(0, q)), rotated(part(q, k)), part(q + k, v)]
}
