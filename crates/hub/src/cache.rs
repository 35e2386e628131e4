//! The cache folder: blobs named by their hash, a snapshot of links for each commit, and the commits of branches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::error::HubError;
use crate::model_id::is_hash;

/// The place of one model in the cache.
pub(crate) struct Store {
    id: String,
    cache: Cache,
}

/// Names the file and what was tried with it.
pub(crate) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> HubError + 'a {
    move |source| HubError::Cache {
        action,
        path: path.into(),
        source,
    }
}

impl Store {
    pub(crate) fn new(id: &str, folder: &Path) -> Self {
        Self {
            id: id.into(),
            cache: Cache::new(folder.into()),
        }
    }

    fn repo(&self, revision: &str) -> (Repo, CacheRepo) {
        let repo = Repo::with_revision(self.id.clone(), RepoType::Model, revision.into());
        (repo.clone(), self.cache.repo(repo))
    }

    /// The commit that a revision was when it was last fetched.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_hash(revision) {
            return Some(revision.into());
        }
        let (repo, _) = self.repo(revision);
        let folder = self.cache.path().join(repo.folder_name());
        let commit = fs::read_to_string(folder.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_hash(commit).then(|| commit.to_owned())
    }

    /// Notes that a revision is this commit.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_hash(revision) {
            return Ok(());
        }
        let (_, repo) = self.repo(revision);
        let path = self.cache.path();
        repo.create_ref(commit).map_err(failed("write to", path))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo(commit).1.pointer_path(commit)
    }

    pub(crate) fn blob(&self, hash: &str) -> PathBuf {
        self.repo("main").1.blob_path(hash)
    }

    /// The files of a snapshot, with those of its folders.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let snapshot = self.snapshot(commit);
        let mut files = Vec::new();
        for path in children(&snapshot) {
            match path.is_dir() {
                true => files.extend(children(&path)),
                false => files.push(path),
            }
        }
        let name = |path: &PathBuf| {
            let relative = path.strip_prefix(&snapshot).ok()?;
            // A link to a blob that is gone is no file.
            path.is_file()
                .then(|| relative.to_string_lossy().replace('\\', "/"))
        };
        files.iter().filter_map(name).collect()
    }

    /// Shows a blob in a snapshot.
    pub(crate) fn link(&self, blob: &Path, commit: &str, file: &str) -> Result<PathBuf, HubError> {
        let pointer = self.snapshot(commit).join(file);
        let folder = pointer.parent().unwrap_or(&pointer);
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        if fs::symlink_metadata(&pointer).is_ok() {
            fs::remove_file(&pointer).map_err(failed("replace", &pointer))?;
        }
        // From `snapshots/<commit>`, and from each folder in it.
        let up = "../".repeat(2 + file.matches('/').count());
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        let linked = symlink(Path::new(&format!("{up}blobs/{name}")), &pointer);
        // Some file systems have no links of one kind, or of neither.
        linked
            .or_else(|_| fs::hard_link(blob, &pointer))
            .or_else(|_| fs::copy(blob, &pointer).map(|_| ()))
            .map_err(failed("write", &pointer))?;
        Ok(pointer)
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
