//! Rows of a batch with adapters of their own, of every kind.

use std::sync::Arc;

use burn_lora_adapter::{AdapterError, adapters, rows_of, with_rows};

use crate::bottleneck::WithBottlenecks;
use crate::slot::Rows;
use crate::virtual_tokens::WithVirtualTokens;

/// One adapter for each row of a batch, in every model of this crate: of weights, virtual tokens, bottlenecks, or those of one name
/// together.
pub trait WithRows: WithVirtualTokens + WithBottlenecks {
    /// Gives each row of a batch what has its name: an adapter of weights, virtual tokens, bottlenecks, or several of these kinds, which
    /// then act together. Nothing else acts in that row, and `None` is the bare base. With no list, all rows have the active ones again.
    ///
    /// Training and generation go on as usual, and each row is computed as it would be alone; rows may have different numbers of virtual
    /// tokens, of which the largest is taken from the positions of all. (Rotary frequencies that follow the length, `dynamic` and `longrope`,
    /// are those of the longest row, as in any batch.) As for [`with_rows`](burn_lora_adapter::with_rows) of
    /// adapters of weights alone, which leaves the other kinds as they are, the batch may be a multiple of the rows; any other is a panic,
    /// and in generation a fault of the request. Rows keep what is renamed, and are the base once it is deleted.
    ///
    /// # Errors
    ///
    /// [`AdapterError::NoAdapter`] with a name that nothing has, and all that there are; [`AdapterError::Config`] with a list of no rows;
    /// those of [`with_rows`](burn_lora_adapter::with_rows), if there are adapters of weights.
    fn with_rows(self, rows: Option<&[Option<&str>]>) -> Result<Self, AdapterError> {
        let of_weights: Vec<String> = adapters(&self).into_iter().map(|one| one.name).collect();
        let Some(rows) = rows else {
            let model = match of_weights.is_empty() {
                true => self,
                false => with_rows(self, None)?,
            };
            return Ok(give(model, None, None));
        };
        let mut present = of_weights.clone();
        let of_parts = self.virtual_token_names().into_iter();
        for name in of_parts.chain(self.bottleneck_names()) {
            if !present.iter().any(|known| known == name) {
                present.push(name.to_string());
            }
        }
        let mut named = rows.iter().copied().flatten();
        if let Some(name) = named.find(|name| !present.iter().any(|known| known == name)) {
            return Err(AdapterError::NoAdapter {
                name: Some(name.to_string()),
                present,
            });
        }
        if rows.is_empty() {
            return Err(AdapterError::Config {
                faults: vec!["a batch without rows".to_string()],
            });
        }
        let model = match of_weights.is_empty() {
            true => self,
            false => {
                let is_there = |name: &&str| of_weights.iter().any(|known| known == name);
                let rows: Vec<Option<&str>> = rows.iter().map(|row| row.filter(is_there)).collect();
                with_rows(self, Some(&rows))?
            }
        };
        let rows: Rows = Arc::new(rows.iter().map(|row| row.map(str::to_string)).collect());
        Ok(give(model, Some(rows.clone()), Some(rows)))
    }
}

impl<M: WithVirtualTokens + WithBottlenecks> WithRows for M {}

fn give<M: WithRows>(model: M, tokens: Option<Rows>, bottlenecks: Option<Rows>) -> M {
    let model = model.map_slot(|slot| slot.with_rows(tokens));
    model.map_blocks(&mut |slot| slot.with_rows(bottlenecks.clone()))
}

/// The names of the rows of a model, by kind.
#[derive(Debug, Clone)]
pub(crate) struct RowNames {
    weights: Option<Rows>,
    tokens: Option<Rows>,
    bottlenecks: Option<Rows>,
}

impl RowNames {
    pub(crate) fn of<M: WithRows>(model: &M) -> Self {
        let owned = |rows: &[Option<String>]| Arc::new(rows.to_vec());
        Self {
            weights: rows_of(model).map(Arc::new),
            tokens: model.slot().rows().map(owned),
            bottlenecks: model
                .first_block()
                .and_then(|block| block.rows())
                .map(owned),
        }
    }

    /// How many rows have names, by kind.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let kinds = [&self.weights, &self.tokens, &self.bottlenecks].into_iter();
        let lengths = kinds.flatten().map(|rows| rows.len());
        lengths.filter(|rows| *rows > 0).collect()
    }

    /// Gives each row of a model the names of one of `prompts`, all of which had names.
    pub(crate) fn give<M: WithRows>(&self, model: &mut M, prompts: usize, rows: &[usize]) {
        if self.lengths().is_empty() {
            return;
        }
        let of = |names: &Option<Rows>| -> Option<Rows> {
            let names = names.as_ref().filter(|names| !names.is_empty())?;
            // A row with a name stands for as many neighbours.
            let copies = (prompts / names.len()).max(1);
            let name = |prompt: &usize| names.get(prompt / copies).cloned().flatten();
            Some(Arc::new(rows.iter().map(name).collect()))
        };
        let mut given = give(model.clone(), of(&self.tokens), of(&self.bottlenecks));
        if let Some(names) = of(&self.weights) {
            let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
            // The names are those that the model had before; they cannot be refused now.
            if let Ok(with_weights) = with_rows(given.clone(), Some(&names)) {
                given = with_weights;
            }
        }
        *model = given;
    }
}
