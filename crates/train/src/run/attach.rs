//! The adapters of a run: what its configuration says, put onto a model and written.

use std::fs;
use std::path::{Path, PathBuf};

use burn_lora_adapter::peft::{CONFIG_FILE, OLD_WEIGHTS_FILE, PeftMetadata, WEIGHTS_FILE, save};
use burn_lora_adapter::{DEFAULT_NAME, Evidence, LoraConfig, METHODS, freeze};
use burn_lora_data::EncoderTokenizer;
use burn_lora_transformer::{ModelConfig, PartConfig, WithParts};
use serde_json::{Map, Value, json};

use super::config::RunConfig;
use super::execute::RunError;
use super::part::PartSettings;
use crate::error::TrainError;
use crate::initialize::attach_with;
use crate::plan::outline_parts;

/// What a run attaches.
pub(super) struct Adapters {
    /// On weights.
    pub(super) lora: Option<LoraConfig>,
    parts: Vec<Part>,
    seed: u64,
}

/// A method beside the weights.
struct Part {
    settings: PartSettings,
    /// The tokens of the text that it starts from.
    text: Option<Vec<u32>>,
}

/// What is attached.
pub(super) struct Attached {
    lora: Option<LoraConfig>,
    parts: Vec<(PartSettings, PartConfig)>,
    modules_to_save: Vec<String>,
}

impl Adapters {
    /// Reads what the adapters start from, and checks that the model takes them, before it is loaded.
    pub(super) fn read(config: &RunConfig, folder: &Path) -> Result<Self, RunError> {
        let settings = config.adapter.parts();
        if !settings.is_empty() {
            outline_parts(&ModelConfig::read(folder)?, &settings)?;
        }
        let parts = settings.into_iter().map(|settings| {
            let text = settings.text().map(|text| {
                // As PEFT reads it, special tokens included.
                let tokenizer = EncoderTokenizer::from_folder(folder)?;
                tokenizer.encode(text, None).map(|encoded| encoded.ids)
            });
            let text = text.transpose()?;
            Ok(Part { settings, text })
        });
        Ok(Self {
            parts: parts.collect::<Result<_, RunError>>()?,
            lora: config.weights_config(),
            seed: config.training.seed,
        })
    }

    /// Attaches all of them, with the modules that are trained as a whole.
    pub(super) fn attach<M: WithParts>(
        &self,
        base: M,
        modules_to_save: &[String],
        seen: &Evidence,
    ) -> Result<(M, Attached), RunError> {
        let (mut model, lora) = match &self.lora {
            Some(lora) => {
                let (model, lora) = attach_with(base, DEFAULT_NAME, lora, seen)?;
                (model, Some(lora))
            }
            None => (freeze(base, modules_to_save), None),
        };
        let mut parts = Vec::new();
        for Part { settings, text } in &self.parts {
            let part = settings.config(&model, text.as_deref());
            model = model.with_part(&part, self.seed)?;
            parts.push((settings.clone(), part));
        }
        let attached = Attached {
            lora,
            parts,
            modules_to_save: modules_to_save.to_vec(),
        };
        Ok((model, attached))
    }
}

impl Attached {
    /// Writes the adapters: one to the folder, several to folders in it by their methods. Returns the bytes of the weights.
    pub(super) fn save<M: WithParts>(
        &self,
        model: &M,
        dir: &Path,
        metadata: &PeftMetadata,
    ) -> Result<u64, RunError> {
        let words = self.lora.iter().map(|lora| lora.method.word());
        let words: Vec<&str> = words
            .chain(self.parts.iter().map(|(settings, _)| settings.word()))
            .collect();
        let place = |word: &str| match words.len() {
            1 => dir.to_path_buf(),
            _ => dir.join(word),
        };
        forget(dir, &words)?;
        let mut bytes = 0;
        if let Some(lora) = &self.lora {
            let place = place(lora.method.word());
            bytes += save(model, DEFAULT_NAME, lora, metadata, &place)?;
        }
        for (settings, part) in &self.parts {
            let fields = self.fields(settings, metadata);
            bytes += model.save_part(part, &place(settings.word()), &fields)?;
        }
        Ok(bytes)
    }

    /// What the configuration in the folder says beside the sizes.
    fn fields(&self, settings: &PartSettings, metadata: &PeftMetadata) -> Map<String, Value> {
        let mut fields = Map::new();
        let base = &metadata.base_model_name_or_path;
        fields.insert("task_type".into(), json!(metadata.task_type));
        fields.insert("base_model_name_or_path".into(), json!(base));
        if !self.modules_to_save.is_empty() {
            let modules = json!(self.modules_to_save);
            fields.insert("modules_to_save".into(), modules);
        }
        if let Some(text) = settings.text() {
            fields.insert("prompt_tuning_init".into(), json!("TEXT"));
            fields.insert("prompt_tuning_init_text".into(), json!(text));
            fields.insert("tokenizer_name_or_path".into(), json!(base));
        }
        fields
    }
}

/// Takes away the adapters of another run, of other methods, which would be loaded with those that are written now.
fn forget(dir: &Path, words: &[&str]) -> Result<(), TrainError> {
    let all = METHODS.iter().map(|method| method.word);
    let all = all.chain(PartSettings::words());
    let is_kept = |word: &&str| words.len() > 1 && words.contains(word);
    let mut stale: Vec<PathBuf> = all
        .filter(|word| !is_kept(word))
        .map(|word| dir.join(word))
        .collect();
    if words.len() > 1 {
        stale.push(dir.to_path_buf());
    }
    for folder in stale {
        for name in [CONFIG_FILE, WEIGHTS_FILE, OLD_WEIGHTS_FILE] {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(source) if path.exists() => return Err(TrainError::Io { path, source }),
                _ => {}
            }
        }
    }
    Ok(())
}
