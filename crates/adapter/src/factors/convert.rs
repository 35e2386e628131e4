use burn_lora_linalg::{LinalgError, svd};

use super::{FactorSet, Factors};
use crate::error::AdapterError;

/// Turns an adapter whose initialization changed the base (PiSSA, OLoRA, CorDA, LoRA-GA) into a plain LoRA for the base as it
/// was.
///
/// Training started at `W = W_res + s A0 B0` and ended at `W_res + s A B`, which differ by `s (A B - A0 B0)`, a product of
/// factors side by side: `[A | A0]` and `[B; -B0]`. The rank doubles, but for layers with fewer directions; the scale stays.
/// [`peft::save`](crate::peft::save) does it by itself for an adapter that [`attach_initialized`](crate::attach_initialized) made.
///
/// # Errors
///
/// [`AdapterError::Factors`] with every layer that is in one of the two only, or whose shapes, ranks or scales differ.
pub fn to_plain(trained: &FactorSet, initial: &FactorSet) -> Result<FactorSet, AdapterError> {
    let mut faults = Vec::new();
    let unknown = initial
        .layers
        .keys()
        .filter(|path| trained.get(path).is_none());
    faults.extend(unknown.map(|path| format!("{path} has initial factors and no trained ones")));
    let mut plain = FactorSet::default();
    for (path, now) in &trained.layers {
        match initial.get(path) {
            None => faults.push(format!("{path} has no initial factors")),
            Some(then) if !is_same_form(now, then) => faults.push(format!(
                "{path} has {:?}, rank {} and scale {}; initially it had {:?}, rank {} and scale {}",
                now.shape(),
                now.rank(),
                now.scale,
                then.shape(),
                then.rank(),
                then.scale,
            )),
            Some(then) => match plain_layer(now, then) {
                Ok(factors) => drop(plain.layers.insert(path.clone(), factors)),
                Err(error) => faults.push(format!("{path}: {error}")),
            },
        }
    }
    match faults.is_empty() {
        true => Ok(plain),
        false => Err(AdapterError::Factors {
            action: "conversion to plain LoRA",
            faults,
        }),
    }
}

/// The change from the second factors to the first, which have the same form. Its rank is that of both together, and no more
/// than the smaller side of the layer.
pub(crate) fn plain_layer(now: &Factors, then: &Factors) -> Result<Factors, LinalgError> {
    let a = now.a.beside(&then.a);
    let b = now.b.above(&then.b.scaled(-1.0));
    let scale = now.scale;
    let most = a.rows().min(b.columns());
    if a.columns() <= most {
        return Ok(Factors { a, b, scale });
    }
    let found = svd(&(&a * &b))?.truncated(most);
    let roots: Vec<f64> = found.s.iter().map(|s| s.sqrt()).collect();
    Ok(Factors {
        a: found.u.scaled_columns(&roots),
        b: found.v.scaled_columns(&roots).transpose(),
        scale,
    })
}

fn is_same_form(x: &Factors, y: &Factors) -> bool {
    x.shape() == y.shape() && x.rank() == y.rank() && x.scale == y.scale
}
