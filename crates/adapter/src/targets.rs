use regex::Regex;

use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::sites::Site;

/// Which layers an adapter goes onto, by PEFT's rules.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Names: a layer matches when its path is the name or ends in `.name`.
    Names(Vec<String>),
    /// A regular expression that must match a layer's whole path.
    Regex(String),
    /// Every linear layer but the output head (a layer named `lm_head`, `score`, `classifier` or `embed_out`).
    AllLinear,
}

/// Names under which the checkpoints of Hugging Face hold a model's output head.
const HEADS: [&str; 4] = ["lm_head", "score", "classifier", "embed_out"];

impl Targets {
    /// Targets from a list of names.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// Reads what users write: `all-linear`, a comma-separated list of names, or a regular expression, told from a
    /// name by a character that no path has.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ',' | ' ');
        if text == "all-linear" {
            Self::AllLinear
        } else if text.chars().all(is_path) {
            let names = text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            Self::names(names)
        } else {
            Self::Regex(text.to_string())
        }
    }

    fn compile(&self) -> Result<Matcher<'_>, AdapterError> {
        Ok(match self {
            Self::Names(names) => Matcher::Names(names),
            Self::AllLinear => Matcher::AllLinear,
            Self::Regex(text) => {
                Matcher::Regex(Pattern::full(text).map_err(|error| AdapterError::Config {
                    faults: vec![format!(
                        "targets (target_modules) is the invalid expression \"{text}\": {error}"
                    )],
                })?)
            }
        })
    }
}

enum Matcher<'a> {
    Names(&'a [String]),
    Regex(Pattern),
    AllLinear,
}

impl Matcher<'_> {
    fn matches(&self, site: &Site) -> bool {
        let path = site.module_path();
        match self {
            Self::Names(names) => names.iter().any(|name| is_suffix(path, name)),
            Self::Regex(pattern) => pattern.matches(path),
            Self::AllLinear => site.is_linear() && !HEADS.iter().any(|head| is_suffix(path, head)),
        }
    }
}

fn is_suffix(path: &str, name: &str) -> bool {
    path == name
        || path
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// A regular expression anchored as Python's `re` would have it.
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// Matches a whole path.
    fn full(text: &str) -> Result<Self, regex::Error> {
        Regex::new(&format!("^(?:{text})$")).map(Self)
    }

    /// Matches a whole path or what follows a dot in it: PEFT's rule for the keys of patterns.
    pub(crate) fn suffix(text: &str) -> Result<Self, regex::Error> {
        Regex::new(&format!(r"^(?:.*\.)?(?:{text})$")).map(Self)
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// The sites that a configuration selects.
///
/// # Errors
/// - [`AdapterError::NoSuchTarget`]: a name, or the expression, matches nothing; all such names at once, each with
///   the nearest that exist.
/// - [`AdapterError::NotAdaptable`]: a target is an embedding.
pub(crate) fn select(sites: &[Site], config: &LoraConfig) -> Result<Vec<Site>, AdapterError> {
    let targets = config.targets.compile()?;
    let mut unmatched = Vec::new();
    if let Targets::Names(names) = &config.targets {
        let matches = |name: &&String| !sites.iter().any(|s| is_suffix(s.module_path(), name));
        unmatched.extend(names.iter().filter(matches).cloned());
    }
    let exclude = config.exclude.as_ref().map(Targets::compile).transpose()?;
    let selected: Vec<Site> = sites
        .iter()
        .filter(|site| targets.matches(site))
        .filter(|site| {
            !exclude
                .as_ref()
                .is_some_and(|exclude| exclude.matches(site))
        })
        .filter(|site| in_layers(site.module_path(), config.layers_to_transform.as_deref()))
        .cloned()
        .collect();
    if selected.is_empty() && unmatched.is_empty() {
        unmatched.push(match &config.targets {
            Targets::Names(names) => names.join(", "),
            Targets::Regex(text) => text.clone(),
            Targets::AllLinear => "all-linear".to_string(),
        });
    }
    if !unmatched.is_empty() {
        return Err(AdapterError::no_such_target(unmatched, sites));
    }
    let embeddings: Vec<String> = selected
        .iter()
        .filter(|site| site.is_embedding())
        .map(|site| site.module_path().to_string())
        .collect();
    match embeddings.is_empty() {
        true => Ok(selected),
        false => Err(AdapterError::NotAdaptable {
            layers: embeddings,
            kind: "an embedding",
        }),
    }
}

/// Whether a path lies in one of the layers, by the first number in it: `model.layers.3.mlp` is in layer 3.
fn in_layers(path: &str, layers: Option<&[usize]>) -> bool {
    let Some(layers) = layers else { return true };
    path.split('.')
        .find_map(|segment| segment.parse::<usize>().ok())
        .is_some_and(|index| layers.contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_whole_segments_only() {
        assert!(is_suffix("model.layers.0.q_proj", "q_proj"));
        assert!(is_suffix("model.layers.0.q_proj", "0.q_proj"));
        assert!(is_suffix("q_proj", "q_proj"));
        assert!(!is_suffix("model.layers.0.xq_proj", "q_proj"));
        assert!(!is_suffix("model.layers.10.q_proj", "0.q_proj"));
    }

    #[test]
    fn an_expression_must_match_the_whole_path() {
        let pattern = Pattern::full(r".*\.[qv]_proj|head").expect("valid");
        assert!(pattern.matches("model.layers.0.q_proj"));
        assert!(pattern.matches("head"));
        assert!(!pattern.matches("model.head"));
        assert!(!pattern.matches("model.layers.0.q_proj.x"));
    }

    #[test]
    fn a_pattern_key_matches_the_end_of_a_path() {
        let pattern = Pattern::suffix(r"layers\.\d\.q_proj").expect("valid");
        assert!(pattern.matches("model.layers.0.q_proj"));
        assert!(!pattern.matches("model.xlayers.0.q_proj"));
    }

    #[test]
    fn what_users_write_is_told_apart() {
        assert_eq!(Targets::parse("all-linear"), Targets::AllLinear);
        assert_eq!(
            Targets::parse("q_proj, v_proj"),
            Targets::names(["q_proj", "v_proj"])
        );
        assert_eq!(
            Targets::parse(r".*q_proj$"),
            Targets::Regex(".*q_proj$".to_string())
        );
    }

    #[test]
    fn layers_are_counted_by_the_first_number() {
        assert!(in_layers("h.3.attn", Some(&[1, 3])));
        assert!(!in_layers("h.2.attn", Some(&[1, 3])));
        assert!(!in_layers("head", Some(&[0])));
    }
}
