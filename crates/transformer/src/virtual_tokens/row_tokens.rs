use burn::tensor::{Int, Tensor};

use super::VirtualTokens;
use super::slot::TokenSlot;
use crate::positions::Padding;

/// The virtual tokens of each row of a batch.
pub(crate) struct RowTokens<'a> {
    rows: Vec<Option<&'a VirtualTokens>>,
}

impl<'a> RowTokens<'a> {
    /// # Panics
    ///
    /// If the batch is no multiple of the rows that have their own.
    pub(crate) fn of(slot: &'a TokenSlot, batch: usize) -> Self {
        let rows = slot.of_batch(batch).into_iter();
        Self {
            rows: rows.map(|tokens| tokens.map(|tokens| &**tokens)).collect(),
        }
    }

    /// Those of one kind; other rows have none.
    pub(crate) fn only(mut self, is_kept: impl Fn(&VirtualTokens) -> bool) -> Self {
        for row in &mut self.rows {
            *row = row.filter(|tokens| is_kept(tokens));
        }
        self
    }

    pub(crate) fn is_none(&self) -> bool {
        self.rows.iter().all(Option::is_none)
    }

    pub(crate) fn rows(&self) -> &[Option<&'a VirtualTokens>] {
        &self.rows
    }

    /// How many each row has.
    pub(crate) fn counts(&self) -> Vec<usize> {
        let count = |tokens: &Option<&VirtualTokens>| tokens.map_or(0, VirtualTokens::count);
        self.rows.iter().map(count).collect()
    }

    /// How many the row with the most has.
    pub(crate) fn longest(&self) -> usize {
        self.counts().into_iter().max().unwrap_or(0)
    }

    /// How many places each row leaves of those that the one with the most needs; nothing where no row leaves any.
    pub(crate) fn free(&self) -> Vec<usize> {
        let (counts, most) = (self.counts(), self.longest());
        match counts.iter().all(|count| *count == most) {
            true => Vec::new(),
            false => counts.iter().map(|count| most - count).collect(),
        }
    }
}

/// The padding that rows came with, and the places in front that their virtual tokens leave.
///
/// # Panics
///
/// If the two are not of the same rows.
pub(crate) fn padding_with(free: Vec<usize>, padding: Option<&Padding>) -> Option<Padding> {
    if free.is_empty() {
        return padding.cloned();
    }
    let (before, batch) = (padding.map_or(&[][..], Padding::counts), free.len());
    assert!(
        before.is_empty() || before.len() == 1 || before.len() == batch,
        "padding for {} rows, but the batch has {batch}",
        before.len()
    );
    let rows = free.iter().enumerate().map(|(row, free)| {
        let before = before.get(row).or(before.first());
        free + before.copied().unwrap_or(0)
    });
    Some(Padding::left(rows.collect()))
}

/// Tokens with places in front for virtual ones, in each row as many as it has, and behind it what others have more.
///
/// # Shapes
///
/// - ids: `[batch, seq]`
/// - output: `[batch, most + seq]`
pub(crate) fn with_places(ids: Tensor<2, Int>, counts: &[usize]) -> Tensor<2, Int> {
    let most = counts.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return ids;
    }
    let device = ids.device();
    let places = |rows: usize, count: usize| {
        (count > 0).then(|| Tensor::<2, Int>::zeros([rows, count], &device))
    };
    let row = |ids: Tensor<2, Int>, count: usize| {
        let rows = ids.dims()[0];
        let parts = [places(rows, count), Some(ids), places(rows, most - count)];
        Tensor::cat(parts.into_iter().flatten().collect(), 1)
    };
    if counts.iter().all(|count| *count == most) {
        return row(ids, most);
    }
    let rows = counts.iter().enumerate();
    let rows = rows.map(|(index, count)| row(ids.clone().narrow(0, index, 1), *count));
    Tensor::cat(rows.collect(), 0)
}

/// The states of `seq` tokens in each row, from its own place on.
///
/// # Shapes
///
/// - states: `[batch, most + seq, d]`
/// - output: `[batch, seq, d]`
pub(crate) fn behind(states: Tensor<3>, firsts: &[usize], seq: usize) -> Tensor<3> {
    let first = firsts.first().copied().unwrap_or(0);
    if firsts.iter().all(|other| *other == first) {
        return match first == 0 && states.dims()[1] == seq {
            true => states,
            false => states.narrow(1, first, seq),
        };
    }
    let rows = firsts.iter().enumerate();
    let rows = rows.map(|(row, first)| states.clone().narrow(0, row, 1).narrow(1, *first, seq));
    Tensor::cat(rows.collect(), 0)
}
