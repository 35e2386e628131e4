//! The shapes that are measured, and their batches.

use std::error::Error;
use std::fs;
use std::path::Path;

use burn_lora::data::{Batch, Example};
use burn_lora::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

const SHAPES: &str = include_str!("shapes.json");
const SEED: u64 = 7;

/// One entry of shapes.json.
pub(crate) struct Shape {
    /// A `config.json` of Hugging Face.
    pub(crate) config: Value,
    pub(crate) batch_size: usize,
    pub(crate) seq_len: usize,
    pub(crate) lora: LoraConfig,
}

pub(crate) fn read(name: &str) -> Result<Shape, Box<dyn Error>> {
    let mut shapes: Map<String, Value> = serde_json::from_str(SHAPES)?;
    let names = shapes.keys().cloned().collect::<Vec<_>>().join(", ");
    let shape = shapes
        .remove(name)
        .ok_or_else(|| format!("no shape \"{name}\"; there are: {names}"))?;
    let size = |field: &str| {
        let size = shape[field].as_u64();
        size.ok_or_else(|| format!("`{field}` of the shape \"{name}\" is no number"))
    };
    let targets = shape["targets"].as_array().ok_or("`targets` is no list")?;
    let targets = targets.iter().filter_map(Value::as_str);
    Ok(Shape {
        config: shape["config"].clone(),
        batch_size: size("batch_size")? as usize,
        seq_len: size("seq_len")? as usize,
        lora: LoraConfig::new(size("rank")? as usize, size("alpha")? as f64)
            .with_targets(Targets::names(targets)),
    })
}

impl Shape {
    pub(crate) fn is_encoder(&self) -> bool {
        self.config["model_type"] == "bert"
    }

    pub(crate) fn tokens(&self) -> usize {
        self.batch_size * self.seq_len
    }

    /// Random rows without padding, of which every token but the first is learned, as Transformers shifts the labels.
    pub(crate) fn batch(&self) -> Result<Batch, Box<dyn Error>> {
        self.batch_of(&self.random("vocab_size", self.tokens())?)
    }

    fn batch_of(&self, ids: &[u32]) -> Result<Batch, Box<dyn Error>> {
        let rows = ids.chunks(self.seq_len);
        let examples: Result<Vec<_>, _> = rows.map(|row| Example::new(row.to_vec(), 1)).collect();
        Ok(Batch::new(&examples?, 0))
    }

    /// The batches of prepare.py, their ids as little-endian numbers of 32 bits.
    pub(crate) fn prepared_batches(&self, file: &Path) -> Result<Vec<Batch>, Box<dyn Error>> {
        let bytes = fs::read(file)?;
        let (ids, _) = bytes.as_chunks::<4>();
        let ids: Vec<u32> = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
        let batches = ids.chunks_exact(self.tokens());
        batches.map(|ids| self.batch_of(ids)).collect()
    }

    /// Random labels of the rows.
    pub(crate) fn labels(&self) -> Result<Vec<u32>, Box<dyn Error>> {
        self.random("num_labels", self.batch_size)
    }

    /// Numbers below a field of the configuration.
    fn random(&self, below: &str, count: usize) -> Result<Vec<u32>, Box<dyn Error>> {
        let below = self.config[below]
            .as_u64()
            .ok_or_else(|| format!("`{below}` is no number"))? as u32;
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        Ok((0..count).map(|_| rng.random_range(0..below)).collect())
    }
}
