//! Where the tokens of a batch stand.

use burn::tensor::{Device, Int, Tensor};
use burn_lora_kernels::AttentionMask;

/// Padding in front of shorter rows, as generation needs it: all rows end together and grow together.
///
/// Padding behind a row, as in training, needs no word: under the causal mask no token looks at what follows it, so
/// those tokens change nothing in front of them, and what the model says at their own positions is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Padding {
    left: Vec<usize>,
}

impl Padding {
    /// The number of padding tokens at the start of each row.
    pub fn left(counts: Vec<usize>) -> Self {
        Self { left: counts }
    }

    /// The padding that brings rows of these lengths to the longest.
    pub fn for_lengths(lengths: &[usize]) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        Self::left(lengths.iter().map(|length| longest - length).collect())
    }

    /// The number of padding tokens at the start of each row.
    pub fn counts(&self) -> &[usize] {
        &self.left
    }
}

/// The places of the tokens of one forward pass.
pub(crate) struct Positions<'a> {
    /// Tokens in the cache before the first one.
    pub(crate) start: usize,
    /// Tokens in each row.
    pub(crate) len: usize,
    left: Option<&'a [usize]>,
    /// The lengths of each row's documents, in a packed batch.
    documents: Option<&'a [Vec<usize>]>,
}

impl<'a> Positions<'a> {
    /// Rows of several documents each, every one with positions from 0 on.
    pub(crate) fn packed(len: usize, documents: &'a [Vec<usize>]) -> Self {
        Self {
            start: 0,
            len,
            left: None,
            documents: Some(documents),
        }
    }

    pub(crate) fn new(start: usize, len: usize, padding: Option<&'a Padding>) -> Self {
        let left = padding.map(Padding::counts);
        Self {
            start,
            len,
            // Without padding all rows have the same positions, and one row of them serves the batch.
            left: left.filter(|counts| counts.iter().any(|count| *count > 0)),
            documents: None,
        }
    }

    /// The padding in front of each row; nothing where no row has any.
    pub(crate) fn left(&self) -> &[usize] {
        self.left.unwrap_or_default()
    }

    /// The end of the longest row.
    pub(crate) fn end(&self) -> usize {
        self.start + self.len
    }

    /// The number of rows whose positions differ: 1, or the batch.
    pub(crate) fn rows(&self) -> usize {
        let packed = self.documents.map(<[Vec<usize>]>::len);
        packed.unwrap_or_else(|| self.left.map_or(1, <[usize]>::len))
    }

    /// Row by row, the distance of each token from the first real one, or from the first of its document. Padding tokens
    /// in front are at 0: nobody looks at them.
    pub(crate) fn values(&self) -> Vec<usize> {
        if let Some(documents) = self.documents {
            let row = |lengths: &Vec<usize>| {
                let padding = self.len - lengths.iter().sum::<usize>();
                lengths
                    .iter()
                    .copied()
                    .chain([padding])
                    .flat_map(|length| 0..length)
                    .collect::<Vec<_>>()
            };
            return documents.iter().flat_map(row).collect();
        }
        let row = |left: usize| (self.start..self.end()).map(move |at| at.saturating_sub(left));
        match self.left {
            Some(left) => left.iter().copied().flat_map(row).collect(),
            None => row(0).collect(),
        }
    }

    /// `[rows, len]`
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2, Int> {
        let values: Vec<i32> = self.values().into_iter().map(|at| at as i32).collect();
        let device = device.clone().without_autodiff();
        Tensor::<1, Int>::from_ints(values.as_slice(), &device).reshape([self.rows(), self.len])
    }

    /// Causal, blind to the padding, and within a window where there is one.
    pub(crate) fn mask(&self, window: Option<usize>, device: &Device) -> AttentionMask {
        if let Some(documents) = self.documents {
            return AttentionMask::causal_documents(self.len, documents, window, device);
        }
        let left = self.left.unwrap_or_default();
        match window {
            Some(window) => AttentionMask::sliding(self.len, self.start, left, window, device),
            None => AttentionMask::causal_left_padded(self.len, self.start, left, device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_the_first_real_token() {
        let padding = Padding::for_lengths(&[3, 1]);
        assert_eq!(padding.counts(), [0, 2]);
        let positions = Positions::new(0, 3, Some(&padding));
        assert_eq!(positions.values(), [0, 1, 2, 0, 0, 0]);
        let next = Positions::new(3, 1, Some(&padding));
        assert_eq!(next.values(), [3, 1]);
    }

    #[test]
    fn positions_begin_anew_with_each_document() {
        let documents = [vec![2, 3], vec![4]];
        let positions = Positions::packed(6, &documents);
        assert_eq!(positions.rows(), 2);
        assert_eq!(positions.values(), [0, 1, 0, 1, 2, 0, 0, 1, 2, 3, 0, 1]);
    }

    #[test]
    fn equal_rows_share_their_positions() {
        let padding = Padding::for_lengths(&[2, 2]);
        let positions = Positions::new(4, 2, Some(&padding));
        assert_eq!(positions.rows(), 1);
        assert_eq!(positions.values(), [4, 5]);
    }
}
