use std::path::{Path, PathBuf};

use burn_lora_data::{
    ChatTemplate, DataError, DataFiles, EncodeReport, Example, ExampleStream, PrepareOptions,
    Prepared, Progress, RowFormat, Rows, StreamOptions, TokenCache, Tokenizer, prepare, read_files,
    split,
};

use super::config::RunConfig;
use super::execute::RunError;

/// The examples of a run by their use.
#[derive(Debug)]
pub struct RunData<E = Example> {
    /// To learn.
    pub train: Vec<E>,
    /// To validate with.
    pub valid: Vec<E>,
    /// To evaluate at the end: the test set, or the validation set without one.
    pub test: Vec<E>,
    /// The format of the training rows.
    pub format: RowFormat,
    /// What was read.
    pub parts: Vec<RunPart>,
}

/// The files of one use.
#[derive(Debug)]
pub struct RunPart {
    /// `train`, `valid` or `test`.
    pub name: &'static str,
    /// The files.
    pub files: Vec<PathBuf>,
    /// What they came to.
    pub report: EncodeReport,
    /// The tokens were made before.
    pub was_cached: bool,
    /// What could not be done, but does no harm.
    pub warning: Option<String>,
}

/// The tokenizer of a model's folder, with the chat template that the configuration asks for.
///
/// # Errors
/// What is wrong with the folder or the template.
pub fn read_tokenizer(config: &RunConfig, folder: &Path) -> Result<Tokenizer, DataError> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let Some(template) = &config.data.chat_template else {
        return Ok(tokenizer);
    };
    if template == "chatml" {
        return Ok(tokenizer.with_chat_template(ChatTemplate::chatml()?));
    }
    let tokens = tokenizer.chat_templates().map(|own| own.tokens().clone());
    let template = ChatTemplate::from_file(Path::new(template), tokens.unwrap_or_default())?;
    Ok(tokenizer.with_chat_template(template))
}

/// Reads and encodes the data of a run. What has no files is held out of the training rows.
///
/// # Errors
/// What is wrong with the files.
pub fn read_data(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    progress: Progress<'_>,
) -> Result<RunData, DataError> {
    let options = PrepareOptions {
        read: config.read_options(),
        encode: config.encode_options(),
        cache: config.data.cache.as_ref().map(TokenCache::new),
    };
    parts(config, &mut |name, files| {
        let Prepared {
            encoded,
            format,
            was_cached,
            warning,
        } = prepare(&files, tokenizer, &options, progress)?;
        let part = RunPart {
            name,
            files,
            report: encoded.report,
            was_cached,
            warning,
        };
        Ok((encoded.examples, format, part))
    })
}

/// Reads all parts and encodes their rows, the training rows first.
pub(crate) fn read_parts<E: Clone>(
    config: &RunConfig,
    mut encode: impl FnMut(&Rows) -> Result<(Vec<E>, EncodeReport), RunError>,
) -> Result<RunData<E>, RunError> {
    let read = config.read_options();
    parts(config, &mut |name, files| {
        let rows = read_files(&files, &read)?;
        let (examples, report) = encode(&rows)?;
        let part = RunPart {
            name,
            files,
            report,
            was_cached: false,
            warning: None,
        };
        Ok((examples, rows.format(), part))
    })
}

/// What one part came to.
type Part<E> = (Vec<E>, RowFormat, RunPart);

/// Reads the files of each part; what has no files is held out of the training rows.
fn parts<E: Clone, F: From<DataError>>(
    config: &RunConfig,
    read: &mut dyn FnMut(&'static str, Vec<PathBuf>) -> Result<Part<E>, F>,
) -> Result<RunData<E>, F> {
    let files = find(config)?;
    let mut parts = Vec::new();
    let mut part = |name, files: Vec<PathBuf>| -> Result<_, F> {
        if files.is_empty() {
            return Ok(None);
        }
        let (examples, format, part) = read(name, files)?;
        parts.push(part);
        Ok(Some((examples, format)))
    };
    // There are training files, or `find` would have failed.
    let train = match config.data.stream {
        true => None,
        false => part("train", files.train)?,
    };
    let valid = part("valid", files.valid)?;
    let format = train.as_ref().or(valid.as_ref()).map(|(_, format)| *format);
    let format = format.unwrap_or(RowFormat::Text);
    let train = train.map_or_else(Vec::new, |(train, _)| train);
    let test = part("test", files.test)?;
    let (train, valid) = match valid {
        Some((valid, _)) => (train, valid),
        None if config.data.stream => (train, Vec::new()),
        None => split(train, config.data.valid_fraction, config.training.seed)?,
    };
    let mut test = test.map_or_else(|| valid.clone(), |(test, _)| test);
    test.truncate(config.evaluation.rows);
    Ok(RunData {
        train,
        valid,
        test,
        format,
        parts,
    })
}

pub(crate) fn find(config: &RunConfig) -> Result<DataFiles, DataError> {
    let mut files = DataFiles::find(&config.data.path)?;
    for (own, place) in [
        (&mut files.valid, &config.data.valid),
        (&mut files.test, &config.data.test),
    ] {
        if let Some(place) = place {
            *own = DataFiles::find(place)?.train;
        }
    }
    Ok(files)
}

/// The training rows of a run that does not read them beforehand.
///
/// # Errors
/// What is wrong with the files.
pub(crate) fn stream_data(
    config: &RunConfig,
    tokenizer: &Tokenizer,
) -> Result<ExampleStream, DataError> {
    let stream = StreamOptions {
        read: config.read_options(),
        buffer: config.data.stream_buffer,
        seed: config.training.seed,
        epochs: None,
    };
    let files = find(config)?.train;
    ExampleStream::open(&files, stream, tokenizer.clone(), config.encode_options())
}
