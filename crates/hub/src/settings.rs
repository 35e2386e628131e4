use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::HubError;

/// Where the hub and its cache are, and who asks.
#[derive(Clone)]
pub struct HubSettings {
    /// The address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The folder with a folder for each model.
    pub cache: PathBuf,
    /// Whose access counts, for private and gated models.
    pub token: Option<String>,
    /// Whether only the cache is asked.
    pub offline: bool,
    /// How often a connection that fails is tried again.
    pub retries: u32,
    /// The wait before the first of these; each is twice as long as the one before.
    pub retry_wait: Duration,
    /// The longest wait for the next bytes.
    pub timeout: Duration,
}

impl HubSettings {
    /// The public hub and this cache, without a token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache: cache.into(),
            token: None,
            offline: false,
            retries: 4,
            retry_wait: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
        }
    }

    /// The settings of the environment, by the variables that Python's `huggingface_hub` reads:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_ENDPOINT` | the address of the hub, or of a mirror |
    /// | `HF_HUB_CACHE` | the cache folder; otherwise `hub` in `HF_HOME`, otherwise `~/.cache/huggingface/hub` |
    /// | `HF_TOKEN` | the token; otherwise the file `HF_TOKEN_PATH`, or `token` in `HF_HOME` |
    /// | `HF_HUB_OFFLINE` | `1`: only the cache is asked |
    ///
    /// # Errors
    ///
    /// [`HubError::NoHome`] where neither a variable nor the system names a folder.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let filled = |name| variable(name).filter(|value| !value.is_empty());
        let text = |name| filled(name).and_then(|value| value.into_string().ok());
        let home = match (filled("HF_HOME"), filled("XDG_CACHE_HOME")) {
            (Some(home), _) => Some(PathBuf::from(home)),
            (None, Some(cache)) => Some(PathBuf::from(cache).join("huggingface")),
            (None, None) => ["HOME", "USERPROFILE"]
                .into_iter()
                .find_map(filled)
                .map(|home| PathBuf::from(home).join(".cache").join("huggingface")),
        };
        let in_home = |name| home.as_ref().map(|home| home.join(name));
        let cache = filled("HF_HUB_CACHE").map(PathBuf::from);
        let mut settings = Self::new(cache.or_else(|| in_home("hub")).ok_or(HubError::NoHome)?);
        if let Some(endpoint) = text("HF_ENDPOINT") {
            settings.endpoint = endpoint.trim_end_matches('/').into();
        }
        let token_file = filled("HF_TOKEN_PATH").map(PathBuf::from);
        settings.token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file.or_else(|| in_home("token"))?).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        settings.offline = text("HF_HUB_OFFLINE").is_some_and(|value| {
            matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        });
        Ok(settings)
    }
}

impl std::fmt::Debug for HubSettings {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        HubSettings::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables| settings(variables).expect("settings").cache;
        assert_eq!(
            cache(&[("HOME", "/h")]),
            PathBuf::from("/h/.cache/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
            PathBuf::from("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HOME", "/h"), ("HF_HOME", "/f")]),
            PathBuf::from("/f/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]),
            PathBuf::from("/c")
        );
        assert!(matches!(settings(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn the_token_comes_from_the_variable_before_the_file() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("token"), "of-the-file\n").expect("written");
        let home = home.path().to_str().expect("UTF-8");
        let token = |variables: &[_]| settings(variables).expect("settings").token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("of-the-file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", "mine")]).as_deref(),
            Some("mine")
        );
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        let shown = format!("{:?}", settings(&[("HF_HOME", home)]));
        assert!(!shown.contains("of-the-file"), "{shown}");
    }

    #[test]
    fn other_variables_are_read() {
        let found = settings(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        let found = found.expect("settings");
        assert_eq!(found.endpoint, "http://mirror");
        assert!(found.offline);
        assert!(
            !settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")])
                .expect("settings")
                .offline
        );
    }
}
