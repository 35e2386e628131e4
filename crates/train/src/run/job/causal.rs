use std::collections::BTreeMap;
use std::path::Path;

use burn_lora_data::{Example, Progress, RowFormat, Tokenizer, check_vocab};
use burn_lora_transformer::{Decoder, LoadOptions};

use super::super::config::RunConfig;
use super::super::data::{RunData, read_data, read_tokenizer, stream_data};
use super::super::execute::RunError;
use super::super::task::TaskKind;
use super::{Job, Measured, Stream, fault};
use crate::evaluate::{complete, evaluate};
use crate::measures::{bleu, rouge_l};
use crate::samples::Sampler;
use crate::task::Causal;

/// The next token, by a decoder.
pub(crate) struct CausalJob {
    tokenizer: Tokenizer,
}

impl Job for CausalJob {
    type Model = Decoder;
    type Task = Causal;

    const PEFT: &'static str = "CAUSAL_LM";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        progress: Progress<'_>,
    ) -> Result<(Self, RunData), RunError> {
        let tokenizer = read_tokenizer(config, folder)?;
        let data = read_data(config, &tokenizer, progress)?;
        let vocab_size = burn_lora_transformer::ModelConfig::read(folder)?.vocab_size();
        for part in [&data.train, &data.valid, &data.test] {
            check_vocab(part, &tokenizer, vocab_size)?;
        }
        Ok((Self { tokenizer }, data))
    }

    fn load(
        &self,
        config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<Decoder, RunError> {
        Ok(Decoder::load(folder, &options)?.with_recompute(config.recompute))
    }

    fn task(&self, _model: &Decoder) -> Causal {
        Causal {
            pad: self.tokenizer.pad(),
        }
    }

    fn fan_in_fan_out(model: &Decoder) -> bool {
        model.config().fan_in_fan_out()
    }

    fn stream(&self, config: &RunConfig) -> Result<Option<Stream<Self>>, RunError> {
        Ok(match config.data.stream {
            true => Some(Box::new(stream_data(config, &self.tokenizer)?)),
            false => None,
        })
    }

    fn sampler(
        &self,
        config: &RunConfig,
        data: &RunData,
    ) -> Result<Option<Sampler<Decoder>>, RunError> {
        let count = config.evaluation.samples;
        let have_prompts = data.format != RowFormat::Text;
        let prompts = data.valid.iter().filter(|_| have_prompts);
        let chosen: Vec<Example> = prompts.take(count).cloned().collect();
        if count == 0 {
            return Ok(None);
        }
        if chosen.is_empty() {
            return Err(fault(
                "evaluation.samples: no row to validate with has a prompt",
            ));
        }
        let options = config.evaluation.options(chosen.len(), true);
        let tokenizer = self.tokenizer.clone();
        Ok(Some(Sampler::new(move |model: &Decoder| {
            complete(model, &tokenizer, &chosen, &options)
        })))
    }

    fn measure(
        &self,
        config: &RunConfig,
        model: &Decoder,
        data: &RunData,
    ) -> Result<Measured, RunError> {
        let have_prompts = data.format == RowFormat::PromptCompletion;
        let options = config
            .evaluation
            .options(config.training.batch_size, have_prompts);
        let found = evaluate(model, &self.tokenizer, &data.test, &options)?;
        let mut metrics = BTreeMap::new();
        metrics.insert("loss".to_string(), found.loss);
        metrics.insert("perplexity".to_string(), found.perplexity);
        if let Some(share) = found.exact_match {
            let pairs = found.completions.iter();
            let pairs = pairs.map(|one| [one.generated.clone(), one.expected.clone()]);
            let pairs: Vec<[String; 2]> = pairs.collect();
            metrics.insert("exact_match".to_string(), share);
            metrics.insert("bleu".to_string(), bleu(&pairs));
            metrics.insert("rouge_l".to_string(), rouge_l(&pairs));
        }
        Ok(Measured {
            metrics,
            learned: found.learned_tokens,
            completions: found.completions,
        })
    }
}
