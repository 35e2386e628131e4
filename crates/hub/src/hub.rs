use std::fs;
use std::path::PathBuf;

use crate::cache::{Store, failed};
use crate::download::download;
use crate::error::HubError;
use crate::listing::{Listed, Listing, list, of_model};
use crate::model_id::{MAIN, check_id, check_revision, is_hash};
use crate::request::{Client, Failure};
use crate::settings::HubSettings;
use crate::wanted::{Wanted, is_index, shards};

/// The Hugging Face hub, or a mirror of it.
#[derive(Debug, Clone)]
pub struct Hub {
    settings: HubSettings,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The folder with its files.
    pub folder: PathBuf,
    /// The commit that they are from.
    pub commit: String,
    /// The files that were asked for.
    pub files: Vec<String>,
    /// The bytes of the files that were not in the cache.
    pub downloaded_bytes: u64,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy)]
pub struct FetchProgress<'a> {
    /// The file that is being fetched.
    pub file: &'a str,
    /// The bytes that are there, of all files.
    pub bytes: u64,
    /// The bytes to fetch, as far as they are known: an index of shards adds theirs.
    pub total_bytes: u64,
}

impl Hub {
    /// The hub of these settings.
    pub fn new(settings: HubSettings) -> Self {
        Self { settings }
    }

    /// The settings.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Fetches what is wanted of a model, as far as it is not in the cache.
    ///
    /// `revision` is a branch, a tag or a whole commit; without one, the branch `main`. All files are of the one commit
    /// that the revision is when the list is asked for. A whole commit that is in the cache is not asked for.
    ///
    /// # Errors
    ///
    /// [`HubError`], which says what to do where something can be done. What came whole stays in the cache.
    pub fn fetch(
        &self,
        id: &str,
        revision: Option<&str>,
        wanted: Wanted,
        progress: &mut dyn FnMut(FetchProgress<'_>),
    ) -> Result<Fetched, HubError> {
        let revision = revision.unwrap_or(MAIN);
        check_id(id)?;
        check_revision(revision)?;
        let store = Store::new(id, &self.settings.cache);
        let cached = self.cached(&store, id, revision, wanted);
        if self.settings.offline {
            return cached.map_err(|missing| HubError::Offline {
                id: id.into(),
                revision: revision.into(),
                cache: self.settings.cache.clone(),
                missing,
            });
        }
        if let (Ok(cached), true) = (&cached, is_hash(revision)) {
            return Ok(cached.clone());
        }
        let listing = self.listing(id, revision, cached.is_ok())?;
        let mut run = Run {
            hub: self,
            store: &store,
            id,
            revision,
            client: Client::new(&self.settings),
            listing: &listing,
            done_bytes: 0,
            total_bytes: 0,
            downloaded_bytes: 0,
            progress,
        };
        let files = run.all(wanted)?;
        let downloaded_bytes = run.downloaded_bytes;
        store.set_commit(revision, &listing.commit)?;
        Ok(Fetched {
            folder: store.snapshot(&listing.commit),
            commit: listing.commit,
            files,
            downloaded_bytes,
        })
    }

    /// What the cache has, or the files that it lacks.
    fn cached(
        &self,
        store: &Store,
        id: &str,
        revision: &str,
        wanted: Wanted,
    ) -> Result<Fetched, Vec<String>> {
        let commit = store.commit(revision).ok_or_else(Vec::new)?;
        let folder = store.snapshot(&commit);
        let has = store.files(&commit);
        if has.is_empty() {
            return Err(Vec::new());
        }
        let lacks = |error: HubError| match error {
            HubError::NoFile { file, .. } => vec![file],
            HubError::NoWeights { .. } => vec!["the weights".into()],
            other => vec![other.to_string()],
        };
        let mut files = wanted.select(id, &has).map_err(lacks)?;
        for index in files.clone().iter().filter(|file| is_index(file)) {
            let text = fs::read_to_string(folder.join(index)).unwrap_or_default();
            files.extend(shards(id, index, &text, &has).map_err(lacks)?);
        }
        Ok(Fetched {
            folder,
            commit,
            files,
            downloaded_bytes: 0,
        })
    }

    fn listing(&self, id: &str, revision: &str, cached: bool) -> Result<Listing, HubError> {
        let client = Client::new(&self.settings);
        let mut attempt = 0;
        loop {
            match list(&self.settings, id, revision) {
                Ok(listing) => return Ok(listing),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(reason)) if attempt == client.retries() => {
                    return Err(HubError::Unreachable {
                        url: self.settings.endpoint.clone(),
                        reason,
                        cached,
                    });
                }
                Err(Failure::Passing(_)) => std::thread::sleep(client.wait(attempt)),
            }
            attempt += 1;
        }
    }
}

