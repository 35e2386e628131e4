//! A rectangle of token ids and where its loss is.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::example::Example;

/// Examples padded on the right to the longest of them, and the positions that are learned.
///
/// The token at `t` of row `b` is predicted at the flat position `p = b * seq_len + t - 1`, the one
/// before it. The loss is taken at [`rows`](Self::rows) only, so neither the prompt nor padding
/// needs logits, let alone a mask of the loss. A causal decoder needs no mask for right padding
/// either: no learned position sees what comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[batch_size, seq_len]` row by row.
    pub ids: Vec<u32>,
    /// Rows in the batch.
    pub batch_size: usize,
    /// Tokens of the longest row.
    pub seq_len: usize,
    /// Tokens of each row, without padding.
    pub lengths: Vec<usize>,
    /// Tokens of each example of each row, in order; one example a row unless it is packed.
    pub documents: Vec<Vec<usize>>,
    /// Flat positions, ascending, whose next token is learned.
    pub rows: Vec<u32>,
    /// The token to predict at each of [`rows`](Self::rows).
    pub targets: Vec<u32>,
}

/// A [`Batch`] on a device.
#[derive(Debug, Clone)]
pub struct BatchTensors {
    /// Token ids, `[batch_size, seq_len]`.
    pub ids: Tensor<2, Int>,
    /// Flat positions whose next token is learned, `[learned]`.
    pub rows: Tensor<1, Int>,
    /// The token to predict at each of them, `[learned]`.
    pub targets: Tensor<1, Int>,
    /// How many tokens are learned: the loss's denominator.
    pub learned: usize,
    /// Tokens without padding: what throughput counts.
    pub tokens: usize,
    /// Tokens of each row, without padding.
    pub lengths: Vec<usize>,
    /// Where rows hold several examples, the tokens of each example of each row.
    pub documents: Option<Vec<Vec<usize>>>,
}

