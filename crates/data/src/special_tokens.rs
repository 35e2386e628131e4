//! Which tokens begin, end and fill a sequence, from the configuration files beside
//! `tokenizer.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::DataError;

/// Special tokens of a tokenizer, as ids of its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence, if the tokenizer has such a token.
    pub bos: Option<u32>,
    /// Ends a sequence: learned after every completion and every text.
    pub eos: u32,
    /// Fills a batch. Padded positions count nowhere, so any id does.
    pub pad: u32,
    /// Ends generation: `eos`, and further ids of `generation_config.json` (chat models often stop
    /// at several).
    pub stop: Vec<u32>,
    /// Whether `bos` begins a prompt; without a word on it, the post-processor of `tokenizer.json`
    /// decides.
    pub add_bos: Option<bool>,
}

impl SpecialTokens {
    /// Only an end-of-sequence token, which also pads and stops.
    pub fn new(eos: u32) -> Self {
        Self {
            bos: None,
            eos,
            pad: eos,
            stop: vec![eos],
            add_bos: None,
        }
    }

    /// Reads the files of a Hugging Face folder.
    ///
    /// - eos, bos, pad: `eos_token`, `bos_token`, `pad_token` of `tokenizer_config.json`, otherwise
    ///   of `special_tokens_map.json`;
    /// - no eos there: the first `eos_token_id` of `generation_config.json`, otherwise of
    ///   `config.json`, which comes last because its ids are often a library's defaults that fit no
    ///   tokenizer;
    /// - no pad there: eos;
    /// - stop: eos, and every `eos_token_id` of `generation_config.json`.
    ///
    /// # Errors
    ///
    /// A file that is unreadable or not a JSON object, a value of the wrong type, a token or id
    /// that `tokenizer` does not have, no end-of-sequence token at all, or `add_bos_token` without
    /// a `bos_token`.
    pub fn from_folder(
        folder: &Path,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Self, DataError> {
        let read = |name| ConfigFile::read(folder, name);
        let tokenizer_config = read("tokenizer_config.json")?;
        let token_map = read("special_tokens_map.json")?;
        let named = |key| match tokenizer_config.token(key, tokenizer)? {
            Some(id) => Ok(Some(id)),
            None => token_map.token(key, tokenizer),
        };
        let eos = named("eos_token")?;
        let bos = named("bos_token")?;
        let pad = named("pad_token")?;

        let mut stop = read("generation_config.json")?.ids("eos_token_id", tokenizer)?;
        if eos.is_none() && stop.is_empty() {
            stop = read("config.json")?.ids("eos_token_id", tokenizer)?;
        }
        let eos = eos
            .or(stop.first().copied())
            .ok_or_else(|| DataError::NoEos {
                folder: folder.to_path_buf(),
            })?;
        stop.retain(|&id| id != eos);
        stop.insert(0, eos);

        let add_bos = tokenizer_config.flag("add_bos_token")?;
        if add_bos == Some(true) && bos.is_none() {
            return Err(DataError::NoBos {
                path: tokenizer_config.path,
            });
        }
        Ok(Self {
            bos,
            eos,
            pad: pad.unwrap_or(eos),
            stop,
            add_bos,
        })
    }
}

/// The special tokens that an encoder's tokenizer puts around texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderTokens {
    /// Stands for a token that is hidden, if the tokenizer has such.
    pub mask: Option<u32>,
    /// Every special token, ascending.
    pub special: Vec<u32>,
}

/// What encoders' tokenizers call their tokens where no file says it: BERT's and RoBERTa's.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];
const ENDS: [&str; 2] = ["[SEP]", "</s>"];
const PADS: [&str; 2] = ["[PAD]", "<pad>"];

impl EncoderTokens {
    /// Reads the files of a Hugging Face folder: `mask_token` of `tokenizer_config.json`, otherwise of
    /// `special_tokens_map.json`, otherwise `[MASK]` or `<mask>`.
    ///
    /// # Errors
    ///
    /// As [`SpecialTokens::from_folder`] for files and values.
    pub fn from_folder(
        folder: &Path,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Self, DataError> {
        let mask = named_token(folder, tokenizer, "mask_token", MASKS)?;
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        let mut special: Vec<u32> = special.map(|(id, _)| *id).chain(mask).collect();
        special.sort_unstable();
        special.dedup();
        Ok(Self { mask, special })
    }
}

/// A token that a file names, or one of the usual names.
fn named_token(
    folder: &Path,
    tokenizer: &tokenizers::Tokenizer,
    key: &'static str,
    usual: [&str; 2],
) -> Result<Option<u32>, DataError> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        if let Some(id) = ConfigFile::read(folder, name)?.token(key, tokenizer)? {
            return Ok(Some(id));
        }
    }
    Ok(usual.iter().find_map(|token| tokenizer.token_to_id(token)))
}

