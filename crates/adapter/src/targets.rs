use regex::Regex;

use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::sites::Site;
use crate::view::Kind;

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

    /// Whether they mean the linear layer of this path.
    ///
    /// # Errors
    /// [`AdapterError::Config`] for an expression that is none.
    pub fn means_linear(&self, path: &str) -> Result<bool, AdapterError> {
        Ok(match self {
            Self::AllLinear => !is_head(path),
            named => named.compile()?.matches_path(path),
        })
    }

    pub(crate) fn compile(&self) -> Result<Matcher<'_>, AdapterError> {
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

pub(crate) enum Matcher<'a> {
    Names(&'a [String]),
    Regex(Pattern),
    AllLinear,
}

impl Matcher<'_> {
    fn matches(&self, site: &Site) -> bool {
        match self {
            Self::AllLinear if site.view.kind == Kind::Bias => !is_head(site.owner_path()),
            _ if site.is_vector() => self.matches_path(site.owner_path()),
            Self::AllLinear => site.is_linear() && !is_head(site.module_path()),
            _ => self.matches_path(site.module_path()),
        }
    }

    /// Whether it matches a module's path; "all linear" matches none, for which a path alone is not enough.
    pub(crate) fn matches_path(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| is_suffix(path, name)),
            Self::Regex(pattern) => pattern.matches(path),
            Self::AllLinear => false,
        }
    }
}

pub(crate) fn is_head(path: &str) -> bool {
    HEADS.iter().any(|head| is_suffix(path, head))
}

/// Whether a path is the name or ends in `.name`.
pub(crate) fn is_suffix(path: &str, name: &str) -> bool {
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

/// The sites that a configuration selects, of those that its method may go onto.
///
/// # Errors
/// [`AdapterError::NoSuchTarget`]: a name, or the expression, matches nothing; all such names at once, each with
/// the nearest that exist.
pub(crate) fn select(sites: &[Site], config: &LoraConfig) -> Result<Vec<Site>, AdapterError> {
    let targets = config.targets.compile()?;
    let mut unmatched = Vec::new();
    if let Targets::Names(names) = &config.targets {
        let path = |site: &Site| match site.is_vector() {
            true => site.owner_path().to_string(),
            false => site.module_path().to_string(),
        };
        let matches = |name: &&String| !sites.iter().any(|site| is_suffix(&path(site), name));
        unmatched.extend(names.iter().filter(matches).cloned());
    }
    let exclude = config.exclude.as_ref().map(Targets::compile).transpose()?;
    let layers = Layers::of(config)?;
    let selected: Vec<Site> = sites
        .iter()
        .filter(|site| targets.matches(site))
        .filter(|site| {
            !exclude
                .as_ref()
                .is_some_and(|exclude| exclude.matches(site))
        })
        .filter(|site| layers.hold(site.module_path()))
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
    Ok(selected)
}

/// Which layers of the lists of a model are adapted.
struct Layers<'a> {
    indices: Option<&'a [usize]>,
    /// What must stand before the index, if it matters.
    patterns: Vec<Regex>,
}

impl<'a> Layers<'a> {
    fn of(config: &'a LoraConfig) -> Result<Self, AdapterError> {
        let patterns = config
            .layers_pattern
            .iter()
            .map(|pattern| Regex::new(&format!(r"^(?:|.*?\.)(?:{pattern})\.(\d+)\.")))
            .collect::<Result<_, _>>()
            .map_err(|error| AdapterError::Config {
                faults: vec![format!("layers_pattern: {error}")],
            })?;
        Ok(Self {
            indices: config.layers_to_transform.as_deref(),
            patterns,
        })
    }

    /// Whether a path lies in one of the layers: by the first number in it, `model.layers.3.mlp` is in layer 3, or by that
    /// after a pattern.
    fn hold(&self, path: &str) -> bool {
        let Some(indices) = self.indices else {
            return true;
        };
        let first = || path.split('.').find_map(|segment| segment.parse().ok());
        let after = |pattern: &Regex| pattern.captures(path)?.get(1)?.as_str().parse().ok();
        let index: Option<usize> = match self.patterns.is_empty() {
            true => first(),
            false => self.patterns.iter().find_map(after),
        };
        index.is_some_and(|index| indices.contains(&index))
    }
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
    fn layers_are_counted_by_the_first_number_or_after_a_pattern() {
        let holds = |patterns: &[&str], path: &str| {
            let config = LoraConfig {
                layers_to_transform: Some(vec![1, 3]),
                layers_pattern: patterns.iter().map(|pattern| pattern.to_string()).collect(),
                ..LoraConfig::new(1, 1.0)
            };
            Layers::of(&config).expect("valid").hold(path)
        };
        assert!(holds(&[], "h.3.attn"));
        assert!(!holds(&[], "h.2.attn"));
        assert!(!holds(&[], "head"));
        assert!(!holds(&["blocks", "layers"], "model.h.3.attn"));
        assert!(holds(&["blocks", "h"], "model.h.3.attn"));
        assert!(holds(&["layers"], "layers.1.experts.0.up"));
        assert!(!holds(&["layers"], "layers.0.experts.1.up"));
    }
}
