//! The hub's list of a model's files at one commit.

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use crate::error::HubError;
use crate::model_id::is_hash;
use crate::request::{self, Failure, Refusal};
use crate::settings::HubSettings;

/// The most bytes of a list.
const LIMIT: u64 = 64 << 20;

/// What a model has at a commit.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) files: Vec<Listed>,
}

/// A file in the list. What mirrors leave out is not compared.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
    /// The SHA-256 of its content, where it is kept as a large file.
    pub(crate) sha256: Option<String>,
    /// The name of its blob: the SHA-256, or git's hash of a small file.
    pub(crate) hash: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl From<Sibling> for Listed {
    fn from(sibling: Sibling) -> Self {
        let hash = |text: Option<String>| text.filter(|text| is_hash(text));
        let (sha256, size) = match sibling.lfs {
            Some(lfs) => (hash(lfs.sha256).filter(|sha| sha.len() == 64), lfs.size),
            None => (None, None),
        };
        Self {
            name: sibling.rfilename,
            size: size.or(sibling.size),
            hash: sha256.clone().or_else(|| hash(sibling.blob_id)),
            sha256,
        }
    }
}

/// Asks for the list of a revision.
pub(crate) fn list(settings: &HubSettings, id: &str, revision: &str) -> Result<Listing, Failure> {
    let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_progress(false)
        .build()
        .map_err(|error| Failure::Passing(error.to_string()))?;
    let repo = Repo::with_revision(id.into(), RepoType::Model, revision.into());
    let url = format!("{}/api/{}", settings.endpoint, repo.api_url());
    // Sizes and digests are given on request.
    let ask = api.repo(repo).info_request().query("blobs", "true");
    let response = request::configured(ask, settings).call();
    let mut response = response.map_err(|error| Failure::of(&error))?;
    if !response.status().is_success() {
        return Err(match Refusal::of(&response) {
            refusal if refusal.is_passing() => Failure::Passing(refusal.to_string()),
            refusal => Failure::Lasting(of_model(settings, id, revision, &url, refusal)),
        });
    }
    let answer = |reason: String| {
        Failure::Lasting(HubError::Answer {
            url: url.clone(),
            reason,
        })
    };
    let body = response.body_mut().with_config().limit(LIMIT).read_to_vec();
    let body = body.map_err(|error| Failure::of(&error))?;
    let info: Info = serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))?;
    if !is_hash(&info.sha) {
        return Err(answer(format!("`{}` is no commit", info.sha)));
    }
    Ok(Listing {
        commit: info.sha,
        files: info.siblings.into_iter().map(Listed::from).collect(),
    })
}

/// What a refusal of the whole model means.
pub(crate) fn of_model(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    url: &str,
    refusal: Refusal,
) -> HubError {
    let has_token = settings.token.is_some();
    let Refusal {
        status,
        code,
        message,
    } = refusal;
    match (status, code.as_deref()) {
        (404, Some("RevisionNotFound")) => HubError::NoRevision {
            id: id.into(),
            revision: revision.into(),
        },
        (401 | 403 | 404, Some("RepoNotFound")) | (404, _) => HubError::NoModel {
            id: id.into(),
            endpoint: settings.endpoint.clone(),
            has_token,
        },
        (401 | 403, code) => HubError::Denied {
            id: id.into(),
            url: format!("{}/{id}", settings.endpoint),
            status,
            message,
            gated: code == Some("GatedRepo"),
            has_token,
        },
        _ => HubError::Status {
            url: url.into(),
            status,
            message,
        },
    }
}
