//! The errors of this crate.

use std::path::PathBuf;

use crate::fault::Faults;
use crate::rows::RowFormat;

/// Why data could not be read, encoded or batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder without `tokenizer.json`.
    #[error("{folder} has no tokenizer.json{hint}", folder = .folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// What was found instead, or nothing.
        hint: &'static str,
    },
    /// `tokenizer.json` is not what the tokenizers crate reads.
    #[error("{path} is not a tokenizer: {message}", path = .path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        message: String,
    },
    /// A configuration file that is not a JSON object.
    #[error("{path} is not a JSON object: {message}", path = .path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        message: String,
    },
    /// A configuration value of the wrong type.
    #[error("{path}: \"{key}\" is not {expected}", path = .path.display())]
    BadConfigValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A special token that the vocabulary does not have.
    #[error(
        "{path}: \"{key}\" is {token}, which is not among the {vocab_size} tokens of \
         tokenizer.json",
        path = .path.display()
    )]
    NotInVocabulary {
        /// The file that names the token.
        path: PathBuf,
        /// Its key.
        key: &'static str,
        /// The token or id.
        token: String,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// No file of the folder names the token that ends a sequence.
    #[error(
        "{folder} names no end-of-sequence token: \"eos_token\" is in neither \
         tokenizer_config.json nor special_tokens_map.json, \"eos_token_id\" in neither \
         generation_config.json nor config.json",
        folder = .folder.display()
    )]
    NoEos {
        /// The folder.
        folder: PathBuf,
    },
    /// `add_bos_token` is set, but no token is named.
    #[error(
        "{path}: \"add_bos_token\" is true, but the folder names no \"bos_token\"",
        path = .path.display()
    )]
    NoBos {
        /// The file with `add_bos_token`.
        path: PathBuf,
    },
    /// The tokenizer failed on a text or on ids; the message is its own.
    #[error("the tokenizer failed: {0}")]
    Tokenize(String),
    /// A file without a row.
    #[error("{path} has no row", path = .path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Faulty rows, all of them.
    #[error("{0}")]
    Rows(Faults),
    /// Rows of several formats in one data set.
    #[error(
        "rows of several formats: {first_place} has {}, {other_place} has {}",
        .first.columns(), .other.columns()
    )]
    MixedFormats {
        /// The first format found.
        first: RowFormat,
        /// File and line of its first row.
        first_place: String,
        /// The other format.
        other: RowFormat,
        /// File and line of its first row.
        other_place: String,
    },
    /// A file whose name says nothing about its format.
    #[error(
        "{path} has no known extension: .jsonl, .json, .csv, .tsv, .parquet and .txt are read",
        path = .path.display()
    )]
    UnknownFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of a format that this build does not read.
    #[error("{path}: this build reads no Parquet (cargo feature `parquet`)", path = .path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
    },
    /// A file that is damaged as a whole.
    #[error("{path} cannot be read: {message}", path = .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        message: String,
    },
    /// No file where data should be.
    #[error("{place}: {reason}")]
    NoFiles {
        /// The file, folder or pattern asked for.
        place: String,
        /// What is there instead.
        reason: String,
    },
    /// Columns in a mapping that no format has.
    #[error("{}", .0.join("; "))]
    UnknownColumns(Vec<String>),
    /// Rows that are not of the kind that is asked for.
    #[error("the rows are {}, which cannot be {wanted}", .format.columns())]
    WrongFormat {
        /// Their format.
        format: RowFormat,
        /// What they should become.
        wanted: &'static str,
    },
    /// Conversations, but no template to write them down.
    #[error(
        "the rows are conversations, but the tokenizer has no chat template: take the model's instruction-tuned \
         tokenizer, name a template of your own (`chat_template: FILE.jinja`), or ask for the built-in one \
         (`chat_template: chatml`)"
    )]
    NoChatTemplate,
    /// A chat template that cannot be parsed, or of a name that the tokenizer does not have.
    #[error("the chat template{}: {message}", .path.as_ref().map_or(String::new(), |path| format!(" of {}", path.display())))]
    BadTemplate {
        /// Its file, where it is known.
        path: Option<PathBuf>,
        /// The parser's message.
        message: String,
    },
    /// A conversation that its template refused, or failed on.
    #[error("the chat template: {0}")]
    Template(String),
    /// No row is left to learn from.
    #[error("none of the {rows} rows has a token to learn: {advice}")]
    NothingToLearn {
        /// Rows read.
        rows: usize,
        /// What to try.
        advice: String,
    },
    /// An example without a learned token, or without one before it.
    #[error(
        "an example of {len} tokens cannot be learned from token {learned_from}: the first learned \
         token is at least 1 and below {len}"
    )]
    BadExample {
        /// Tokens in the example.
        len: usize,
        /// The first learned token asked for.
        learned_from: usize,
    },
    /// Tokens for which the model has no embedding.
    #[error("{count} tokens in use are outside the model's vocabulary of {vocab_size}: {shown}")]
    VocabTooSmall {
        /// How many distinct tokens.
        count: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
        /// The first of them, as `id "token"`.
        shown: String,
    },
    /// An option out of its range.
    #[error("{option} is {value}: it must be {expected}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The range.
        expected: &'static str,
    },
    /// Too few examples to divide.
    #[error(
        "{examples} examples cannot be divided into training and validation: at least 2 are needed"
    )]
    TooFewToSplit {
        /// How many there are.
        examples: usize,
    },
    /// A data position saved from other data or other options.
    #[error("the saved data position does not belong to this data: {0}")]
    BadState(String),
}
