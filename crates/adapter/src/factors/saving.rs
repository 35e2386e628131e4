use std::collections::BTreeMap;
use std::path::Path;

use burn_lora_linalg::Matrix;
use serde_json::{Map, Value, json};

use super::{FactorSet, Factors};
use crate::error::AdapterError;
use crate::peft::{PeftMetadata, TargetModules, write_folder};

impl FactorSet {
    /// Writes the adapter as a PEFT folder, without a module, and returns the size of the weights in bytes.
    ///
    /// Layers are targeted by their paths, or by `targets` where shorter names select the same in the base. A
    /// [`portable`](Self::portable) adapter gives a folder that every known runtime reads.
    ///
    /// # Errors
    ///
    /// [`AdapterError::NotFinite`] with every layer to blame; [`AdapterError::Io`].
    pub fn save(
        &self,
        folder: &Path,
        metadata: &PeftMetadata,
        targets: Option<&TargetModules>,
    ) -> Result<u64, AdapterError> {
        let damaged = self
            .layers
            .iter()
            .filter(|(_, factors)| !factors.is_finite());
        let layers: Vec<String> = damaged.map(|(path, _)| path.clone()).collect();
        if !layers.is_empty() {
            return Err(AdapterError::NotFinite { layers });
        }
        let tensors: BTreeMap<_, _> = self.layers.iter().flat_map(tensors).collect();
        write_folder(folder, &tensors, self.config_json(metadata, targets))
    }

    fn config_json(&self, metadata: &PeftMetadata, targets: Option<&TargetModules>) -> Value {
        let config = self.config();
        let whole = |alpha: f64| match alpha.fract() == 0.0 && alpha.abs() < 1e15 {
            // Some readers want an integer.
            true => json!(alpha as i64),
            false => json!(alpha),
        };
        let ranks = config
            .rank_pattern
            .iter()
            .map(|(key, rank)| (key.clone(), json!(rank)));
        let alphas = config
            .alpha_pattern
            .iter()
            .map(|(key, alpha)| (key.clone(), whole(*alpha)));
        let paths = || json!(self.layers.keys().collect::<Vec<_>>());
        let written = json!({
            "peft_type": "LORA",
            "auto_mapping": null,
            "base_model_name_or_path": metadata.base_model_name_or_path,
            "revision": null,
            "task_type": metadata.task_type.as_deref().unwrap_or("CAUSAL_LM"),
            "inference_mode": true,
            "r": config.rank,
            "lora_alpha": whole(config.alpha),
            "lora_dropout": 0.0,
            "target_modules": targets.map_or_else(paths, |targets| match targets {
                TargetModules::Expression(expression) => json!(expression),
                TargetModules::Names(names) => json!(names),
            }),
            "exclude_modules": null,
            "fan_in_fan_out": metadata.fan_in_fan_out,
            "bias": "none",
            "use_rslora": false,
            "use_dora": false,
            "lora_bias": false,
            "init_lora_weights": true,
            "layers_to_transform": null,
            "layers_pattern": null,
            "rank_pattern": Map::from_iter(ranks),
            "alpha_pattern": Map::from_iter(alphas),
            "modules_to_save": null,
        });
        let mut all = metadata.other.clone();
        if let Value::Object(fields) = written {
            all.extend(fields);
        }
        Value::Object(all)
    }
}

/// A tensor's key, shape and numbers.
type Keyed = (String, (Vec<usize>, Vec<f32>));

/// PEFT's two tensors of a layer.
fn tensors((path, factors): (&String, &Factors)) -> [Keyed; 2] {
    let tensor = |name: &str, matrix: &Matrix| {
        let turned = matrix.transpose();
        let key = format!("base_model.model.{path}.{name}.weight");
        (key, (turned.shape().to_vec(), turned.to_f32()))
    };
    [tensor("lora_A", &factors.a), tensor("lora_B", &factors.b)]
}
