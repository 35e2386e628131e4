//! One adapter per row of a batch.

use std::sync::Arc;

use burn::module::Module;

use crate::error::AdapterError;
use crate::lifecycle::adapters;
use crate::method::Method;
use crate::reach::{all_stacks, replace_all};
use crate::targets::is_head;
use crate::view::Kind;

/// Gives each row of a batch an adapter of its own, `None` being the bare base; with no list, all rows have the active ones
/// again.
///
/// Training and inference go on as usual; the batch is the first dimension of what goes into a layer, and may be a multiple of
/// the rows (a flattened sequence, the beams of a prompt): a row then stands for as many neighbours. Layers must call
/// [`project`](crate::project) and [`embed`](crate::embed), as ours do; any other layer sees the bare base, because a weight
/// alone cannot tell rows apart.
///
/// # Errors
/// [`AdapterError::NoAdapter`] with a name that the module does not have; [`AdapterError::Merged`];
/// [`AdapterError::NotAdaptable`] where an adapter is on what no row passes alone: a convolution, a norm, the experts of a
/// mixture, a head, which sees chosen positions, and what a tied head shares.
pub fn with_rows<M: Module>(module: M, rows: Option<&[Option<&str>]>) -> Result<M, AdapterError> {
    let Some(rows) = rows else {
        return replace_all(module, |stack| stack.with_rows(None));
    };
    let present: Vec<String> = adapters(&module).into_iter().map(|one| one.name).collect();
    for name in rows.iter().copied().flatten() {
        if !present.iter().any(|known| known == name) {
            return Err(AdapterError::NoAdapter {
                name: Some(name.to_string()),
                present,
            });
        }
    }
    if rows.is_empty() {
        return Err(AdapterError::Config {
            faults: vec!["a batch without rows".to_string()],
        });
    }
    let stacks = all_stacks(&module);
    if stacks.iter().any(|weight| weight.stack.is_merged()) {
        return Err(AdapterError::Merged {
            action: "giving rows adapters of their own",
        });
    }
    let mixed = stacks.iter().filter(|weight| {
        let mut methods = weight
            .stack
            .adapters()
            .iter()
            .map(|adapter| &adapter.method);
        let is_row_wise = match weight.stack.view().kind {
            Kind::Linear | Kind::Bias => !is_head(weight.module_path()),
            // What a tied head shares is one table for all rows.
            Kind::Embedding => !methods.any(Method::is_shared),
            _ => false,
        };
        !is_row_wise || weight.path.split('.').any(|part| part == "experts")
    });
    let layers: Vec<String> = mixed.map(|weight| weight.path.clone()).collect();
    if !layers.is_empty() {
        return Err(AdapterError::NotAdaptable {
            layers,
            kind: "rows cannot have adapters of their own here, where they are not computed alone"
                .to_string(),
        });
    }
    let rows = rows.iter().map(|name| name.map(str::to_string));
    let rows = Arc::new(rows.collect::<Vec<_>>());
    replace_all(module, |stack| stack.with_rows(Some(rows.clone())))
}

/// The adapter of each row, where rows have adapters of their own.
pub fn rows_of<M: Module>(module: &M) -> Option<Vec<Option<String>>> {
    let stacks = all_stacks(module);
    let rows = stacks.iter().find_map(|weight| weight.stack.rows())?;
    Some(rows.to_vec())
}

/// The rows of each adapter, and where each row stands once they are put behind one another.
pub(crate) struct Groups<'a> {
    pub(crate) names: Vec<(Option<&'a str>, Vec<i32>)>,
    pub(crate) places: Vec<i32>,
}

/// # Panics
/// If a batch is no multiple of the rows that have adapters.
pub(crate) fn grouped(rows: &[Option<String>], batch: usize) -> Groups<'_> {
    assert!(
        batch.is_multiple_of(rows.len()),
        "a batch of {batch} rows, {} of which have adapters of their own",
        rows.len()
    );
    let copies = batch / rows.len();
    let mut names: Vec<(Option<&str>, Vec<i32>)> = Vec::new();
    for index in 0..batch {
        let name = rows[index / copies].as_deref();
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(index as i32),
            None => names.push((name, vec![index as i32])),
        }
    }
    let mut places = vec![0; batch];
    let order = names.iter().flat_map(|(_, rows)| rows);
    for (place, row) in order.enumerate() {
        places[*row as usize] = place as i32;
    }
    Groups { names, places }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_and_found_again() {
        let rows = [Some("x".to_string()), None, Some("x".to_string())];
        let groups = grouped(&rows, 6);
        assert_eq!(
            groups.names,
            [(Some("x"), vec![0, 1, 4, 5]), (None, vec![2, 3])]
        );
        assert_eq!(groups.places, [0, 1, 4, 5, 2, 3]);
    }
}
