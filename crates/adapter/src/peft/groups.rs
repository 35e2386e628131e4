//! LoRA of a convolution in groups, as PEFT has it.
//!
//! There A is a convolution of its own over the channels of all groups, `[r, groups x channels, ...]`, and B is in groups, `[out,
//! r / groups, 1, ...]`. An output so sees channels that its kernel has no weight for: no change of the kernel does that, and PEFT
//! cannot merge it either. Where every row of A keeps to the channels of the group that B gives it to, it is one.

use std::collections::HashMap;

use burn::module::Module;
use safetensors::tensor::Dtype;

use super::folder::Tensors;
use super::keys::layer_key;
use super::tensors::Stored;
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::TensorFault;
use crate::plan::Planned;
use crate::sites::sites;
use crate::view::{Kind, View};

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

/// The sizes of the factors of one layer.
struct Sizes {
    rank: usize,
    groups: usize,
    /// What one group has in a row of A: its channels times the kernel.
    width: usize,
    /// Outputs of one group.
    outputs: usize,
}

impl Sizes {
    /// Of a layer whose factors have these shapes in a file, if they are those of a convolution in groups.
    fn of(view: &View, a: &[usize], b: &[usize]) -> Option<Self> {
        let (rank, all) = (*a.first()?, *a.get(1)?);
        let groups = all / view.channels().max(1);
        let sizes = Self::new(view, rank, groups)?;
        let is_whole = a == sizes.a_shape(view) && rank.is_multiple_of(groups);
        (is_whole && b == view.output_shape(rank / groups)).then_some(sizes)
    }

    /// Of a layer in so many groups.
    fn new(view: &View, rank: usize, groups: usize) -> Option<Self> {
        let [width, d_out] = view.dims();
        let is_any = rank > 0 && width > 0;
        (is_any && groups > 1 && d_out.is_multiple_of(groups)).then(|| Self {
            rank,
            groups,
            width,
            outputs: d_out / groups,
        })
    }

    /// The shape of A over the channels of all groups.
    fn a_shape(&self, view: &View) -> Vec<usize> {
        let mut shape = view.input_shape(self.rank);
        shape[1] *= self.groups;
        shape
    }

    /// The rows of A of one group.
    fn each(&self) -> usize {
        self.rank / self.groups
    }

    /// Whether every row of A keeps to its group.
    fn keeps_to_groups(&self, a: &[f32]) -> bool {
        let mut rows = a.chunks(self.groups * self.width).enumerate();
        rows.all(|(row, values)| {
            let mut groups = values.chunks(self.width).enumerate();
            groups.all(|(group, values)| {
                group == row / self.each() || values.iter().all(|value| *value == 0.0)
            })
        })
    }

    /// A without the channels of other groups, `[r, width]`, and B with its zeros, `[out, r]`.
    fn joined(&self, a: &[f32], b: &[f32]) -> [Vec<f32>; 2] {
        let rows = a.chunks(self.groups * self.width).enumerate();
        let a = rows.flat_map(|(row, values)| {
            let start = row / self.each() * self.width;
            values[start..start + self.width].iter().copied()
        });
        let mut joined = vec![0.0; self.groups * self.outputs * self.rank];
        for (output, values) in b.chunks(self.each()).enumerate() {
            let start = output * self.rank + output / self.outputs * self.each();
            joined[start..start + self.each()].copy_from_slice(values);
        }
        [a.collect(), joined]
    }

    /// B without its zeros, `[out, r / groups]`, if every row of A acts on the outputs of one group, in the order of the groups.
    fn parted(&self, b: &[f32]) -> Option<Vec<f32>> {
        if !self.rank.is_multiple_of(self.groups) || b.iter().all(|value| *value == 0.0) {
            return None;
        }
        let mut parted = Vec::with_capacity(b.len() / self.groups);
        for (output, values) in b.chunks(self.rank).enumerate() {
            for (group, values) in values.chunks(self.each()).enumerate() {
                match group == output / self.outputs {
                    true => parted.extend_from_slice(values),
                    false if values.iter().all(|value| *value == 0.0) => {}
                    false => return None,
                }
            }
        }
        Some(parted)
    }

    /// Rows `[r, width]` over the channels of all groups, each at those of its group.
    fn spread(&self, a: &[f32]) -> Vec<f32> {
        let mut spread = vec![0.0; self.rank * self.groups * self.width];
        for (row, values) in a.chunks(self.width).enumerate() {
            let start = (row * self.groups + row / self.each()) * self.width;
            spread[start..start + self.width].copy_from_slice(values);
        }
        spread
    }
}

