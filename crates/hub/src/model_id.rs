//! Names of models and revisions, checked before they become parts of addresses and paths.

use crate::error::HubError;

/// The revision that is meant where none is named.
pub const MAIN: &str = "main";

/// Whether a text has the form of a model's name on the hub: `name` or `organization/name`.
pub fn is_model_id(text: &str) -> bool {
    check_id(text).is_ok()
}

pub(crate) fn check_id(id: &str) -> Result<(), HubError> {
    let bad = |reason| HubError::BadId {
        id: id.into(),
        reason,
    };
    let parts: Vec<&str> = id.split('/').collect();
    if parts.len() > 2 {
        return Err(bad("it has more than one `/`"));
    }
    for part in parts {
        if part.is_empty() {
            return Err(bad("a part of it is empty"));
        }
        if part.len() > 96 {
            return Err(bad("a part of it is longer than 96 characters"));
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !part.chars().all(is_allowed) {
            return Err(bad("only letters, digits, `-`, `_` and `.` are allowed"));
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err(bad("no part begins or ends with `-` or `.`"));
        }
        // `--` stands for the slash in the cache folder.
        if part.contains("--") || part.contains("..") {
            return Err(bad("neither `--` nor `..` is allowed"));
        }
    }
    Ok(())
}

/// A branch, a tag or a commit.
pub(crate) fn check_revision(revision: &str) -> Result<(), HubError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let is_path = revision
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    match is_path && revision.chars().all(is_allowed) {
        true => Ok(()),
        false => Err(HubError::BadRevision {
            revision: revision.into(),
        }),
    }
}

/// Whether a text is the whole hash of a commit, or of a file.
pub(crate) fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_told_from_paths() {
        for id in ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B", "a_b/c.d"] {
            assert!(is_model_id(id), "{id}");
        }
        for id in [
            "", "/", "a/", "/a", "./a", "../a", "a/b/c", "a--b", "a b", "a/..", "a\\b", "-a",
            "a%2fb",
        ] {
            assert!(!is_model_id(id), "{id}");
        }
    }

    #[test]
    fn a_revision_stays_inside_its_folder() {
        for revision in ["main", "refs/pr/1", "v1.0"] {
            assert!(check_revision(revision).is_ok(), "{revision}");
        }
        for revision in ["", "../main", "a//b", "/a", "a?b", "a b"] {
            assert!(check_revision(revision).is_err(), "{revision}");
        }
    }
}
