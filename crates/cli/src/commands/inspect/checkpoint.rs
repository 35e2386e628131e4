//! A checkpoint, by its configuration and the headers of its files.

use std::collections::BTreeMap;
use std::path::Path;

use burn_lora::data::{EncoderTokenizer, Tokenizer};
use burn_lora::transformer::{Anatomy, FolderReport, ModelConfig, Place, inspect_folder};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;
use crate::units::{bytes_text, thousands};

/// Looks at a folder with a `config.json`.
pub fn run(folder: &Path, output: &Output) -> Result<(), Failure> {
    let report = inspect_folder(folder)?;
    let config = &report.config;
    let class = config.architecture().unwrap_or("unnamed");
    let kinds = kinds(&report);
    let (tokenizer_lines, tokenizer) = tokenizer(folder, config);

    let mut lines = vec![
        format!("checkpoint  {}", folder.display()),
        format!("model       {class} ({})", config.model_type()),
        format!("sizes       {}", sizes(config)),
        format!(
            "parameters  {} in {} tensors",
            thousands(report.parameters()),
            report.tensors.len()
        ),
    ];
    lines.extend(kinds.iter().map(|(kind, (tensors, count))| {
        format!("  {kind:<22} {:>16}  in {tensors}", thousands(*count))
    }));
    for (dtype, (tensors, bytes)) in report.dtypes() {
        let size = bytes_text(bytes);
        lines.push(format!("dtype       {dtype}: {tensors} tensors, {size}"));
    }
    for (name, bytes) in &report.files {
        lines.push(format!("file        {name}, {}", bytes_text(*bytes)));
    }
    lines.extend(tokenizer_lines);
    lines.extend(
        report
            .fresh
            .iter()
            .map(|path| format!("fresh       {path} is not in the files and would start anew")),
    );
    lines.push(match &report.mismatch {
        None => {
            "fits        every tensor that the configuration asks for is there, and no other".into()
        }
        Some(mismatch) => format!("fault       {mismatch}"),
    });

    let dtypes = report.dtypes().into_iter();
    let dtypes = dtypes.map(
        |(dtype, (tensors, bytes))| json!({"dtype": dtype, "tensors": tensors, "bytes": bytes}),
    );
    let files = report.files.iter();
    let files = files.map(|(name, bytes)| json!({"name": name, "bytes": bytes}));
    let of_kinds = kinds.iter().map(
        |(kind, (tensors, count))| json!({"kind": kind, "tensors": tensors, "parameters": count}),
    );
    let object = json!({
        "command": "inspect",
        "kind": "checkpoint",
        "path": folder,
        "model_type": config.model_type(),
        "architecture": config.architecture(),
        "vocab_size": config.vocab_size(),
        "parameters": report.parameters(),
        "modules": of_kinds.collect::<Vec<_>>(),
        "dtypes": dtypes.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
        "tokenizer": tokenizer,
        "fresh": report.fresh,
        "fits": report.mismatch.is_none(),
        "missing": report.mismatch.as_ref().map(|mismatch| {
            mismatch.missing.iter().map(|missing| &missing.name).collect::<Vec<_>>()
        }),
        "unexpected": report.mismatch.as_ref().map(|mismatch| &mismatch.unexpected),
        "mis_shaped": report.mismatch.as_ref().map(|mismatch| {
            mismatch.mis_shaped.iter().map(|wrong| &wrong.name).collect::<Vec<_>>()
        }),
        "faults": report.mismatch.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    output.done(&lines, &object);
    Ok(())
}

/// Tensors and their numbers by what they are for.
fn kinds(report: &FolderReport) -> BTreeMap<&'static str, (usize, u64)> {
    let anatomy = Anatomy::of(&report.config);
    let mut kinds: BTreeMap<&'static str, (usize, u64)> = BTreeMap::new();
    for tensor in &report.tensors {
        let (layer, parameter) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let in_block = anatomy.block(layer).is_some();
        let kind = match (anatomy.place(layer), tensor.shape.len()) {
            (Place::Outside, 0 | 1) if in_block => match parameter {
                "bias" if !layer.to_lowercase().contains("norm") => "other biases",
                _ => "norms of the blocks",
            },
            (Place::AttentionIn | Place::AttentionOut, _) => "attention",
            (Place::MlpIn | Place::MlpOut, _) => "inner layers",
            (Place::Outside, _) if in_block => "others in the blocks",
            (Place::Outside, 2) if tensor.shape.contains(&report.config.vocab_size()) => {
                "embedding and head"
            }
            (Place::Outside, _) => "outside of the blocks",
        };
        let (tensors, count) = kinds.entry(kind).or_default();
        *tensors += 1;
        *count += tensor.shape.iter().map(|n| *n as u64).product::<u64>();
    }
    kinds
}

fn sizes(config: &ModelConfig) -> String {
    let anatomy = Anatomy::of(config);
    let mut sizes = vec![
        format!("{} blocks", anatomy.blocks.len()),
        format!("{} wide", anatomy.d_model),
        match anatomy.n_heads == anatomy.n_kv_heads {
            true => format!("{} heads of {}", anatomy.n_heads, anatomy.d_head),
            false => format!(
                "{} heads of {} on {} of keys",
                anatomy.n_heads, anatomy.d_head, anatomy.n_kv_heads
            ),
        },
    ];
    if let Some(block) = anatomy.blocks.first() {
        sizes.push(format!("inner layer {}", block.d_inner));
    }
    let routed = anatomy.blocks.iter().find(|block| block.experts > 1);
    sizes.extend(routed.map(|block| format!("{} of {} experts", block.top_k, block.experts)));
    sizes.push(format!("{} tokens", thousands(anatomy.vocab_size as u64)));
    sizes.extend(
        anatomy
            .max_positions
            .map(|positions| format!("{} positions", thousands(positions as u64))),
    );
    if anatomy.tied {
        sizes.push("tied head".into());
    }
    sizes.join(", ")
}

/// The tokenizer, and whether the embedding has a row for each of its tokens.
fn tokenizer(folder: &Path, config: &ModelConfig) -> (Vec<String>, Value) {
    let rows = config.vocab_size();
    if let ModelConfig::Encoder(_) = config {
        return match EncoderTokenizer::from_folder(folder) {
            Ok(tokenizer) => {
                let tokens = tokenizer.embedding_rows();
                let lines = vec![format!("tokenizer   {}", covered(tokens, rows))];
                (lines, json!({"tokens": tokens, "fits": tokens <= rows}))
            }
            Err(error) => fault(&error),
        };
    }
    let tokenizer = match Tokenizer::from_folder(folder) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return fault(&error),
    };
    let tokens = tokenizer.embedding_rows();
    let name = |id: u32| tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
    let stops: Vec<String> = tokenizer.stop_ids().iter().map(|id| name(*id)).collect();
    let template = tokenizer.chat_template(false);
    let has_templates = tokenizer
        .chat_templates()
        .is_some_and(|own| !own.is_empty());
    let chat = match (&template, has_templates) {
        (Ok(_), _) => "it has a chat template".to_string(),
        (Err(error), true) => format!("its chat template cannot be used: {error}"),
        (Err(_), false) => "it has no chat template".to_string(),
    };
    let lines = vec![
        format!("tokenizer   {}", covered(tokens, rows)),
        format!(
            "  end of generation {}, beginning {}, padding {}",
            stops.join(" "),
            tokenizer.bos().map_or("none".into(), name),
            name(tokenizer.pad())
        ),
        format!("chat        {chat}"),
    ];
    let object = json!({
        "tokens": tokens,
        "fits": tokens <= rows,
        "stop": stops,
        "bos": tokenizer.bos().map(name),
        "pad": name(tokenizer.pad()),
        "chat_template": template.is_ok(),
    });
    (lines, object)
}

fn covered(tokens: usize, rows: usize) -> String {
    let count = thousands(tokens as u64);
    match tokens <= rows {
        true => format!(
            "{count} tokens of the {} in the embedding",
            thousands(rows as u64)
        ),
        false => format!("{count} tokens, more than the {rows} rows of the embedding"),
    }
}

fn fault(error: &dyn std::error::Error) -> (Vec<String>, Value) {
    let text = error.to_string();
    (
        vec![format!("tokenizer   none that can be used: {text}")],
        json!({"fault": text}),
    )
}