/// One fetch.
struct Run<'a> {
    hub: &'a Hub,
    store: &'a Store,
    id: &'a str,
    revision: &'a str,
    client: Client<'a>,
    listing: &'a Listing,
    /// The bytes of the files that are there.
    done_bytes: u64,
    total_bytes: u64,
    downloaded_bytes: u64,
    progress: &'a mut dyn FnMut(FetchProgress<'_>),
}

impl Run<'_> {
    fn all(&mut self, wanted: Wanted) -> Result<Vec<String>, HubError> {
        let has: Vec<String> = self.listing.files.iter().map(|f| f.name.clone()).collect();
        let mut files = wanted.select(self.id, &has)?;
        self.expect(&files);
        let mut next = 0;
        while let Some(file) = files.get(next).cloned() {
            let path = self.one(&file)?;
            if is_index(&file) {
                let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
                let named = shards(self.id, &file, &text, &has)?;
                self.expect(&named);
                files.extend(named);
            }
            next += 1;
        }
        Ok(files)
    }

    /// Counts files that are to come.
    fn expect(&mut self, files: &[String]) {
        let sizes = files.iter().filter_map(|file| self.listed(file)?.size);
        self.total_bytes += sizes.sum::<u64>();
    }

    fn listed(&self, file: &str) -> Option<&Listed> {
        self.listing.files.iter().find(|listed| listed.name == file)
    }

    /// One file, from the cache if it is there as the list has it.
    fn one(&mut self, file: &str) -> Result<PathBuf, HubError> {
        let listed = self.listed(file).cloned().ok_or_else(|| HubError::NoFile {
            id: self.id.into(),
            file: file.into(),
            nearest: None,
        })?;
        let commit = &self.listing.commit;
        let pointer = self.store.snapshot(commit).join(file);
        if is_as_listed(&pointer, &listed) {
            self.count(file, &listed, 0);
            return Ok(pointer);
        }
        // Without a hash in the list, the file and its commit name the blob.
        let hash = listed.hash.clone();
        let hash = hash.unwrap_or_else(|| format!("{commit}-{}", file.replace('/', "-")));
        let blob = self.store.blob(&hash);
        let mut downloaded = 0;
        if !is_as_listed(&blob, &listed) {
            if blob.is_file() {
                fs::remove_file(&blob).map_err(failed("replace", &blob))?;
            }
            let endpoint = &self.hub.settings.endpoint;
            let url = format!("{endpoint}/{}/resolve/{commit}/{file}", self.id);
            let (done, total) = (self.done_bytes, self.total_bytes);
            let progress = &mut *self.progress;
            let mut report = |bytes| {
                downloaded = bytes;
                progress(FetchProgress {
                    file,
                    bytes: done + bytes,
                    total_bytes: total.max(done + bytes),
                });
            };
            download(&self.client, &url, &listed, &blob, &mut report)
                .map_err(|error| self.explain(error))?;
        }
        self.count(file, &listed, downloaded);
        self.store.link(&blob, commit, file)
    }

    fn count(&mut self, file: &str, listed: &Listed, downloaded: u64) {
        self.downloaded_bytes += downloaded;
        self.done_bytes += listed.size.unwrap_or(downloaded);
        (self.progress)(FetchProgress {
            file,
            bytes: self.done_bytes,
            total_bytes: self.total_bytes.max(self.done_bytes),
        });
    }

    /// A gated model may be listed for everybody, and its files not be.
    fn explain(&self, error: HubError) -> HubError {
        match error {
            HubError::Status {
                status: status @ (401 | 403),
                message,
                url,
            } => {
                let refusal = crate::request::Refusal {
                    status,
                    code: Some("GatedRepo".into()),
                    message,
                };
                of_model(&self.hub.settings, self.id, self.revision, &url, refusal)
            }
            other => other,
        }
    }
}

/// Whether a file is there with the size in the list.
fn is_as_listed(path: &std::path::Path, listed: &Listed) -> bool {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    metadata.is_some_and(|metadata| listed.size.is_none_or(|size| size == metadata.len()))
}
