use std::path::Path;

use burn_lora_linalg::Matrix;

use super::{FactorSet, Factors};
use crate::error::AdapterError;
use crate::peft::{PeftMetadata, TargetModules, Tensors, write_folder};

impl FactorSet {
    /// Writes the adapter as a PEFT folder, without a module, and returns the size of the weights in bytes.
    ///
    /// Layers are targeted by their paths, or by `targets` where shorter names select the same in the base. A
    /// [`portable`](Self::portable) adapter gives a folder that every known runtime reads. The model card is written as by
    /// [`peft::save`](crate::peft::save).
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
        let tensors: Tensors = self.layers.iter().flat_map(tensors).collect();
        let paths = || TargetModules::Names(self.layers.keys().cloned().collect());
        let targets = targets.cloned().unwrap_or_else(paths);
        write_folder(folder, &tensors, &self.config(), &targets, metadata)
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
