//! What a folder holds, by its configuration and the headers of its files: no tensor is read.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;

use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, ModelConfig};
use crate::decoder::{Decoder, DecoderClassifier};
use crate::encoder::families::EncoderConfig;
use crate::encoder::load::{self, FromCheckpoint};
use crate::encoder::{Encoder, MaskedLm, MultipleChoice, SequenceClassifier, TokenClassifier};
use crate::error::{LoadError, Mismatch};
use crate::t5::{T5, has_own_head, leniency};
use crate::verify::{Leniency, verify};
use crate::weights::Key;

/// What [`inspect_folder`] finds.
#[derive(Debug)]
pub struct FolderReport {
    /// The configuration; of a T5 with the head that its weights have.
    pub config: ModelConfig,
    /// The files of the weights, and their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// The tensors, in the order of their names.
    pub tensors: Vec<TensorReport>,
    /// Modules that the files lack as a whole, and that would start fresh: a head.
    pub fresh: Vec<String>,
    /// In what the files differ from what the configuration asks for; nothing if they can be loaded.
    pub mismatch: Option<Box<Mismatch>>,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its dtype, as safetensors calls it: `BF16`.
    pub dtype: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: u64,
    /// The file.
    pub file: String,
}

impl FolderReport {
    /// Numbers of all tensors.
    pub fn parameters(&self) -> u64 {
        let count = |tensor: &TensorReport| tensor.shape.iter().map(|n| *n as u64).product::<u64>();
        self.tensors.iter().map(count).sum()
    }

    /// How many tensors and bytes there are of each dtype.
    pub fn dtypes(&self) -> BTreeMap<&str, (usize, u64)> {
        let mut dtypes = BTreeMap::new();
        for tensor in &self.tensors {
            let (count, bytes) = dtypes.entry(tensor.dtype.as_str()).or_default();
            *count += 1;
            *bytes += tensor.bytes;
        }
        dtypes
    }
}

/// Looks at a folder without loading it. What does not fit is in the report and no error.
///
/// # Errors
///
/// A configuration that cannot be read; no weights, a damaged header or index, or more blocks than tensors.
pub fn inspect_folder(dir: &Path) -> Result<FolderReport, LoadError> {
    let mut config = ModelConfig::read(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let class = config.architecture().unwrap_or_default().to_string();
    let found = match &mut config {
        ModelConfig::Decoder(config) => decoder(dir, config, &class, &checkpoint)?,
        ModelConfig::Encoder(config) => encoder(dir, config, &class, &checkpoint)?,
        ModelConfig::T5(config) => {
            checkpoint.check_layers(dir, config.num_layers + config.num_decoder_layers)?;
            if has_own_head(&checkpoint)? {
                config.tie_word_embeddings = false;
            }
            compare(
                &checkpoint,
                &T5::keys(config, &Device::default()),
                &leniency(),
            )
        }
    };
    let (fresh, mismatch) = match found {
        Ok(fresh) => (fresh, None),
        Err(mismatch) => (Vec::new(), Some(mismatch)),
    };
    let tensors = checkpoint.entries.iter().map(|(name, entry)| TensorReport {
        name: name.clone(),
        dtype: format!("{:?}", entry.dtype),
        shape: entry.shape.clone(),
        bytes: entry.bytes(),
        file: checkpoint.file_name(entry),
    });
    Ok(FolderReport {
        tensors: tensors.collect(),
        files: checkpoint.file_sizes(),
        config,
        fresh,
        mismatch,
    })
}

/// The parameters that would start fresh, or what does not fit.
type Compared = Result<Vec<String>, Box<Mismatch>>;

fn compare(checkpoint: &Checkpoint, keys: &[Key], leniency: &Leniency) -> Compared {
    verify(checkpoint, keys, leniency).map(|found| found.fresh)
}

fn decoder(
    dir: &Path,
    config: &mut DecoderConfig,
    class: &str,
    checkpoint: &Checkpoint,
) -> Result<Compared, LoadError> {
    let plan = config.plan();
    checkpoint.check_layers(dir, plan.n_inner_layers())?;
    let device = Device::default();
    Ok(match class.ends_with("ForSequenceClassification") {
        true => {
            let num_labels = config.num_labels()?;
            let keys = DecoderClassifier::keys(config, num_labels, &device);
            compare(checkpoint, &keys, &DecoderClassifier::leniency(&plan))
        }
        false => compare(
            checkpoint,
            &Decoder::keys(config, &device),
            &plan.leniency(),
        ),
    })
}

fn encoder(
    dir: &Path,
    config: &EncoderConfig,
    class: &str,
    checkpoint: &Checkpoint,
) -> Result<Compared, LoadError> {
    fn of<M: FromCheckpoint>(
        config: &EncoderConfig,
        checkpoint: &Checkpoint,
    ) -> Result<Compared, LoadError> {
        M::check(config)?;
        let keys = M::keys(config, &Device::default());
        let leniency = load::leniency(config, M::head(config));
        Ok(compare(checkpoint, &keys, &leniency))
    }
    checkpoint.check_layers(dir, config.n_layers())?;
    let is = |ending: &str| class.ends_with(ending);
    if is("ForSequenceClassification") {
        of::<SequenceClassifier>(config, checkpoint)
    } else if is("ForTokenClassification") {
        of::<TokenClassifier>(config, checkpoint)
    } else if is("ForMultipleChoice") {
        of::<MultipleChoice>(config, checkpoint)
    } else if is("ForMaskedLM") {
        of::<MaskedLm>(config, checkpoint)
    } else {
        of::<Encoder>(config, checkpoint)
    }
}
