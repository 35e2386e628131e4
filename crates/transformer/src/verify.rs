//! The strict check: every tensor that the configuration asks for, and none besides, before any is read.

use std::collections::{BTreeSet, HashMap};

use crate::checkpoint::{Checkpoint, Entry};
use crate::convert::is_readable;
use crate::error::{MisShaped, Mismatch, Missing};
use crate::nearest::nearest;
use crate::weights::Key;

/// What an architecture's checkpoints may do differently.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leniency {
    /// A prefix that some checkpoints leave out, dot included.
    pub(crate) prefix: &'static str,
    /// Endings of tensors that older libraries wrote and that hold nothing learned.
    pub(crate) harmless: &'static [&'static str],
    /// The embedding to which the head is tied, if it is: a copy stored as the head is passed over.
    pub(crate) tied_to: Option<&'static str>,
    /// Beginnings of tensors that belong to heads, passed over unless the model has that head.
    pub(crate) other_heads: &'static [&'static str],
    /// Endings of names, each with the one that older libraries wrote in its place.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// Modules that a checkpoint may lack, each as a whole: they start fresh.
    pub(crate) optional: Vec<String>,
    /// Tensors that repeat another one, each with that: passed over where they have its shape.
    pub(crate) copies: Vec<(String, String)>,
}

/// What a checkpoint holds of a model.
pub(crate) struct Found<'a> {
    /// By the path of the parameter.
    pub(crate) entries: HashMap<String, &'a Entry>,
    /// The parameters that start fresh, in the order of the model.
    pub(crate) fresh: Vec<String>,
}

const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// Finds each key in the checkpoint, or everything in which the two differ.
pub(crate) fn verify<'a>(
    checkpoint: &'a Checkpoint,
    keys: &[Key],
    leniency: &Leniency,
) -> Result<Found<'a>, Box<Mismatch>> {
    let mut mismatch = Mismatch::default();
    let mut found = HashMap::with_capacity(keys.len());
    let mut used = BTreeSet::new();
    let mut missing = Vec::new();

    for key in keys {
        let Some((name, entry)) = look_up(checkpoint, &key.path, leniency) else {
            missing.push(key.path.clone());
            continue;
        };
        used.insert(name);
        if entry.shape != key.file_shape() {
            mismatch.mis_shaped.push(MisShaped {
                name: name.into(),
                file: checkpoint.file_name(entry),
                expected: key.file_shape(),
                found: entry.shape.clone(),
            });
        }
        if !is_readable(entry.dtype) {
            let dtype = format!("{:?}", entry.dtype);
            mismatch.not_float.push((name.into(), dtype));
        }
        found.insert(key.path.clone(), entry);
    }
    // A module of which a part is there is damaged, not absent.
    let is_absent = |module: &&String| !found.keys().any(|path| is_in(path, module));
    let absent: Vec<&String> = leniency.optional.iter().filter(is_absent).collect();
    let (fresh, missing): (Vec<String>, Vec<String>) = missing
        .into_iter()
        .partition(|path| absent.iter().any(|module| is_in(path, module)));

    let unused: Vec<&str> = checkpoint
        .entries
        .keys()
        .map(String::as_str)
        .filter(|name| !used.contains(name))
        .filter(|name| !leniency.passes_over(checkpoint, name, &found))
        .collect();
    mismatch.missing = missing
        .into_iter()
        .map(|name| Missing {
            nearest: nearest(&name, unused.iter().copied()),
            name,
        })
        .collect();
    mismatch.unexpected = unused.into_iter().map(String::from).collect();

    match mismatch.is_empty() {
        true => Ok(Found {
            entries: found,
            fresh,
        }),
        false => Err(Box::new(mismatch)),
    }
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The tensor under this path, with or without the optional prefix, by its present or its former name.
fn look_up<'a>(
    checkpoint: &'a Checkpoint,
    path: &str,
    leniency: &Leniency,
) -> Option<(&'a str, &'a Entry)> {
    let stored = |name: &str| checkpoint.entries.get_key_value(name);
    let former = |name: &str| {
        leniency.renamed.iter().find_map(|(now, then)| {
            let stem = name.strip_suffix(now)?;
            stored(&format!("{stem}{then}"))
        })
    };
    let with_prefix = format!("{}{path}", leniency.prefix);
    let names = [
        Some(path),
        path.strip_prefix(leniency.prefix),
        Some(with_prefix.as_str()),
    ];
    let entry = names
        .into_iter()
        .flatten()
        .find_map(|name| stored(name).or_else(|| former(name)));
    entry.map(|(name, entry)| (name.as_str(), entry))
}

impl Leniency {
    fn passes_over(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        found: &HashMap<String, &Entry>,
    ) -> bool {
        let same_shape = |tied: &str| {
            let embedding = found.get(tied).map(|entry| &entry.shape);
            embedding == checkpoint.entries.get(name).map(|entry| &entry.shape)
        };
        self.harmless.iter().any(|ending| name.ends_with(ending))
            || self.is_of_another_head(name, found)
            || self
                .copies
                .iter()
                .any(|(copy, original)| name == copy && same_shape(original))
            || (HEADS.contains(&name) && self.tied_to.is_some_and(same_shape))
    }

    /// Whether a tensor belongs to a head that the model does not have.
    fn is_of_another_head(&self, name: &str, found: &HashMap<String, &Entry>) -> bool {
        let mut heads = self.other_heads.iter();
        heads.any(|head| name.starts_with(head) && !found.keys().any(|path| path.starts_with(head)))
    }
}
