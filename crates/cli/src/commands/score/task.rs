//! What a model is asked, by what its folder says it is for.

use std::path::Path;

use burn_lora::transformer::{ModelConfig, SentenceFolder, adapter_folders};
use clap::ValueEnum;

use crate::failure::{Failure, Kind};

/// What a model computes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScoreTask {
    /// The token after each
    CausalLm,
    /// The token at each place
    MaskedLm,
    /// The labels of the row, or numbers (regression)
    Sequence,
    /// The labels of each token
    Tokens,
    /// One of several texts
    Choice,
    /// One vector of the row
    Embedding,
    /// What is written for the row
    Seq2seq,
}

impl ScoreTask {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::MaskedLm => "masked-lm",
            Self::Sequence => "sequence",
            Self::Tokens => "tokens",
            Self::Choice => "choice",
            Self::Embedding => "embedding",
            Self::Seq2seq => "seq2seq",
        }
    }

    /// Whether tokens have probabilities in it.
    pub fn has_log_probs(self) -> bool {
        matches!(self, Self::CausalLm | Self::MaskedLm | Self::Seq2seq)
    }

    /// What a user asked for; otherwise what the adapter, then what the folder is for.
    ///
    /// # Errors
    ///
    /// A task that models of the kind cannot be asked, and a folder for something else.
    pub fn find(
        asked: Option<Self>,
        folder: &Path,
        config: &ModelConfig,
        adapter: Option<&Path>,
    ) -> Result<Self, Failure> {
        let possible = possible(config);
        if let Some(task) = asked {
            return match possible.contains(&task) {
                true => Ok(task),
                false => Err(refused(Kind::Usage, config, task.name(), possible)),
            };
        }
        let adapters = adapter.map(adapter_folders).transpose()?.into_iter();
        let adapter = adapters.flatten().find_map(|adapter| adapter.task_type);
        let by_adapter = adapter.as_deref().and_then(of_adapter);
        if let Some(task) = by_adapter.filter(|task| possible.contains(task)) {
            return Ok(task);
        }
        match config {
            ModelConfig::Encoder(_) if SentenceFolder::is_one(folder) => Ok(Self::Embedding),
            _ => Self::of_class(config, possible),
        }
    }

    /// What the class that wrote the folder is for.
    fn of_class(config: &ModelConfig, possible: &[Self]) -> Result<Self, Failure> {
        const CLASSES: [(&str, ScoreTask); 9] = [
            ("ForSequenceClassification", ScoreTask::Sequence),
            ("ForTokenClassification", ScoreTask::Tokens),
            ("ForMultipleChoice", ScoreTask::Choice),
            ("ForMaskedLM", ScoreTask::MaskedLm),
            ("ForPreTraining", ScoreTask::MaskedLm),
            ("ForCausalLM", ScoreTask::CausalLm),
            ("LMHeadModel", ScoreTask::CausalLm),
            ("ForConditionalGeneration", ScoreTask::Seq2seq),
            // A decoder or an encoder-decoder without its head has nothing to say.
            ("Model", ScoreTask::Embedding),
        ];
        // The first is what the kind of model is for.
        let usual = possible.first().copied().unwrap_or(Self::CausalLm);
        let Some(class) = config.architecture() else {
            return Ok(usual);
        };
        let known = CLASSES.iter().find(|(ending, _)| class.ends_with(ending));
        match known {
            Some((_, task)) if possible.contains(task) => Ok(*task),
            Some((_, Self::Embedding)) => Ok(usual),
            _ => Err(refused(Kind::Model, config, class, possible)),
        }
    }
}

fn of_adapter(task_type: &str) -> Option<ScoreTask> {
    match task_type {
        "CAUSAL_LM" => Some(ScoreTask::CausalLm),
        "SEQ_CLS" => Some(ScoreTask::Sequence),
        "TOKEN_CLS" => Some(ScoreTask::Tokens),
        "SEQ_2_SEQ_LM" => Some(ScoreTask::Seq2seq),
        _ => None,
    }
}

/// The first is what models of the kind are for where nothing is said.
fn possible(config: &ModelConfig) -> &'static [ScoreTask] {
    use ScoreTask::{CausalLm, Choice, Embedding, MaskedLm, Seq2seq, Sequence, Tokens};
    match config {
        ModelConfig::Encoder(_) => &[Embedding, MaskedLm, Sequence, Tokens, Choice],
        ModelConfig::T5(_) => &[Seq2seq],
        _ => &[CausalLm, Sequence],
    }
}

fn refused(kind: Kind, config: &ModelConfig, found: &str, possible: &[ScoreTask]) -> Failure {
    let names: Vec<&str> = possible.iter().map(|task| task.name()).collect();
    let reason = format!(
        "{found} is not built for model_type `{}`; --task takes {} with it",
        config.model_type(),
        names.join(", ")
    );
    Failure::new(kind, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: &str = r#"{"model_type": "bert", "architectures": ["CLASS"], "vocab_size": 9, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}"#;
    const GPT2: &str = r#"{"model_type": "gpt2", "architectures": ["CLASS"], "vocab_size": 9, "n_embd": 4, "n_layer": 1,
        "n_head": 1, "n_positions": 4}"#;

    fn found(config: &str, class: &str) -> Result<ScoreTask, Failure> {
        let config = ModelConfig::from_json(&config.replace("CLASS", class)).expect("valid");
        ScoreTask::find(None, Path::new("nowhere"), &config, None)
    }

    #[test]
    fn a_folder_is_for_what_its_class_was_for() {
        for (class, task) in [
            ("BertForMaskedLM", ScoreTask::MaskedLm),
            ("BertForPreTraining", ScoreTask::MaskedLm),
            ("BertForSequenceClassification", ScoreTask::Sequence),
            ("BertForTokenClassification", ScoreTask::Tokens),
            ("BertForMultipleChoice", ScoreTask::Choice),
            ("BertModel", ScoreTask::Embedding),
        ] {
            assert_eq!(found(BERT, class).expect(class), task);
        }
        for (class, task) in [
            ("GPT2LMHeadModel", ScoreTask::CausalLm),
            ("GPT2Model", ScoreTask::CausalLm),
            ("GPT2ForSequenceClassification", ScoreTask::Sequence),
        ] {
            assert_eq!(found(GPT2, class).expect(class), task);
        }
    }

    #[test]
    fn what_is_for_something_else_is_refused_with_what_can_be_asked() {
        for (config, class, names) in [
            (BERT, "BertForQuestionAnswering", "embedding, masked-lm"),
            (GPT2, "GPT2ForTokenClassification", "causal-lm, sequence"),
        ] {
            let failure = found(config, class).expect_err("refused");
            let text = failure.chain()[0].clone();
            assert!(text.contains(class) && text.contains(names), "{text}");
        }
        let config = ModelConfig::from_json(GPT2).expect("valid");
        let asked = Some(ScoreTask::MaskedLm);
        let failure = ScoreTask::find(asked, Path::new("nowhere"), &config, None);
        assert_eq!(failure.expect_err("refused").kind(), Kind::Usage);
    }
}
