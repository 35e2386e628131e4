use std::collections::HashSet;

/// Precision, recall and F1 of whole entities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntityScores {
    /// The share of the entities made that are wanted.
    pub precision: f64,
    /// The share of the entities wanted that are made.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Whether all tags are of the scheme BIO: `O`, `B-x` and `I-x`.
pub fn is_bio<S: AsRef<str>>(tags: &[S]) -> bool {
    let fits = |tag: &str| tag == "O" || tag.starts_with("B-") || tag.starts_with("I-");
    tags.iter().all(|tag| fits(tag.as_ref())) && tags.iter().any(|tag| tag.as_ref() != "O")
}

/// Scores of the entities in sequences of BIO tags, as CoNLL-2000 counts them (Tjong Kim Sang and Buchholz,
/// aclanthology.org/W00-0726) and seqeval in its default mode: an entity is right if its kind, its first and its last word
/// are; one begins at `B-x`, and at an `I-x` that does not continue an entity of the kind `x`. Without entities the shares
/// are 0.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn entity_scores<S: AsRef<str>>(made: &[Vec<S>], wanted: &[Vec<S>]) -> EntityScores {
    assert_eq!(
        made.len(),
        wanted.len(),
        "one sequence for each that is wanted"
    );
    let (made, wanted) = (entities(made), entities(wanted));
    let right = made.intersection(&wanted).count() as f64;
    let share = |all: usize| match all {
        0 => 0.0,
        all => right / all as f64,
    };
    let (precision, recall) = (share(made.len()), share(wanted.len()));
    let f1 = match precision + recall > 0.0 {
        true => 2.0 * precision * recall / (precision + recall),
        false => 0.0,
    };
    EntityScores {
        precision,
        recall,
        f1,
    }
}

/// Sequence, first word, word behind the last, and kind of each entity.
type Entity<'a> = (usize, usize, usize, &'a str);

fn entities<S: AsRef<str>>(sequences: &[Vec<S>]) -> HashSet<Entity<'_>> {
    let mut found = HashSet::new();
    for (number, tags) in sequences.iter().enumerate() {
        let mut open: Option<(usize, &str)> = None;
        for (at, tag) in tags.iter().enumerate() {
            let (begins, kind) = match tag.as_ref().split_once('-') {
                Some((prefix, kind)) => (prefix == "B", Some(kind)),
                None => (false, None),
            };
            let goes_on = !begins && open.is_some_and(|(_, of)| kind == Some(of));
            if goes_on {
                continue;
            }
            found.extend(open.map(|(first, kind)| (number, first, at, kind)));
            open = kind.map(|kind| (at, kind));
        }
        found.extend(open.map(|(first, kind)| (number, first, tags.len(), kind)));
    }
    found
}
