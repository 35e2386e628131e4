//! Alone in its process: other tests would draw from the same device meanwhile.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor, TensorData};
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, Targets, attach};
use burn_lora_transformer::{Decoder, Encoder, EncoderBatch, EncoderConfig, LlamaConfig};

struct Reader<'a> {
    grads: &'a Gradients,
    read: Vec<TensorData>,
}

impl ModuleVisitor for Reader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.base().grad(self.grads) {
            self.read.push(grad.into_data());
        }
    }
}

/// The loss by the first forward, and the gradients, which the second one gives.
fn step<M: Module>(model: &M, forward: impl Fn(&M) -> Tensor<3>) -> (TensorData, Vec<TensorData>) {
    let y = forward(model);
    let loss = (y.clone() * y).mean();
    let grads = loss.backward();
    let mut reader = Reader {
        grads: &grads,
        read: Vec::new(),
    };
    model.visit(&mut reader);
    (loss.into_data(), reader.read)
}

/// With B of an adapter at zero, dropout shows in the gradient of B alone: it is `(dropout(x) A)^T g`.
fn check<M: Module>(
    base: M,
    recompute: impl Fn(M) -> M,
    forward: impl Fn(&M, Tensor<2, Int>) -> Tensor<3>,
) {
    let lora = LoraConfig::new(2, 4.0)
        .with_targets(Targets::AllLinear)
        .with_dropout(0.5);
    let model = attach(base, DEFAULT_NAME, &lora).expect("attached").train();
    let device = model.devices().remove(0);
    let ids = Tensor::<2, Int>::from_data([[1, 2, 3, 4, 5, 6, 7, 8]], &device);
    let forward = |model: &M| forward(model, ids.clone());
    let recomputed = recompute(model.clone());

    device.seed(5);
    let first = step(&recomputed, forward);
    device.seed(5);
    assert_eq!(first, step(&recomputed, forward), "a run repeats itself");
    device.seed(6);
    assert_ne!(first.1, step(&recomputed, forward).1, "dropout acts");

    // The same numbers without recomputation: the seed that the forward draws, set by hand.
    device.seed(5);
    let range = Distribution::Uniform(0.0, (1 << 24) as f64);
    let drawn = Tensor::<1>::random([1], range, &device);
    device.seed((drawn.into_scalar::<f32>() as u64) << 24);
    assert_eq!(first, step(&model, forward));
}

/// One test, since all draw from the same device. With one block, the seed that a forward draws is the only one.
#[test]
fn the_second_forward_drops_what_the_first_dropped() {
    let device = Device::flex();
    let config = LlamaConfig {
        vocab_size: 31,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        ..LlamaConfig::default()
    };
    let decoder = Decoder::init(config, &device, 3).expect("valid");
    check(
        decoder,
        |decoder| decoder.with_recompute(1),
        |decoder, ids| decoder.hidden(ids, None),
    );

    let config = EncoderConfig::from_json(
        r#"{"model_type": "bert", "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 16}"#,
    );
    let config = config.expect("valid");
    let encoder = Encoder::init(config, &device, 3).expect("valid");
    check(
        encoder,
        |encoder| encoder.with_recompute(1),
        |encoder, ids| encoder.hidden(&EncoderBatch::new(ids, vec![8])),
    );
}
