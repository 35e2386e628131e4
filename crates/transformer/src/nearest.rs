//! The valid name that a wrong one was probably meant to be.

/// The candidate most like `name`, if any is alike enough to be worth showing.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_levenshtein(name, candidate), candidate))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// `" (nearest: NAME)"`, or nothing.
pub(crate) fn hint(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (nearest: `{name}`)"))
}
