//! `burn-lora convert`: a LoRA adapter from another program, or for another runtime, as a PEFT folder.

use std::path::{Path, PathBuf};

use burn_lora::adapter::FactorSet;
use burn_lora::adapter::foreign::{LoralibOptions, read_loralib, read_mlx};
use burn_lora::prelude::*;
use burn_lora::transformer::LinearWeights;
use burn_lora_hub::Wanted;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::combine;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;

/// The options of `convert`.
#[derive(Debug, Args)]
pub struct ConvertOptions {
    /// A PEFT folder or its name on the hub, a folder of mlx-lm, or a state dictionary of loralib (.pt, .bin, .safetensors)
    #[arg(value_name = "DIR|FILE|NAME")]
    pub adapter: String,

    /// Who wrote it; if left out, what is there tells
    #[arg(long, value_enum)]
    pub from: Option<Origin>,

    /// lora_alpha of a state dictionary of loralib, which does not say it
    #[arg(long)]
    pub alpha: Option<f64>,

    /// The part of a fused projection that loralib adapts, as LAYER=true,false,true for q and v of a layer that ends in LAYER
    #[arg(long, value_name = "LAYER=FLAGS", value_parser = merged)]
    pub merged: Vec<(String, Vec<bool>)>,

    /// What goes in front of each path of loralib; with a minus, what is taken away there
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub prefix: String,

    /// The model that the adapter is for: the folder or its name on the hub. Needed where PEFT saved it in the middle of PiSSA or
    /// OLoRA, so that its factors are over a base that lost what they started from
    #[arg(long, value_name = "DIR|NAME")]
    pub base: Option<String>,

    /// Fold every scale into B and give all layers one rank, for runtimes that read no patterns
    #[arg(long)]
    pub portable: bool,

    /// The weights of the adapted layers lie [in, out] in the checkpoint, as in GPT-2
    #[arg(long)]
    pub fan_in_fan_out: bool,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Who wrote an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// Hugging Face PEFT
    Peft,
    /// mlx-lm
    Mlx,
    /// The original loralib
    Loralib,
}

fn merged(text: &str) -> Result<(String, Vec<bool>), String> {
    let (layer, flags) = text.split_once('=').ok_or("it has no =")?;
    let flags = flags.split(',').map(|flag| {
        let flag = flag.trim();
        flag.parse()
            .map_err(|_| format!("\"{flag}\" is neither true nor false"))
    });
    Ok((layer.to_string(), flags.collect::<Result<_, String>>()?))
}

/// Runs the command.
pub fn run(options: &ConvertOptions, output: &Output) -> Result<(), Failure> {
    let path = Path::new(&options.adapter);
    let origin = options.from.unwrap_or_else(|| guess(path));
    let mut metadata = PeftMetadata::default();
    let mut adapter = match origin {
        Origin::Peft => {
            let folder = source::folder(&options.adapter, None, Wanted::Adapter)?;
            metadata = combine::metadata(&folder)?;
            match &options.base {
                Some(base) => {
                    let base = LinearWeights::open(&source::folder(base, None, Wanted::Model)?)?;
                    FactorSet::load_over(&folder, |path| base.weight(path))?
                }
                None => FactorSet::load(&folder)?,
            }
        }
        Origin::Mlx => read_mlx(path)?,
        Origin::Loralib => read_loralib(path, &loralib(options)?)?,
    };
    metadata.fan_in_fan_out |= options.fan_in_fan_out;
    if options.portable {
        adapter = adapter.portable();
    }
    let bytes = adapter.save(&options.output, &metadata, None)?;
    let layers = adapter.layers.len();
    let lines = [
        format!("converted {layers} layers"),
        format!("written   {} ({bytes} bytes)", options.output.display()),
    ];
    let object = json!({
        "command": "convert", "layers": layers, "output": options.output, "bytes": bytes,
    });
    output.done(&lines, &object);
    Ok(())
}

fn guess(path: &Path) -> Origin {
    match path {
        _ if path.is_file() => Origin::Loralib,
        _ if path.join("adapters.safetensors").exists() => Origin::Mlx,
        _ => Origin::Peft,
    }
}

fn loralib(options: &ConvertOptions) -> Result<LoralibOptions, Failure> {
    let alpha = options.alpha.ok_or_else(|| {
        let reason =
            "--alpha is missing: a state dictionary of loralib does not say its lora_alpha";
        Failure::new(Kind::Usage, reason)
    })?;
    let loralib = LoralibOptions::new(alpha).with_prefix(&options.prefix);
    let merged = options.merged.iter();
    Ok(merged.fold(loralib, |loralib, (layer, flags)| {
        loralib.with_merged(layer, flags)
    }))
}
