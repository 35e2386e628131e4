//! Where a model holds what stands beside its weights: several under names, of which one acts, or one for each row of a batch.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_lora_adapter::per_row;

use crate::named::{Shown, Siblings, unnamed_module};
use crate::nearest::{hint, nearest};

/// The name of each row of a batch, `None` being the bare base.
pub(crate) type Rows = Arc<Vec<Option<String>>>;

/// What a [`Slot`] holds, under a name that is part of its path.
pub trait Held: Module + Shown {
    /// The name.
    fn name(&self) -> &str;

    /// Under another name.
    fn renamed(self, to: &str) -> Self;
}

/// Several of one kind under names. At most one of them acts, or one for each row.
#[derive(Debug, Clone)]
pub struct Slot<T> {
    held: Siblings<T>,
    chosen: Option<String>,
    rows: Option<Rows>,
    enabled: bool,
}

unnamed_module!(Slot<T: Held> { held } with { chosen, rows, enabled });

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            held: Siblings(Vec::new()),
            chosen: None,
            rows: None,
            enabled: true,
        }
    }
}

impl<T: Held> Slot<T> {
    /// In the order in which they came.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.held.iter().map(Held::name).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.held.iter().find(|held| held.name() == name)
    }

    /// What acts while it is enabled and rows have none of their own.
    pub(crate) fn chosen(&self) -> Option<&T> {
        self.get(self.chosen.as_deref()?)
    }

    /// The name of each row, where rows have their own.
    pub(crate) fn rows(&self) -> Option<&[Option<String>]> {
        let rows = self.rows.as_ref().filter(|_| self.enabled)?;
        Some(rows.as_slice())
    }

    /// Everything that is computed with, each once.
    pub(crate) fn acting(&self) -> Vec<&T> {
        if !self.enabled {
            return Vec::new();
        }
        let Some(rows) = &self.rows else {
            return self.chosen().into_iter().collect();
        };
        let is_named = |held: &&T| rows.iter().flatten().any(|name| name == held.name());
        self.held.iter().filter(is_named).collect()
    }

    /// What each row of a batch is computed with.
    ///
    /// # Panics
    ///
    /// If the batch is no multiple of the rows that have their own.
    pub(crate) fn of_batch(&self, batch: usize) -> Vec<Option<&T>> {
        let Some(rows) = self.rows() else {
            return vec![self.chosen().filter(|_| self.enabled); batch];
        };
        assert!(
            batch.is_multiple_of(rows.len()),
            "a batch of {batch} rows, {} of which have adapters of their own",
            rows.len()
        );
        let copies = batch / rows.len();
        let row = |row: usize| self.get(rows[row / copies].as_deref()?);
        (0..batch).map(row).collect()
    }

    /// Computes a batch with what acts, or each row with its own.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, ...]`
    pub(crate) fn by_row<const D: usize>(
        &self,
        x: Tensor<D>,
        compute: impl Fn(Option<&T>, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        match self.rows() {
            Some(rows) => per_row(rows, x, |name, x| {
                compute(name.and_then(|name| self.get(name)), x)
            }),
            None => compute(self.chosen().filter(|_| self.enabled), x),
        }
    }

    /// With one more, in the place of any of its name, to act.
    pub(crate) fn with(mut self, held: T) -> Self {
        let name = held.name().to_string();
        match self.held.iter().position(|known| known.name() == name) {
            Some(place) => self.held.0[place] = held,
            None => self.held.0.push(held),
        }
        self.activate(&name)
    }

    pub(crate) fn activate(mut self, name: &str) -> Self {
        self.chosen = Some(name.to_string());
        self
    }

    /// Rows that have it keep it.
    pub(crate) fn rename(mut self, from: &str, to: &str) -> Self {
        let renamed = |held: T| match held.name() == from {
            true => held.renamed(to),
            false => held,
        };
        let new_name = |name: &String| match name == from {
            true => to.to_string(),
            false => name.clone(),
        };
        self.held = Siblings(self.held.0.into_iter().map(renamed).collect());
        self.chosen = self.chosen.as_ref().map(new_name);
        let rows = self.rows.as_ref().map(|rows| {
            let rows = rows.iter().map(|row| row.as_ref().map(new_name));
            Arc::new(rows.collect())
        });
        Self { rows, ..self }
    }

    /// Where it acted, nothing does.
    pub(crate) fn delete(mut self, name: &str) -> Self {
        self.held.0.retain(|held| held.name() != name);
        self.chosen = self.chosen.filter(|chosen| chosen != name);
        self
    }

    pub(crate) fn emptied(self) -> Self {
        Self {
            enabled: self.enabled,
            ..Self::default()
        }
    }

    pub(crate) fn enabled(self, enabled: bool) -> Self {
        Self { enabled, ..self }
    }

    /// Rows without a name that is held are the bare base.
    pub(crate) fn with_rows(self, rows: Option<Rows>) -> Self {
        Self { rows, ..self }
    }

    /// What has a name, or what is wrong with the name.
    pub(crate) fn known(&self, name: &str) -> Result<&T, String> {
        if let Some(held) = self.get(name) {
            return Ok(held);
        }
        let names = self.names();
        let near = hint(nearest(name, names.iter().copied()).as_ref());
        let there = match names.is_empty() {
            true => "none".to_string(),
            false => names.join(", "),
        };
        Err(format!(
            "there are none called \"{name}\"{near}; there are: {there}"
        ))
    }

    pub(crate) fn check_new(&self, name: &str) -> Result<(), String> {
        match self.names().contains(&name) {
            true => Err(format!("there are some called \"{name}\" already")),
            false => check_word(name),
        }
    }
}

/// Refuses a name that could not stand in a path.
pub(crate) fn check_word(name: &str) -> Result<(), String> {
    match name.is_empty() || name.contains('.') {
        true => Err(format!("\"{name}\" is no name: it is empty or has a dot")),
        false => Ok(()),
    }
}
