use std::sync::Arc;

use burn::tensor::Tensor;

use super::math::vectorized;
use super::pool::buffer;
use super::rows::fill_rows;
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};
use crate::rope::Angles;

/// Rotates the heads `[batch, seq, heads, d]` by their positions.
pub(crate) fn rotate(x: Tensor<4>, angles: Arc<Angles>) -> Tensor<4> {
    let dtype = x.dtype();
    apply(Rotate { angles }, [x.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct Rotate {
    angles: Arc<Angles>,
}

impl Rotate {
    /// By the angles, or by their negatives with `direction = -1`.
    fn by(&self, x: &HostTensor, direction: f32) -> Output {
        let x = x.clone().contiguous();
        let [_, seq, heads, d] = x.dims::<4>();
        let (half, from) = (self.angles.half, x.slice());
        let mut y = buffer(from.len());
        let token = heads * d;
        fill_rows(&mut y, token, |first, rows| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, y) in rows.chunks_exact_mut(token).enumerate() {
                        let at = first + i;
                        let (cos, sin) = self.angles.of(at / seq, at % seq);
                        let x = &from[at * token..][..token];
                        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                            let (x, kept) = x.split_at(2 * half);
                            let (y, rest) = y.split_at_mut(2 * half);
                            rest.copy_from_slice(kept);
                            let (x1, x2) = x.split_at(half);
                            let (y1, y2) = y.split_at_mut(half);
                            let y = y1.iter_mut().zip(y2.iter_mut());
                            let x = x1.iter().zip(x2);
                            for ((y, x), (cos, sin)) in y.zip(x).zip(cos.iter().zip(sin)) {
                                let sin = direction * sin;
                                *y.0 = x.0 * cos - x.1 * sin;
                                *y.1 = x.1 * cos + x.0 * sin;
                            }
                        }
                    }
                },
            );
        });
        Output::new(y, x.shape())
    }
}

impl Operation<InMemory> for Rotate {
    fn forward(&self, inputs: &[HostTensor], _: &[bool]) -> (Output, Saved) {
        (self.by(&inputs[0], 1.0), Saved::default())
    }

    /// A rotation's transpose is the rotation back, by the same amplitude.
    fn backward(&self, _: Saved, grad: HostTensor, _: &[bool]) -> Vec<Option<Output>> {
        vec![Some(self.by(&grad, -1.0))]
    }
}
