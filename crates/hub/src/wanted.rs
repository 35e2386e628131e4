//! Which files of a model are fetched.

use serde_json::Value;

use crate::error::HubError;

/// What is wanted of a model on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A model: `config.json`, the tokenizer's files, and the weights in one format, safetensors before PyTorch's.
    Model,
    /// The tokenizer and the configuration, without weights.
    Tokenizer,
    /// A PEFT adapter: its configuration and its weights.
    Adapter,
}

/// The files of one kind of repository.
struct Files {
    required: &'static [&'static str],
    /// Fetched where they are there.
    optional: &'static [&'static str],
    /// Each a file, or an index of several; the first that is there is fetched.
    weights: &'static [&'static str],
}

const INDEX: &str = ".index.json";

impl Wanted {
    fn files(self) -> Files {
        const CONFIGURATION: &[&str] = &[
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "modules.json",
            "sentence_bert_config.json",
            "1_Pooling/config.json",
        ];
        match self {
            Self::Model => Files {
                required: &["config.json"],
                optional: CONFIGURATION,
                weights: &[
                    "model.safetensors",
                    "model.safetensors.index.json",
                    "pytorch_model.bin",
                    "pytorch_model.bin.index.json",
                ],
            },
            Self::Tokenizer => Files {
                required: &["config.json"],
                optional: CONFIGURATION,
                weights: &[],
            },
            Self::Adapter => Files {
                required: &["adapter_config.json"],
                optional: &[],
                weights: &["adapter_model.safetensors", "adapter_model.bin"],
            },
        }
    }

    /// The files to fetch first, of those that a repository has. An index among them names more: see [`shards`].
    pub(crate) fn select(self, id: &str, has: &[String]) -> Result<Vec<String>, HubError> {
        let files = self.files();
        let is_there = |name: &&&str| has.iter().any(|file| file == **name);
        if let Some(missing) = files.required.iter().find(|name| !is_there(name)) {
            return Err(HubError::NoFile {
                id: id.into(),
                file: (*missing).into(),
                nearest: nearest(missing, has),
            });
        }
        let weights = files.weights.iter().find(is_there);
        if weights.is_none() && !files.weights.is_empty() {
            return Err(HubError::NoWeights {
                id: id.into(),
                files: has.to_vec(),
            });
        }
        let optional = files.optional.iter().filter(is_there);
        let all = files.required.iter().chain(optional).chain(weights);
        Ok(all.map(|name| (*name).to_owned()).collect())
    }
}

/// Whether a file is an index of others.
pub(crate) fn is_index(file: &str) -> bool {
    file.ends_with(INDEX)
}

/// The files that an index names, all of which a repository must have.
pub(crate) fn shards(
    id: &str,
    file: &str,
    text: &str,
    has: &[String],
) -> Result<Vec<String>, HubError> {
    let broken = |reason: String| HubError::Index {
        id: id.into(),
        file: file.into(),
        reason,
    };
    let index: Value = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| broken("no object under `weight_map`".into()))?;
    let mut names = Vec::new();
    for (tensor, name) in map {
        match name.as_str() {
            Some(name) if !name.contains(['/', '\\']) && !name.starts_with('.') => {
                names.push(name.to_owned());
            }
            _ => return Err(broken(format!("`{tensor}` is in {name}, not a file name"))),
        }
    }
    names.sort();
    names.dedup();
    let absent: Vec<&str> = names
        .iter()
        .filter(|name| !has.contains(name))
        .map(String::as_str)
        .collect();
    match absent.is_empty() {
        true => Ok(names),
        false => Err(broken(format!(
            "the repository lacks {}",
            absent.join(", ")
        ))),
    }
}

fn nearest(name: &str, has: &[String]) -> Option<String> {
    has.iter()
        .map(|file| (strsim::normalized_levenshtein(name, file), file))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, file)| file.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    #[test]
    fn one_format_of_weights_is_taken() {
        let has = names(&[
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "onnx/model.onnx",
        ]);
        let selected = Wanted::Model.select("a/b", &has).expect("enough");
        assert_eq!(
            selected,
            ["config.json", "tokenizer.json", "model.safetensors"]
        );
        let selected = Wanted::Tokenizer.select("a/b", &has).expect("enough");
        assert_eq!(selected, ["config.json", "tokenizer.json"]);
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_there() {
        let error = Wanted::Model
            .select("a/b", &names(&["configs.json", "model.safetensors"]))
            .expect_err("no configuration")
            .to_string();
        assert_eq!(error, "a/b has no config.json; nearest: configs.json");
        let error = Wanted::Model
            .select("a/b", &names(&["config.json", "model.gguf"]))
            .expect_err("no weights")
            .to_string();
        assert!(error.ends_with("it has config.json, model.gguf"), "{error}");
    }

    #[test]
    fn an_index_names_files_beside_it() {
        let has = names(&["x-1.safetensors", "x-2.safetensors"]);
        let shards = |text| shards("a/b", "i.index.json", text, &has);
        let index = r#"{"weight_map": {"p": "x-2.safetensors", "q": "x-1.safetensors", "r": "x-1.safetensors"}}"#;
        assert_eq!(shards(index).expect("valid"), has);
        for (index, part) in [
            (r#"{"weight_map": {"p": "../x"}}"#, "not a file name"),
            (r#"{"weight_map": {"p": 1}}"#, "not a file name"),
            (
                r#"{"weight_map": {"p": "x-3.safetensors"}}"#,
                "lacks x-3.safetensors",
            ),
            ("[]", "weight_map"),
            ("{", "EOF"),
        ] {
            let error = shards(index).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
