//! One file from the hub into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cache::failed;
use crate::error::HubError;
use crate::listing::Listed;
use crate::request::{Client, Failure, Refusal, Reply, text};

const CHUNK: usize = 64 << 10;

/// The part of a file that is there, with its running digest.
struct Part {
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Sha256,
}

impl Part {
    /// Opens what an earlier attempt left, or an empty file. Another process that is at it is waited for.
    fn open(path: PathBuf) -> Result<Self, HubError> {
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed("write", &path))?;
        // Without locks on this file system, two processes at once end in a wrong digest and not in a wrong file.
        let _ = file.lock();
        let mut part = Self {
            path,
            file,
            bytes: 0,
            digest: Sha256::new(),
        };
        part.take_over().map_err(failed("read", &part.path))?;
        Ok(part)
    }

    fn take_over(&mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk)? {
                0 => return Ok(()),
                n => {
                    self.digest.update(&chunk[..n]);
                    self.bytes += n as u64;
                }
            }
        }
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), HubError> {
        self.file
            .write_all(chunk)
            .map_err(failed("write", &self.path))?;
        self.digest.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(failed("write", &self.path))?;
        self.bytes = 0;
        self.digest = Sha256::new();
        Ok(())
    }

    /// Gives the file its name if it is what the list says, and removes it if not.
    fn keep(self, listed: &Listed, blob: &Path) -> Result<(), HubError> {
        let checked = self.check(listed);
        match checked {
            Ok(()) => fs::rename(&self.path, blob).map_err(failed("write", blob)),
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                Err(error)
            }
        }
    }

    fn check(&self, listed: &Listed) -> Result<(), HubError> {
        if let Some(expected) = listed.size.filter(|size| *size != self.bytes) {
            return Err(HubError::Size {
                file: listed.name.clone(),
                expected,
                found: self.bytes,
            });
        }
        let found = format!("{:x}", self.digest.clone().finalize());
        match &listed.sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(HubError::Digest {
                file: listed.name.clone(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// Fetches a file to `blob`, going on from what an earlier attempt left; calls back with the bytes that are there.
pub(crate) fn download(
    client: &Client<'_>,
    url: &str,
    listed: &Listed,
    blob: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), HubError> {
    let mut part = Part::open(blob.with_extension("burn-lora-part"))?;
    if blob.is_file() {
        // The process that was waited for has fetched it.
        let _ = fs::remove_file(&part.path);
        return Ok(());
    }
    let mut total = listed.size;
    for attempt in 0..=client.retries() {
        match receive(client, url, listed, &mut part, &mut total, progress) {
            Ok(()) => return part.keep(listed, blob),
            Err(Failure::Lasting(error)) => return Err(error),
            Err(Failure::Passing(reason)) if attempt == client.retries() => {
                return Err(HubError::Cut {
                    file: listed.name.clone(),
                    bytes: part.bytes,
                    total: total.map_or_else(|| "unknown".into(), |total| total.to_string()),
                    attempts: attempt + 1,
                    reason,
                });
            }
            Err(Failure::Passing(_)) => std::thread::sleep(client.wait(attempt)),
        }
    }
    Ok(())
}

/// One attempt at the rest of a file.
fn receive(
    client: &Client<'_>,
    url: &str,
    listed: &Listed,
    part: &mut Part,
    total: &mut Option<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    if let Some(size) = listed.size {
        if part.bytes == size && size > 0 {
            return Ok(());
        }
        if part.bytes > size {
            part.clear().map_err(Failure::Lasting)?;
        }
    }
    let Reply { response, etag } = client.get(url, part.bytes)?;
    let status = response.status().as_u16();
    let continues = format!("bytes {}-", part.bytes);
    match status {
        206 if text(&response, "content-range")
            .is_some_and(|range| range.starts_with(&continues)) => {}
        200 => part.clear().map_err(Failure::Lasting)?,
        206 | 416 => {
            part.clear().map_err(Failure::Lasting)?;
            return Err(Failure::Passing(
                "it does not go on from where it was".into(),
            ));
        }
        _ => return Err(refused(url, listed, Refusal::of(&response))),
    }
    if let (Some(expected), Some(found)) = (&listed.hash, etag)
        && !expected.eq_ignore_ascii_case(&found)
    {
        return Err(Failure::Lasting(HubError::Etag {
            file: listed.name.clone(),
            expected: expected.clone(),
            found,
        }));
    }
    let announced = response.body().content_length();
    let end = announced.map(|length| part.bytes + length);
    *total = total.or(end);

    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = body
            .read(&mut chunk)
            .map_err(|error| Failure::Passing(error.to_string()))?;
        if n == 0 {
            break;
        }
        part.add(&chunk[..n]).map_err(Failure::Lasting)?;
        progress(part.bytes);
        // A server that does not end would fill the disk.
        if listed.size.is_some_and(|size| part.bytes > size) {
            return Ok(());
        }
    }
    match end {
        Some(end) if part.bytes < end => Err(Failure::Passing("the connection ended".into())),
        _ => Ok(()),
    }
}

fn refused(url: &str, listed: &Listed, refusal: Refusal) -> Failure {
    if refusal.is_passing() {
        return Failure::Passing(refusal.to_string());
    }
    Failure::Lasting(HubError::Status {
        url: url.into(),
        status: refusal.status,
        message: refusal.message.or_else(|| {
            (refusal.status == 404).then(|| format!("{} is listed, and gone", listed.name))
        }),
    })
}
