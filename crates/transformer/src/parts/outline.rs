//! What a method beside the weights comes to, counted before there is any of it.

use burn_lora_adapter::{base_parameters, is_saved, peft::weights_bytes};

use super::{PartConfig, PartError};
use crate::bottleneck::{BottleneckConfig, WithBottlenecks};
use crate::part_methods::PART_MODULES;
use crate::task::heads_of;
use crate::virtual_tokens::{
    PromptEncoderKind, Sizes, VirtualTokensConfig, VirtualTokensError, WithVirtualTokens,
};

/// What [`WithParts::outline_part`](super::WithParts::outline_part) finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartOutline {
    /// Parameters that are trained.
    pub trained: usize,
    /// Among these, the entries of the matrices of a network that makes virtual tokens.
    pub network: usize,
    /// Tokens that stand in front of every sequence.
    pub virtual_tokens: usize,
    /// Whether gradients reach the embedding of tokens: their places are among them.
    pub is_embedded: bool,
    /// Bottlenecks of a block.
    pub bottlenecks: usize,
    /// Their inner width.
    pub width: usize,
    /// The size of `adapter_model.safetensors`, without modules that are saved beside it but for the head of a model that classifies.
    pub file_bytes: u64,
}

/// The tensors of a file, by key.
type Shapes = Vec<(String, Vec<usize>)>;

pub(super) fn outline<M: WithVirtualTokens + WithBottlenecks>(
    model: &M,
    part: &PartConfig,
) -> Result<PartOutline, PartError> {
    match part {
        PartConfig::VirtualTokens(config) => tokens(model, config),
        PartConfig::Bottleneck(config) => bottlenecks(model, config),
    }
}

/// The head of a model that classifies, which a folder holds, with what stands before its keys.
fn heads<M: WithVirtualTokens>(model: &M, prefix: &str) -> Shapes {
    let heads = heads_of(model.task_type());
    let saved = base_parameters(model).into_iter();
    let saved = saved.filter(|parameter| is_saved(&parameter.path, &heads));
    saved
        .map(|parameter| (format!("{prefix}{}", parameter.path), parameter.shape))
        .collect()
}

fn tokens<M: WithVirtualTokens>(
    model: &M,
    config: &VirtualTokensConfig,
) -> Result<PartOutline, PartError> {
    let sizes = model.sizes();
    let faults = config.faults(sizes.vocab_size, sizes.max_positions);
    if !faults.is_empty() {
        return Err(VirtualTokensError::Config { faults }.into());
    }
    let is_prefix = matches!(config, VirtualTokensConfig::Prefix { .. });
    let submodules = if is_prefix { 1 } else { sizes.submodules };
    let shape = vec![config.tokens() * submodules, sizes.columns(is_prefix)];
    let mut tensors = heads(model, "base_model.");
    tensors.push(("prompt_embeddings".to_string(), shape));
    let (embedding, matrices, biases) = numbers(config, sizes);
    Ok(PartOutline {
        trained: embedding + matrices + biases,
        network: matrices,
        virtual_tokens: config.tokens(),
        is_embedded: !is_prefix,
        file_bytes: weights_bytes(tensors),
        ..PartOutline::default()
    })
}

/// The numbers of the embedding, of the matrices of a network, and of its biases.
fn numbers(config: &VirtualTokensConfig, sizes: Sizes) -> (usize, usize, usize) {
    let d = sizes.d_embedding;
    match config {
        VirtualTokensConfig::Prompt { tokens, .. } => (tokens * d, 0, 0),
        VirtualTokensConfig::PTuning {
            tokens,
            encoder,
            d_hidden,
        } => {
            let h = *d_hidden;
            let (matrices, biases) = match encoder {
                PromptEncoderKind::Mlp => (2 * d * h + h * h, 2 * h + d),
                PromptEncoderKind::Lstm { layers } => {
                    // Two directions, four gates, each with what it takes of the input and of its own state.
                    let inputs = (0..*layers).map(|index| if index == 0 { d } else { 2 * h });
                    let gates: usize = inputs.map(|d_in| 8 * (d_in * h + h * h)).sum();
                    let both = 2 * h;
                    (gates + both * both + both * d, layers * 16 * h + both + d)
                }
            };
            (tokens * d, matrices, biases)
        }
        VirtualTokensConfig::Prefix { tokens, projection } => {
            let (all, kv) = (sizes.columns(true), sizes.kv());
            match projection {
                None => (tokens * all, 0, 0),
                Some(h) => (tokens * kv, kv * h + h * all, h + all),
            }
        }
    }
}

fn bottlenecks<M: WithVirtualTokens + WithBottlenecks>(
    model: &M,
    config: &BottleneckConfig,
) -> Result<PartOutline, PartError> {
    config.check(model.d_model())?;
    // Narrow ones stand where these will, and cost nothing. Sets that are there do not count.
    let narrow = BottleneckConfig {
        width: 1,
        ..*config
    };
    let bare = model.clone().without_bottlenecks();
    let narrow = bare.with_bottlenecks(&narrow, 0)?;
    let names = PART_MODULES[1..].iter().map(ToString::to_string);
    let names: Vec<String> = names.collect();
    let found = base_parameters(&narrow).into_iter();
    let found = found.filter(|parameter| is_saved(&parameter.path, &names));
    let mut places = 0;
    let own = found.map(|parameter| {
        let name = parameter.path.rsplit('.').next().unwrap_or("");
        // Between the two may be the name of a set, which no file has.
        let is_place = |step: &&str| PART_MODULES[1..].contains(step);
        let place = parameter.path.split('.').find(is_place).unwrap_or("");
        let [d, r] = [model.d_model(), config.width];
        let shape = match name {
            "down" => vec![d, r],
            "down_bias" => vec![r],
            "up" => vec![r, d],
            _ => vec![d],
        };
        places += usize::from(name == "down");
        let key = match parameter.path.split_once(&format!(".{place}.")) {
            Some((block, _)) => format!("{block}.{place}.{name}"),
            None => parameter.path.clone(),
        };
        (format!("base_model.model.{key}"), shape)
    });
    let mut tensors: Shapes = own.collect();
    let count = |(_, shape): &(String, Vec<usize>)| shape.iter().product::<usize>();
    let trained = tensors.iter().map(count).sum();
    tensors.extend(heads(model, "base_model.model."));
    let mut blocks = 0;
    narrow.map_blocks(&mut |block| {
        blocks += 1;
        block
    });
    Ok(PartOutline {
        trained,
        bottlenecks: places / blocks.max(1),
        width: config.width,
        file_bytes: weights_bytes(tensors),
        ..PartOutline::default()
    })
}