/// Brings the factors of convolutions in groups to those of the kernel. Returns the layers with their groups, and a fault for each
/// that is no change of its kernel.
pub(super) fn ungroup<M: Module>(
    module: &M,
    file: &mut HashMap<String, Stored>,
) -> (Vec<(String, usize)>, Vec<TensorFault>) {
    let (mut layers, mut faults) = (Vec::new(), Vec::new());
    let convolutions = sites(module).into_iter();
    for site in convolutions.filter(|site| site.view.kind == Kind::Conv) {
        let path = site.module_path();
        let keys = [A, B].map(|name| layer_key(path, name));
        let [Some(a), Some(b)] = [&keys[0], &keys[1]].map(|key| file.get(key)) else {
            continue;
        };
        let Some(sizes) = Sizes::of(&site.view, &a.shape, &b.shape) else {
            continue;
        };
        let mut numbers = |key: &String, stored: &Stored| {
            stored.numbers(key).unwrap_or_else(|fault| {
                faults.push(fault);
                vec![0.0; stored.shape.iter().product()]
            })
        };
        let (a, b) = (numbers(&keys[0], a), numbers(&keys[1], b));
        if !sizes.keeps_to_groups(&a) {
            faults.push(TensorFault::AcrossGroups {
                key: keys[0].clone(),
                groups: sizes.groups,
            });
        }
        let joined = sizes.joined(&a, &b);
        let shapes = [
            site.view.input_shape(sizes.rank),
            site.view.output_shape(sizes.rank),
        ];
        for ((key, values), shape) in keys.into_iter().zip(joined).zip(shapes) {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            let stored = Stored {
                dtype: Ok(Dtype::F32),
                shape,
                bytes: bytes.collect(),
            };
            file.insert(key, stored);
        }
        layers.push((path.to_string(), sizes.groups));
    }
    (layers, faults)
}

/// The shapes that a file has of the factors of a planned layer, where it is a convolution in groups.
pub(crate) fn grouped_shapes(planned: &Planned, config: &LoraConfig) -> Option<[Vec<usize>; 2]> {
    let groups = groups_of(planned, config)?;
    let sizes = Sizes::new(&planned.view, planned.rank * groups, groups)?;
    let b = planned.view.output_shape(planned.rank);
    Some([sizes.a_shape(&planned.view), b])
}

fn groups_of(planned: &Planned, config: &LoraConfig) -> Option<usize> {
    let is_lora = matches!(planned.blueprint, Blueprint::Lora { .. });
    let groups = config.groups_of(planned.module_path());
    (is_lora && planned.view.kind == Kind::Conv && groups > 1).then_some(groups)
}

/// Brings the factors of convolutions in groups to PEFT's form, of so many times the rank, and the configuration with them.
pub(super) fn group(planned: &[Planned], tensors: &mut Tensors, config: &mut LoraConfig) {
    for planned in planned {
        let Some(groups) = groups_of(planned, config) else {
            continue;
        };
        let path = planned.module_path();
        let keys = [A, B].map(|name| layer_key(path, name));
        let [Some((_, a)), Some((_, b))] = [&keys[0], &keys[1]].map(|key| tensors.get(key)) else {
            continue;
        };
        let Some(own) = Sizes::new(&planned.view, planned.rank, groups) else {
            continue;
        };
        let (sizes, a, b) = match own.parted(b) {
            Some(b) => (own, a.clone(), b),
            // Every group has all rows of A for itself.
            None => {
                let rank = planned.rank * groups;
                (Sizes { rank, ..own }, a.repeat(groups), b.clone())
            }
        };
        if sizes.rank != planned.rank {
            let growth = match config.use_rslora {
                true => (groups as f64).sqrt(),
                false => groups as f64,
            };
            let key = regex::escape(path);
            config.rank_pattern.insert(0, (key.clone(), sizes.rank));
            config
                .alpha_pattern
                .insert(0, (key, planned.alpha * growth));
        }
        let [a_key, b_key] = keys;
        let b_shape = planned.view.output_shape(sizes.each());
        tensors.insert(a_key, (sizes.a_shape(&planned.view), sizes.spread(&a)));
        tensors.insert(b_key, (b_shape, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel `[4, 3, 2]` in two groups.
    fn view() -> View {
        View {
            kind: Kind::Conv,
            shape: vec![4, 3, 2],
        }
    }

    #[test]
    fn what_is_spread_over_groups_is_joined_again() {
        let view = view();
        let sizes = Sizes::of(&view, &[6, 6, 2], &[4, 3, 1]).unwrap();
        assert_eq!((sizes.groups, sizes.width, sizes.outputs), (2, 6, 2));
        let a: Vec<f32> = (1..=36).map(|value| value as f32).collect();
        let b: Vec<f32> = (1..=12).map(|value| value as f32).collect();
        let spread = sizes.spread(&a);
        assert_eq!(spread.len(), 6 * 6 * 2);
        assert!(sizes.keeps_to_groups(&spread));
        // The fourth row is the first of the second group.
        assert_eq!(spread[36..42], [0.0; 6]);
        assert_eq!(spread[42..48], a[18..24]);
        let [again, joined] = sizes.joined(&spread, &b);
        assert_eq!(again, a);
        assert_eq!(joined[..6], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        assert_eq!(joined[18..], [0.0, 0.0, 0.0, 10.0, 11.0, 12.0]);
        assert_eq!(sizes.parted(&joined), Some(b));

        let mut across = spread;
        across[36] = 0.5;
        assert!(!sizes.keeps_to_groups(&across));
        let mut dense = joined;
        dense[3] = 0.5;
        assert_eq!(sizes.parted(&dense), None);
        assert_eq!(sizes.parted(&[0.0; 24]), None);
    }

    #[test]
    fn shapes_of_no_groups_are_left_alone() {
        let view = view();
        for (a, b) in [
            ([6, 3, 2], [4, 6, 1]),
            ([5, 6, 2], [4, 2, 1]),
            ([6, 6, 3], [4, 3, 1]),
            ([6, 7, 2], [4, 3, 1]),
            ([6, 9, 2], [4, 2, 1]),
            ([0, 6, 2], [4, 0, 1]),
        ] {
            assert!(Sizes::of(&view, &a, &b).is_none(), "{a:?} {b:?}");
        }
    }
}
