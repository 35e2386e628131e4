//! Queries, keys and values out of what one projection made for all three, rotated on the way.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::apply::{apply_several, array};
use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, reshaped, vector_size};
use super::rope::{DeviceAngles, rotated};
use super::{OnDevice, Saved};
use crate::operation::Several;
use crate::rope::Angles;

/// See [`crate::split_heads`].
pub(crate) fn split_heads(
    qkv: Tensor<3>,
    heads: [usize; 3],
    rotation: Option<(Arc<Angles>, &DeviceAngles)>,
) -> [Tensor<4>; 3] {
    let dtype = qkv.dtype();
    let device = qkv.device();
    let rotation = rotation.map(|(angles, on_device)| {
        let table = on_device.of(&angles, &device);
        (angles, table)
    });
    let op = Split { heads, rotation };
    array(apply_several(op, [qkv.into_dispatch()], dtype))
}

#[derive(Clone, Debug)]
struct Split {
    /// Of queries, keys and values.
    heads: [usize; 3],
    rotation: Option<(Arc<Angles>, CubeTensor)>,
}

impl Split {
    /// Copies all heads one way or the other, queries and keys rotated by their angles or back.
    fn copy(&self, packed: &CubeTensor, parts: &[CubeTensor; 3], back: bool) {
        let [batch, seq, width] = [0, 1, 2].map(|dim| packed.meta.shape()[dim]);
        let all: usize = self.heads.iter().sum();
        let d = width / all;
        let half = self.rotation.as_ref().map_or(0, |(angles, _)| angles.half);
        let (cosines, shared) = match &self.rotation {
            Some((angles, _)) => (angles.cos.len(), angles.rows == 1),
            None => (0, true),
        };
        let table = self.rotation.as_ref().map_or(packed, |(_, table)| table);
        let [q, k, v] = parts;
        let mut size = vector_size(&[packed, q, k, v], d);
        while !half.is_multiple_of(size) {
            size /= 2;
        }
        // Pairs of vectors that are rotated, and vectors behind that are not.
        let work = (d - half) / size;
        let count = batch * seq * all * work;
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            copy_heads::launch_unchecked(
                &packed.client,
                cubes_for(&packed.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(packed),
                buffer(table),
                buffer(q),
                buffer(k),
                buffer(v),
                count,
                seq,
                self.heads[0],
                self.heads[1],
                self.heads[2],
                d / size,
                half / size,
                cosines / size,
                shared,
                self.rotation.is_some(),
                back,
                [elem(packed), elem(table)],
            );
        }
    }

    /// The shape of a part.
    fn of(&self, packed: &CubeTensor, part: usize) -> [usize; 4] {
        let [batch, seq, width] = [0, 1, 2].map(|dim| packed.meta.shape()[dim]);
        let all: usize = self.heads.iter().sum();
        [batch, seq, self.heads[part], width / all]
    }
}

impl Several<OnDevice> for Split {
    fn forward(&self, inputs: &[CubeTensor], _: &[bool]) -> (Vec<CubeTensor>, Saved) {
        let packed = contiguous(inputs[0].clone());
        let parts = [0, 1, 2].map(|part| empty(&packed, &self.of(&packed, part), packed.dtype));
        self.copy(&packed, &parts, false);
        (parts.into(), Saved::default())
    }

    /// A rotation's transpose is the rotation back, by the same amplitude.
    fn backward(
        &self,
        _: Saved,
        grads: Vec<Option<CubeTensor>>,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let known = grads.iter().flatten().next();
        let known = known.expect("the gradient of one part").clone();
        let [batch, seq, _, d] = [0, 1, 2, 3].map(|dim| known.meta.shape()[dim]);
        let mut grads = grads.into_iter();
        let parts = self.heads.map(|heads| match grads.next().flatten() {
            Some(grad) => contiguous(grad),
            None => nothing(&known, [batch, seq, heads, d]),
        });
        let all: usize = self.heads.iter().sum();
        let packed = empty(&known, &[batch, seq, all * d], known.dtype);
        self.copy(&packed, &parts, true);
        vec![Some(packed)]
    }
}

/// The gradient of heads that nothing was made of.
fn nothing(beside: &CubeTensor, shape: [usize; 4]) -> CubeTensor {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    // In one dimension, where no row has a gap behind it.
    let count = [shape.iter().product::<usize>()];
    let zeros = zeros_client(client, device, count.into(), beside.dtype);
    reshaped(zeros, &shape)
}

/// All sizes are in vectors. The table has all cosines, then all sines.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn copy_heads<X: Float, T: Float, N: Size>(
    packed: &mut [Vector<X, N>],
    table: &[Vector<T, N>],
    q: &mut [Vector<X, N>],
    k: &mut [Vector<X, N>],
    v: &mut [Vector<X, N>],
    count: usize,
    seq: usize,
    q_heads: usize,
    k_heads: usize,
    v_heads: usize,
    d: usize,
    half: usize,
    sines: usize,
    #[comptime] shared: bool,
    #[comptime] rotates: bool,
    #[comptime] back: bool,
    #[define(X, T)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let work = d - half;
        let place = ABSOLUTE_POS % work;
        let head_at = ABSOLUTE_POS / work;
        let all = q_heads + k_heads + v_heads;
        let head = head_at % all;
        let token = head_at / all;
        let at = head_at * d + place;
        let mut cos = Vector::<f32, N>::new(1.0f32);
        let mut sin = Vector::<f32, N>::new(0.0f32);
        if comptime!(rotates) {
            if place < half && head < q_heads + k_heads {
                let mut angle = token * half + place;
                if comptime!(shared) {
                    angle = token % seq * half + place;
                }
                cos = Vector::cast_from(table[angle]);
                sin = Vector::cast_from(table[sines + angle]);
                if comptime!(back) {
                    sin = Vector::new(0.0f32) - sin;
                }
            }
        }
        if head < q_heads {
            let to = (token * q_heads + head) * d + place;
            pair::<X, N>(packed, at, q, to, half, place, cos, sin, back);
        } else if head < q_heads + k_heads {
            let to = (token * k_heads + head - q_heads) * d + place;
            pair::<X, N>(packed, at, k, to, half, place, cos, sin, back);
        } else {
            let to = (token * v_heads + head - q_heads - k_heads) * d + place;
            pair::<X, N>(packed, at, v, to, half, place, cos, sin, back);
        }
    }
}

/// Copies two vectors of a head, rotated, or one that has no partner.
#[cube]
#[allow(clippy::too_many_arguments)]
fn pair<X: Float, N: Size>(
    packed: &mut [Vector<X, N>],
    at: usize,
    part: &mut [Vector<X, N>],
    to: usize,
    half: usize,
    place: usize,
    cos: Vector<f32, N>,
    sin: Vector<f32, N>,
    #[comptime] back: bool,
) {
    if place < half {
        if comptime!(back) {
            let (first, second) = rotated::<X, N>(part[to], part[to + half], cos, sin);
            packed[at] = first;
            packed[at + half] = second;
        } else {
            let (first, second) = rotated::<X, N>(packed[at], packed[at + half], cos, sin);
            part[to] = first;
            part[to + half] = second;
        }
    } else if comptime!(back) {
        packed[at + half] = part[to + half];
    } else {
        part[to + half] = packed[at + half];
    }
}
