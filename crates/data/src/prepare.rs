//! Files to examples, or what was made of them before.

use std::path::PathBuf;

use crate::cache::TokenCache;
use crate::encode::{EncodeOptions, Encoded, Progress, encode_with};
use crate::error::DataError;
use crate::read::{ReadOptions, read_files};
use crate::rows::RowFormat;
use crate::tokenizer::Tokenizer;

/// How files become examples.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// How they are read.
    pub read: ReadOptions,
    /// How their rows are encoded.
    pub encode: EncodeOptions,
    /// Where the tokens are kept; nowhere without it.
    pub cache: Option<TokenCache>,
}

/// Examples of files.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The examples and their counts.
    pub encoded: Encoded,
    /// The format of the rows.
    pub format: RowFormat,
    /// They were made before.
    pub was_cached: bool,
    /// Why they could not be kept, where they could not.
    pub warning: Option<String>,
}

/// Reads and encodes files; where the same was done before, takes what is cached. A damaged cache is made anew, and one
/// that cannot be written is no error.
///
/// # Errors
///
/// As [`read_files`] and [`encode`](crate::encode).
pub fn prepare(
    files: &[PathBuf],
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    progress: Progress<'_>,
) -> Result<Prepared, DataError> {
    let (read, encode) = (&options.read, &options.encode);
    let key = match options.cache {
        Some(_) => TokenCache::key(files, tokenizer, read, encode)?,
        None => String::new(),
    };
    if let Some((format, encoded)) = options.cache.as_ref().and_then(|cache| cache.load(&key)) {
        return Ok(Prepared {
            encoded,
            format,
            was_cached: true,
            warning: None,
        });
    }
    let rows = read_files(files, read)?;
    let encoded = encode_with(&rows, tokenizer, encode, progress)?;
    let stored = match &options.cache {
        Some(cache) => cache.store(&key, rows.format(), &encoded).map_err(|error| {
            format!(
                "the tokens cannot be kept in {}: {error}",
                cache.folder().display()
            )
        }),
        None => Ok(()),
    };
    Ok(Prepared {
        encoded,
        format: rows.format(),
        was_cached: false,
        warning: stored.err(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::{folder, words};

    fn setup() -> (tempfile::TempDir, Vec<PathBuf>, Tokenizer, PrepareOptions) {
        let text: String = (0..600)
            .map(|row| format!("{{\"text\": \"a b{}\"}}\n", " c".repeat(row % 7)))
            .collect();
        let dir = folder(&[("rows.jsonl", &text)]);
        let files = vec![dir.path().join("rows.jsonl")];
        let tokenizer = Tokenizer::new(words(), SpecialTokens::new(2)).unwrap();
        let options = PrepareOptions {
            read: ReadOptions::default(),
            encode: EncodeOptions::new(6),
            cache: Some(TokenCache::new(dir.path().join("cache"))),
        };
        (dir, files, tokenizer, options)
    }

    fn entries(dir: &tempfile::TempDir) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.path().join("cache")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_made_before_is_taken() {
        let (dir, files, tokenizer, mut options) = setup();
        let told = AtomicUsize::new(0);
        let progress = |done: usize, all: usize| {
            assert!(done <= all && all == 600);
            told.fetch_max(done, Ordering::SeqCst);
        };
        let first = prepare(&files, &tokenizer, &options, &progress).unwrap();
        assert!(!first.was_cached && first.warning.is_none());
        assert_eq!(told.into_inner(), 600);
        assert_eq!(first.encoded.report.duplicates, 600 - 5);
        let second = prepare(&files, &tokenizer, &options, &|_, _| panic!("again")).unwrap();
        assert!(second.was_cached);
        assert_eq!(
            (second.encoded, second.format),
            (first.encoded, first.format)
        );
        assert_eq!(entries(&dir).len(), 1, "nothing is left beside");

        options.encode.max_len = 5;
        assert!(
            !prepare(&files, &tokenizer, &options, &|_, _| ())
                .unwrap()
                .was_cached
        );
        fs::write(&files[0], "{\"text\": \"a\"}\n").unwrap();
        assert!(
            !prepare(&files, &tokenizer, &options, &|_, _| ())
                .unwrap()
                .was_cached
        );
        let special = SpecialTokens {
            bos: Some(1),
            add_bos: Some(true),
            ..SpecialTokens::new(2)
        };
        let other = Tokenizer::new(words(), special).unwrap();
        assert!(
            !prepare(&files, &other, &options, &|_, _| ())
                .unwrap()
                .was_cached
        );
        assert_eq!(entries(&dir).len(), 4);
    }

    #[test]
    fn a_torn_entry_is_made_anew() {
        let (dir, files, tokenizer, options) = setup();
        let first = prepare(&files, &tokenizer, &options, &|_, _| ()).unwrap();
        let entry = entries(&dir).remove(0);
        let whole = fs::read(&entry).unwrap();
        for end in [0, 5, 30, whole.len() / 2, whole.len() - 1] {
            fs::write(&entry, &whole[..end]).unwrap();
            let again = prepare(&files, &tokenizer, &options, &|_, _| ()).unwrap();
            assert!(!again.was_cached, "{end} bytes");
            assert_eq!(again.encoded, first.encoded);
            assert_eq!(fs::read(&entry).unwrap(), whole, "it is whole again");
        }
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        fs::write(&entry, changed).unwrap();
        assert!(
            !prepare(&files, &tokenizer, &options, &|_, _| ())
                .unwrap()
                .was_cached
        );
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let (dir, files, tokenizer, options) = setup();
        fs::write(dir.path().join("file"), "").unwrap();
        let options = PrepareOptions {
            cache: Some(TokenCache::new(dir.path().join("file/cache"))),
            ..options
        };
        let prepared = prepare(&files, &tokenizer, &options, &|_, _| ()).unwrap();
        assert!(
            prepared
                .warning
                .unwrap()
                .starts_with("the tokens cannot be kept in ")
        );
    }
}