impl SpecialTokens {
    /// As [`from_folder`](Self::from_folder), for a model that does not generate: a folder that names no end of a sequence has
    /// its separator for it.
    ///
    /// # Errors
    ///
    /// As [`from_folder`](Self::from_folder); without a separator, too, [`DataError::NoEos`].
    pub fn from_encoder_folder(
        folder: &Path,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Self, DataError> {
        match Self::from_folder(folder, tokenizer) {
            Err(error @ DataError::NoEos { .. }) => {
                let end = named_token(folder, tokenizer, "sep_token", ENDS)?.ok_or(error)?;
                let pad = named_token(folder, tokenizer, "pad_token", PADS)?;
                Ok(Self {
                    pad: pad.unwrap_or(end),
                    ..Self::new(end)
                })
            }
            found => found,
        }
    }
}

/// A JSON object in a file, with the few types of value that are read from it. An absent file, an
/// absent key and `null` are the same.
pub(crate) struct ConfigFile {
    path: PathBuf,
    pub(crate) values: Map<String, Value>,
}

impl ConfigFile {
    /// The file, empty if the folder does not have it.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Self, DataError> {
        let path = folder.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_string(),
            Err(source) => return Err(DataError::Read { path, source }),
        };
        match serde_json::from_str(&text) {
            Ok(values) => Ok(Self { path, values }),
            Err(error) => Err(DataError::BadConfig {
                path,
                message: error.to_string(),
            }),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &'static str, expected: &'static str) -> DataError {
        DataError::BadConfigValue {
            path: self.path.clone(),
            key,
            expected,
        }
    }

    /// The id of a token written as a string or as an object with `content`.
    fn token(
        &self,
        key: &'static str,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Option<u32>, DataError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let token = value
            .as_str()
            .or_else(|| value.get("content")?.as_str())
            .ok_or_else(|| self.bad(key, "a string, nor an object with a string \"content\""))?;
        let id = tokenizer.token_to_id(token);
        id.map(Some)
            .ok_or_else(|| self.not_in_vocabulary(key, format!("\"{token}\""), tokenizer))
    }

    /// Ids written as a number or as a list of numbers; none if the key is absent.
    fn ids(
        &self,
        key: &'static str,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Vec<u32>, DataError> {
        let Some(value) = self.value(key) else {
            return Ok(Vec::new());
        };
        let list = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids = list
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<Vec<u32>>>();
        let ids = ids.ok_or_else(|| self.bad(key, "a token id, nor a list of token ids"))?;
        match ids.iter().find(|&&id| tokenizer.id_to_token(id).is_none()) {
            Some(id) => Err(self.not_in_vocabulary(key, id.to_string(), tokenizer)),
            None => Ok(ids),
        }
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, DataError> {
        self.value(key)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.bad(key, "true or false"))
            })
            .transpose()
    }

    fn not_in_vocabulary(
        &self,
        key: &'static str,
        token: String,
        tokenizer: &tokenizers::Tokenizer,
    ) -> DataError {
        DataError::NotInVocabulary {
            path: self.path.clone(),
            key,
            token,
            vocab_size: tokenizer.get_vocab_size(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{folder, words};

    fn read(files: &[(&str, &str)]) -> Result<SpecialTokens, DataError> {
        let dir = folder(files);
        SpecialTokens::from_folder(dir.path(), &words())
    }

    #[test]
    fn reads_strings_objects_and_ids() {
        let tokens = read(&[
            (
                "tokenizer_config.json",
                r#"{"eos_token": {"content": "</s>"}, "bos_token": "<s>", "add_bos_token": true}"#,
            ),
            (
                "special_tokens_map.json",
                r#"{"eos_token": "<s>", "pad_token": "<pad>"}"#,
            ),
            ("generation_config.json", r#"{"eos_token_id": [2, 4]}"#),
        ]);
        let expected = SpecialTokens {
            bos: Some(1),
            eos: 2,
            pad: 3,
            stop: vec![2, 4],
            add_bos: Some(true),
        };
        assert_eq!(tokens.unwrap(), expected);
    }

    #[test]
    fn falls_back_to_ids_and_pads_with_eos() {
        assert_eq!(
            read(&[("config.json", r#"{"eos_token_id": 2}"#)]).unwrap(),
            SpecialTokens::new(2)
        );
        let tokens = read(&[
            ("tokenizer_config.json", r#"{"eos_token": null}"#),
            ("generation_config.json", r#"{"eos_token_id": 2}"#),
            // Not in the vocabulary, and not asked.
            ("config.json", r#"{"eos_token_id": 50256}"#),
        ]);
        assert_eq!(tokens.unwrap(), SpecialTokens::new(2));
    }

    #[test]
    fn an_eos_outside_the_vocabulary_is_an_error() {
        let error = read(&[("tokenizer_config.json", r#"{"eos_token": "<|end|>"}"#)])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tokenizer_config.json: \"eos_token\" is \"<|end|>\""),
            "{error}"
        );
        let error = read(&[("generation_config.json", r#"{"eos_token_id": [2, 50256]}"#)])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("generation_config.json: \"eos_token_id\" is 50256"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_file() {
        for (name, text, part) in [
            (
                "tokenizer_config.json",
                r#"{"eos_token": 2}"#,
                "\"eos_token\" is not a string",
            ),
            (
                "tokenizer_config.json",
                r#"{"eos_token": "</s>", "add_bos_token": "yes"}"#,
                "is not true or false",
            ),
            (
                "tokenizer_config.json",
                r#"{"eos_token": "</s>", "add_bos_token": true}"#,
                "names no \"bos_token\"",
            ),
            (
                "generation_config.json",
                r#"{"eos_token_id": "2"}"#,
                "\"eos_token_id\" is not a token id",
            ),
            ("special_tokens_map.json", "[1]", "is not a JSON object"),
            ("config.json", "{", "is not a JSON object"),
        ] {
            let error = read(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
        let error = read(&[("config.json", "{}")]).unwrap_err();
        assert!(matches!(error, DataError::NoEos { .. }), "{error}");
    }
}
