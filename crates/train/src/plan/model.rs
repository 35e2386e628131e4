//! What is planned on: a model without values.

use std::collections::HashMap;

use burn_lora_adapter::{
    LoraConfig, Outline, OutlineLayer, base_parameters, outline as outline_of,
};
use burn_lora_transformer::{
    Anatomy, Decoder, DecoderClassifier, Encoder, EncoderConfig, MaskedLm, ModelConfig,
    MultipleChoice, PartOutline, SequenceClassifier, T5, TokenClassifier, WithParts,
};

use super::{Placed, PlanError};
use crate::run::PartSettings;

/// The largest mixtures of experts have some 15,000 inner layers.
const MOST_LAYERS: usize = 100_000;

/// What is attached.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// To weights.
    pub(super) adapter: Option<&'a LoraConfig>,
    /// Beside them.
    pub(super) parts: &'a [PartSettings],
}

/// What there is of a model and of what is attached to it.
pub(super) type Outlines = (Outline, Vec<PartOutline>);

/// The model that the first of `architectures` names, or the plain one of its kind, and what is put onto it and beside it.
pub(super) fn outline(model: &ModelConfig, wanted: Wanted<'_>) -> Result<Outlines, PlanError> {
    // Each takes memory for its names and shapes.
    let blocks = Anatomy::of(model).blocks.into_iter();
    let layers = blocks
        .map(|block| block.experts)
        .fold(0, usize::saturating_add);
    if layers > MOST_LAYERS {
        return Err(PlanError::TooManyLayers {
            layers,
            most: MOST_LAYERS,
        });
    }
    let class = model.architecture().unwrap_or_default();
    match model {
        ModelConfig::Decoder(config) => match class.ends_with("ForSequenceClassification") {
            true => of(&DecoderClassifier::outline(config.clone())?, wanted),
            false => of(&Decoder::outline(config.clone())?, wanted),
        },
        ModelConfig::Encoder(config) => encoder(config.clone(), class, wanted),
        ModelConfig::T5(config) => of(&T5::outline(config.clone())?, wanted),
        other => Err(PlanError::Kind {
            model_type: other.model_type(),
        }),
    }
}

fn encoder(config: EncoderConfig, class: &str, wanted: Wanted<'_>) -> Result<Outlines, PlanError> {
    let is = |ending: &str| class.ends_with(ending);
    if is("ForSequenceClassification") {
        of(&SequenceClassifier::outline(config)?, wanted)
    } else if is("ForTokenClassification") {
        of(&TokenClassifier::outline(config)?, wanted)
    } else if is("ForMultipleChoice") {
        of(&MultipleChoice::outline(config)?, wanted)
    } else if is("ForMaskedLM") {
        of(&MaskedLm::outline(config)?, wanted)
    } else {
        of(&Encoder::outline(config)?, wanted)
    }
}

fn of<M: WithParts>(module: &M, wanted: Wanted<'_>) -> Result<Outlines, PlanError> {
    let parts = wanted.parts.iter();
    let parts = parts.map(|part| module.outline_part(&part.config(module, None)));
    let parts = parts.collect::<Result<_, _>>()?;
    let outline = match wanted.adapter {
        Some(adapter) => outline_of(module, adapter)?,
        None => Outline {
            base: base_parameters(module),
            layers: Vec::new(),
            saved: Vec::new(),
            shared_parameters: 0,
            file_bytes: 0,
        },
    };
    Ok((outline, parts))
}

/// Whether logits over the vocabulary come of the transposed embedding, which is no linear layer.
pub(super) fn has_tied_head(model: &ModelConfig, anatomy: &Anatomy) -> bool {
    let class = model.architecture().unwrap_or_default();
    match model {
        ModelConfig::Decoder(_) => anatomy.tied && !class.ends_with("ForSequenceClassification"),
        ModelConfig::Encoder(_) => class.ends_with("ForMaskedLM"),
        _ => anatomy.tied,
    }
}

/// Every linear layer of the base with its adapter.
pub(super) fn placed(anatomy: &Anatomy, outline: &Outline, trains_all: bool) -> Vec<Placed> {
    let adapters: HashMap<&str, &OutlineLayer> = outline
        .layers
        .iter()
        .map(|adapter| (adapter.parameter.as_str(), adapter))
        .collect();
    let linear = outline.base.iter().filter(|base| base.kind == "linear");
    let placed = linear.map(|base| {
        let layer = base.path.strip_suffix(".weight").unwrap_or(&base.path);
        let block = anatomy.block(layer);
        let numbers = layer
            .split('.')
            .filter(|name| name.parse::<usize>().is_ok());
        Placed {
            block,
            place: anatomy.place(layer),
            shape: [base.shape[0], base.shape[1]],
            is_expert: block
                .is_some_and(|block| anatomy.blocks[block].experts > 1 && numbers.count() > 1),
            adapter: adapters.get(base.path.as_str()).copied().cloned(),
            is_trained: trains_all || outline.saved.contains(&base.path),
        }
    });
    placed.collect()
}