impl Batch {
    /// Pads `examples` with `pad`.
    ///
    /// # Panics
    ///
    /// Without an example; [`BatchPlan`](crate::BatchPlan) makes no such batch.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, pad: u32) -> Self {
        Self::packed(examples.into_iter().map(|example| [example]), pad)
    }

    /// Rows of several examples each, one after the other; shorter rows are padded with `pad`.
    ///
    /// No token is learned from another example's: the first of each is not learned, and
    /// [`documents`](Self::documents) says where the model must not look back.
    ///
    /// # Panics
    ///
    /// Without a row or with an empty one.
    pub fn packed<'a, R: AsRef<[&'a Example]>>(
        rows: impl IntoIterator<Item = R>,
        pad: u32,
    ) -> Self {
        let packs: Vec<R> = rows.into_iter().collect();
        let documents: Vec<Vec<usize>> = packs
            .iter()
            .map(|pack| pack.as_ref().iter().map(|example| example.len()).collect())
            .collect();
        assert!(
            !documents.is_empty() && documents.iter().all(|row| !row.is_empty()),
            "a batch has at least one example in each row"
        );
        let lengths: Vec<usize> = documents.iter().map(|row| row.iter().sum()).collect();
        let seq_len = lengths.iter().copied().max().unwrap_or(0);

        let mut ids = Vec::with_capacity(packs.len() * seq_len);
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for (row, pack) in packs.iter().enumerate() {
            for example in pack.as_ref() {
                let start = ids.len();
                ids.extend_from_slice(example.ids());
                rows.extend(example.learned().map(|t| (start + t - 1) as u32));
                targets.extend(example.learned().map(|t| example.ids()[t]));
            }
            ids.resize((row + 1) * seq_len, pad);
        }
        Self {
            ids,
            batch_size: packs.len(),
            seq_len,
            lengths,
            documents,
            rows,
            targets,
        }
    }

    /// Whether a row holds several examples.
    pub fn is_packed(&self) -> bool {
        self.documents.iter().any(|row| row.len() > 1)
    }

    /// How many tokens are learned.
    pub fn learned(&self) -> usize {
        self.targets.len()
    }

    /// Tokens without padding.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Copies the batch to `device`, in the integer type that the device prefers.
    pub fn to_device(&self, device: &Device) -> BatchTensors {
        let flat = |values: &[u32]| TensorData::new(values.to_vec(), [values.len()]);
        let ids = TensorData::new(self.ids.clone(), [self.batch_size, self.seq_len]);
        BatchTensors {
            ids: Tensor::from_data(ids, device),
            rows: Tensor::from_data(flat(&self.rows), device),
            targets: Tensor::from_data(flat(&self.targets), device),
            learned: self.learned(),
            tokens: self.tokens(),
            lengths: self.lengths.clone(),
            documents: self.is_packed().then(|| self.documents.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random_examples;

    const PAD: u32 = 99;

    fn batch() -> Batch {
        let examples = [
            Example::new(vec![1, 2, 3, 4, 5], 3).unwrap(),
            Example::new(vec![6, 7], 1).unwrap(),
            Example::new(vec![8, 9, 10], 1).unwrap(),
        ];
        Batch::new(&examples, PAD)
    }

    #[test]
    fn pads_on_the_right() {
        let batch = batch();
        assert_eq!((batch.batch_size, batch.seq_len), (3, 5));
        assert_eq!(
            batch.ids,
            [1, 2, 3, 4, 5, 6, 7, PAD, PAD, PAD, 8, 9, 10, PAD, PAD]
        );
        assert_eq!(
            (batch.lengths.as_slice(), batch.tokens()),
            (&[5, 2, 3][..], 10)
        );
    }

    #[test]
    fn learns_exactly_the_completions() {
        let batch = batch();
        assert_eq!(batch.rows, [2, 3, 5, 10, 11]);
        assert_eq!(batch.targets, [4, 5, 7, 9, 10]);
        assert_eq!(batch.learned(), 5);
    }

    #[test]
    fn every_target_is_the_next_token_of_its_row() {
        for seed in 0..200 {
            let examples = random_examples(1 + seed as usize % 7, 12, seed);
            let batch = Batch::new(&examples, PAD);
            let mut learned = Vec::new();
            for (&position, &target) in batch.rows.iter().zip(&batch.targets) {
                let (row, t) = (
                    position as usize / batch.seq_len,
                    position as usize % batch.seq_len + 1,
                );
                assert_eq!(batch.ids[row * batch.seq_len + t], target);
                assert!(
                    examples[row].learned().any(|learned| learned == t),
                    "seed {seed}: neither prompt nor padding is learned"
                );
                learned.push((row, t));
            }
            let expected: Vec<(usize, usize)> = examples
                .iter()
                .enumerate()
                .flat_map(|(row, example)| example.learned().map(move |t| (row, t)))
                .collect();
            assert_eq!(learned, expected);
        }
    }

    #[test]
    fn packed_rows_lose_no_token_and_learn_none_across() {
        for seed in 0..100 {
            let examples = random_examples(2 + seed as usize % 9, 12, seed);
            let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
            let packs: Vec<Vec<&Example>> = crate::pack::pack(&lengths, 16)
                .unwrap()
                .into_iter()
                .map(|row| row.into_iter().map(|index| &examples[index]).collect())
                .collect();
            let batch = Batch::packed(&packs, PAD);
            let learned: usize = examples.iter().map(Example::learned_len).sum();
            assert_eq!(
                (batch.learned(), batch.tokens()),
                (learned, lengths.iter().sum())
            );
            let mut at = 0;
            for (row, pack) in packs.iter().enumerate() {
                let mut start = row * batch.seq_len;
                for example in pack {
                    assert_eq!(batch.ids[start..start + example.len()], *example.ids());
                    for t in example.learned() {
                        assert_eq!(batch.rows[at] as usize, start + t - 1);
                        assert_eq!(batch.targets[at], example.ids()[t]);
                        at += 1;
                    }
                    start += example.len();
                }
                assert!(
                    batch.ids[start..(row + 1) * batch.seq_len]
                        .iter()
                        .all(|&id| id == PAD)
                );
            }
            assert_eq!(batch.is_packed(), packs.len() < examples.len());
        }
    }

    #[test]
    fn tensors_hold_the_same_values() {
        let device = Device::flex();
        let batch = batch();
        let tensors = batch.to_device(&device);
        let values = |data: TensorData| data.convert::<u32>().try_to_vec::<u32>().unwrap();
        assert_eq!(tensors.ids.dims(), [3, 5]);
        assert_eq!(values(tensors.ids.into_data()), batch.ids);
        assert_eq!(values(tensors.rows.into_data()), batch.rows);
        assert_eq!(values(tensors.targets.into_data()), batch.targets);
        assert_eq!(
            (tensors.learned, tensors.tokens, tensors.lengths),
            (5, 10, vec![5, 2, 3])
        );
    }
}
