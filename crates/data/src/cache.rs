//! Tokens on disk, by the content that they were made of.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encode::{EncodeOptions, Encoded};
use crate::error::DataError;
use crate::example::Example;
use crate::read::{ReadOptions, open, unreadable};
use crate::report::EncodeReport;
use crate::rows::RowFormat;
use crate::tokenizer::Tokenizer;

/// Begins every file; another version of the encoding gets another number.
const MAGIC: &[u8] = b"burn-lora tokens 1\n";
const HASH: usize = 32;

/// A folder of encoded data sets, each under the hash of the files, the tokenizer and the options that it was made of.
/// It may be deleted at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCache {
    folder: PathBuf,
}

/// What an entry tells of itself.
#[derive(Serialize, Deserialize)]
struct Header {
    format: RowFormat,
    report: EncodeReport,
    /// Ids, spans.
    sizes: Vec<(u32, u32)>,
}

impl TokenCache {
    /// A cache in a folder, which is made when something is stored.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The name of an entry.
    pub(crate) fn key(
        files: &[PathBuf],
        tokenizer: &Tokenizer,
        read: &ReadOptions,
        encode: &EncodeOptions,
    ) -> Result<String, DataError> {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(MAGIC);
        part(format!("{read:?} {encode:?}").as_bytes());
        part(tokenizer.fingerprint().as_bytes());
        for path in files {
            // The extension says how the bytes are read.
            part(
                path.extension()
                    .map_or(&[][..], |extension| extension.as_encoded_bytes()),
            );
            part(&file_hash(path)?);
        }
        let hash = hash.finalize();
        Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// An entry; nothing if there is none, or a torn one.
    pub(crate) fn load(&self, key: &str) -> Option<(RowFormat, Encoded)> {
        parse(&fs::read(self.path(key)).ok()?)
    }

    /// Writes an entry to the side, and gives it its name when it is whole.
    pub(crate) fn store(&self, key: &str, format: RowFormat, encoded: &Encoded) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let partial = self
            .folder
            .join(format!("{key}.partial-{}", std::process::id()));
        let written = write(&partial, &bytes(format, encoded)?);
        let renamed = written.and_then(|()| fs::rename(&partial, self.path(key)));
        if renamed.is_err() {
            let _ = fs::remove_file(&partial);
        }
        renamed
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.tokens"))
    }
}

fn file_hash(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut reader = open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().to_vec()),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(source) => return Err(unreadable(path, source)),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The magic, the header with its length, ids and span bounds as u32, and the hash of all that.
fn bytes(format: RowFormat, encoded: &Encoded) -> io::Result<Vec<u8>> {
    let header = Header {
        format,
        report: encoded.report.clone(),
        sizes: encoded
            .examples
            .iter()
            .map(|example| (example.len() as u32, example.spans().len() as u32))
            .collect(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for example in &encoded.examples {
        bytes.extend(example.ids().iter().flat_map(|id| id.to_le_bytes()));
        let bounds = example
            .spans()
            .iter()
            .flat_map(|span| [span.start as u32, span.end as u32]);
        bytes.extend(bounds.flat_map(u32::to_le_bytes));
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<(RowFormat, Encoded)> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if Sha256::digest(content)[..] != *hash {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (header, rest) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let mut numbers = rest
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut examples = Vec::with_capacity(header.sizes.len());
    for (ids, spans) in header.sizes {
        let ids: Vec<u32> = numbers.by_ref().take(ids as usize).collect();
        let mut bound = || Some(numbers.next()? as usize);
        let spans: Option<Vec<Range<usize>>> =
            (0..spans).map(|_| Some(bound()?..bound()?)).collect();
        examples.push(Example::with_spans(ids, spans?).ok()?);
    }
    let encoded = Encoded {
        examples,
        report: header.report,
    };
    Some((header.format, encoded))
}
