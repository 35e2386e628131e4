use super::encoder_families::{encoder, encoders};
use super::*;
use crate::{Encoder, EncoderBatch};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Gradients;
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, Targets, attach};

/// A seeded change of every tracked parameter: factors that start at zero would hide their counterparts' gradients.
struct Shift;

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.is_require_grad() {
            true => param.map(|x| (x + 0.1).detach().require_grad()),
            false => param,
        }
    }
}

/// The gradient of every parameter that has one.
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

fn inputs(device: &Device) -> Tensor<2, Int> {
    let rows: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 8, 7, 6, 5, 4]];
    Tensor::from_data(ids(&rows).into_data(), device)
}

fn loss_and_gradients<M: Module>(
    model: &M,
    forward: impl Fn(&M) -> Tensor<3>,
) -> (TensorData, Vec<TensorData>) {
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

/// Compares recomputations with keeping everything, for an adapter and for all parameters.
fn check<M: Module>(
    name: &str,
    base: M,
    with_recompute: impl Fn(M, usize) -> M,
    forward: impl Fn(&M) -> Tensor<3>,
) {
    let lora = LoraConfig::new(2, 4.0).with_targets(Targets::AllLinear);
    let adapted = attach(base.clone(), DEFAULT_NAME, &lora).expect("attached");
    for (kind, model) in [("lora", adapted), ("full", base.set_require_grad(true))] {
        let model = model.train().map(&mut Shift);
        let kept = loss_and_gradients(&model, &forward);
        assert!(kept.1.len() > 4, "{name} {kind}: {}", kept.1.len());
        for blocks in [1, usize::MAX] {
            let again = loss_and_gradients(&with_recompute(model.clone(), blocks), &forward);
            assert_eq!(kept, again, "{name} {kind}, {blocks} blocks");
        }
    }
}

#[test]
fn decoders_give_the_same_bits() {
    for (name, decoder) in decoders() {
        check(name, decoder, Decoder::with_recompute, |decoder| {
            decoder.logits(inputs(&decoder.device()))
        });
    }
}

#[test]
fn encoders_give_the_same_bits() {
    for (name, config) in encoders() {
        check(name, encoder(&config), Encoder::with_recompute, |encoder| {
            encoder.hidden(&EncoderBatch::new(inputs(&encoder.device()), vec![6, 4]))
        });
    }
}

#[test]
fn a_frozen_model_is_run_as_it_is() {
    for (name, decoder) in decoders() {
        let inputs = ids(&[&[1, 2, 3]]);
        let expected = decoder.logits(inputs.clone()).into_data();
        let recomputed = decoder.with_recompute(usize::MAX).logits(inputs);
        assert_eq!(recomputed.into_data(), expected, "{name}");
    }
}
