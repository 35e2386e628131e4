//! The rows to train on, to validate with during training, and to evaluate before and after.

use std::path::Path;

use burn_lora::data::{
    DataError, EncodeOptions, Example, RowFormat, Tokenizer, encode, read_rows, split,
};

use crate::options::Options;

/// Encoded rows by their use.
pub struct Rows {
    pub train: Vec<Example>,
    pub valid: Vec<Example>,
    pub test: Vec<Example>,
    /// The rows are prompts with completions, so a score can be had by completing them.
    pub have_prompts: bool,
}

impl Rows {
    /// Reads a file, or the files of a folder. What is not there is held out of the training rows; without test rows,
    /// the validation rows are evaluated.
    pub fn read(options: &Options, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let part = |name: &str| options.data.join(name);
        let (train_file, valid_file, test_file) = match options.data.is_dir() {
            true => (
                part("train.jsonl"),
                Some(part("valid.jsonl")),
                Some(part("test.jsonl")),
            ),
            false => (options.data.clone(), None, None),
        };
        let (train, format) = read(&train_file, options, tokenizer)?;
        let held_out = |file: Option<std::path::PathBuf>| {
            let file = file.filter(|file| file.exists());
            file.map(|file| read(&file, options, tokenizer)).transpose()
        };
        let (train, valid) = match held_out(valid_file)? {
            Some((valid, _)) => (train, valid),
            None => split(train, options.valid_fraction, options.seed)?,
        };
        let mut test = held_out(test_file)?.map_or_else(|| valid.clone(), |(test, _)| test);
        test.truncate(options.eval_rows);
        Ok(Self {
            train,
            valid,
            test,
            have_prompts: format == RowFormat::PromptCompletion,
        })
    }
}

fn read(
    file: &Path,
    options: &Options,
    tokenizer: &Tokenizer,
) -> Result<(Vec<Example>, RowFormat), DataError> {
    let rows = read_rows(file)?;
    let encoded = encode(&rows, tokenizer, &EncodeOptions::new(options.max_seq_len))?;
    println!("data      {}: {}", file.display(), encoded.report);
    Ok((encoded.examples, rows.format()))
}
