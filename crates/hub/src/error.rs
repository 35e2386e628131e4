use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a model could not be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that names no model.
    #[error("`{id}` is no name of a model on the hub: {reason}")]
    BadId {
        /// The text.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text that names no branch, tag or commit.
    #[error("`{revision}` is no branch, tag or commit")]
    BadRevision {
        /// The text.
        revision: String,
    },
    /// No folder for the cache is known.
    #[error("no cache folder is known: set HF_HOME")]
    NoHome,
    /// The hub may not be asked, and the cache does not have the model.
    #[error(
        "{id} at {revision} is not in the cache {}, and the hub may not be asked (HF_HUB_OFFLINE){}",
        .cache.display(),
        lacking(.missing)
    )]
    Offline {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
        /// The cache folder.
        cache: PathBuf,
        /// The files that are missing, where the cache has others.
        missing: Vec<String>,
    },
    /// The hub does not answer.
    #[error("{url} does not answer: {reason}{}", cached_hint(*.cached))]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        reason: String,
        /// Whether the cache has the model.
        cached: bool,
    },
    /// The hub does not let this user have the model.
    #[error("the hub refuses {id} ({status}{}): {}", said(.message), token_hint(*.has_token, *.gated, .url))]
    Denied {
        /// The model.
        id: String,
        /// Its page on the hub.
        url: String,
        /// The status of the answer.
        status: u16,
        /// What the hub said.
        message: Option<String>,
        /// Whether the model asks for an agreement first.
        gated: bool,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// There is no such model.
    #[error("{endpoint} has no model {id}{}", private_hint(*.has_token))]
    NoModel {
        /// The model.
        id: String,
        /// The address of the hub.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The model has no such branch, tag or commit.
    #[error("{id} has no revision `{revision}`; without one, `main` is fetched")]
    NoRevision {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
    },
    /// The model lacks a file without which it is none.
    #[error("{id} has no {file}{}", nearest_hint(.nearest))]
    NoFile {
        /// The model.
        id: String,
        /// The file.
        file: String,
        /// The file most like it.
        nearest: Option<String>,
    },
    /// The model has no weights in a format that is read.
    #[error("{id} has neither safetensors nor pytorch_model.bin weights; it has {}", .files.join(", "))]
    NoWeights {
        /// The model.
        id: String,
        /// Its files.
        files: Vec<String>,
    },
    /// The index of the weights names what is not there, or is none.
    #[error("{id}, {file}: {reason}")]
    Index {
        /// The model.
        id: String,
        /// The index.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A status that means neither success nor any of the above.
    #[error("{url} answers with status {status}{}", said(.message))]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// What the server said.
        message: Option<String>,
    },
    /// An answer that is not what the hub answers.
    #[error("{url} answers with what is no answer of the hub: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection was cut, and again at every further attempt.
    #[error(
        "the download of {file} was cut {attempts} times, at last after {bytes} of {total} bytes: {reason}; what is there is kept, and another attempt goes on from it"
    )]
    Cut {
        /// The file.
        file: String,
        /// The bytes that are there.
        bytes: u64,
        /// The bytes of the file.
        total: String,
        /// The attempts.
        attempts: u32,
        /// What happened at the last.
        reason: String,
    },
    /// A file that has not the size that the hub lists.
    #[error("{file} came with {found} bytes, and the hub lists {expected}; it was not kept")]
    Size {
        /// The file.
        file: String,
        /// The size in the list.
        expected: u64,
        /// The size that came.
        found: u64,
    },
    /// A file that has not the digest that the hub lists.
    #[error("{file} came with the SHA-256 {found}, and the hub lists {expected}; it was not kept")]
    Digest {
        /// The file.
        file: String,
        /// The digest in the list.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// A file that is announced as another than the hub lists.
    #[error("{file} is announced with the etag {found}, and the hub lists {expected}")]
    Etag {
        /// The file.
        file: String,
        /// The hash in the list.
        expected: String,
        /// The etag.
        found: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Cache {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn lacking(files: &[String]) -> String {
    match files.is_empty() {
        true => String::new(),
        false => format!("; it lacks {}", files.join(", ")),
    }
}

fn cached_hint(cached: bool) -> &'static str {
    match cached {
        true => "; the cache has the model: set HF_HUB_OFFLINE=1 to use it",
        false => "",
    }
}

fn said(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |text| format!(", \"{text}\""))
}

fn token_hint(has_token: bool, gated: bool, url: &str) -> String {
    match (gated, has_token) {
        (true, true) => format!("agree to its terms at {url} with the account of the token"),
        (true, false) => {
            format!("agree to its terms at {url}, then set HF_TOKEN to a token of that account")
        }
        (false, true) => "the token in HF_TOKEN, or in the file `token`, may not read it".into(),
        (false, false) => "set HF_TOKEN to a token that may read it".into(),
    }
}

fn private_hint(has_token: bool) -> &'static str {
    match has_token {
        true => ", or it is private and the token may not read it",
        false => ", or it is private: then set HF_TOKEN to a token that may read it",
    }
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!("; nearest: {name}"))
}
