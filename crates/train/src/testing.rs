//! What several tests use.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_lora_data::Example;
use burn_lora_transformer::{Decoder, DecoderConfig, LlamaConfig};

/// Keeps what is written to any of its clones.
#[derive(Clone, Default)]
pub(crate) struct SharedSink(Arc<Mutex<Vec<u8>>>);

impl SharedSink {
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for SharedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Burn's CPU backends have one random generator for the process: runs that draw from it take turns.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random Llama of two layers that knows 16 tokens.
pub(crate) fn tiny_llama() -> Decoder {
    let config = LlamaConfig {
        vocab_size: 16,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    Decoder::init(DecoderConfig::Llama(config), &Device::flex(), 7).expect("the sizes fit")
}

/// Prompts `k 2` with the completion `k + 1, k + 2, ..., 1`, of unequal lengths.
pub(crate) fn examples() -> Vec<Example> {
    (3..11)
        .map(|k| {
            let mut ids = vec![k, 2];
            ids.extend((k + 1)..=(k + 1 + k % 3));
            ids.push(1);
            Example::new(ids, 2).expect("valid")
        })
        .collect()
}

/// The values of every parameter that a module shows, by path.
pub(crate) fn values<M: Module>(module: &M) -> BTreeMap<String, TensorData> {
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        values: BTreeMap<String, TensorData>,
    }
    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.values
                .insert(self.path.join("."), param.val().into_data());
        }
    }
    let mut values = Values::default();
    module.visit(&mut values);
    values.values
}
