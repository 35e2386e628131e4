use super::*;
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

fn loss_and_gradients(decoder: &Decoder) -> (TensorData, Vec<TensorData>) {
    let rows: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 8, 7, 6, 5, 4]];
    let inputs = Tensor::from_data(ids(&rows).into_data(), &decoder.device());
    let logits = decoder.logits(inputs);
    let loss = (logits.clone() * logits).mean();
    let grads = loss.backward();
    let mut reader = Reader {
        grads: &grads,
        read: Vec::new(),
    };
    decoder.visit(&mut reader);
    (loss.into_data(), reader.read)
}

#[test]
fn recomputation_gives_the_same_bits() {
    for (name, decoder) in decoders() {
        let lora = LoraConfig::new(2, 4.0).with_targets(Targets::AllLinear);
        let adapted = attach(decoder.clone(), DEFAULT_NAME, &lora).expect("attached");
        let open = decoder.clone().set_require_grad(true);
        for (kind, model) in [("lora", adapted), ("full", open)] {
            let model = model.train().map(&mut Shift);
            let kept = loss_and_gradients(&model);
            assert!(kept.1.len() > 4, "{name} {kind}: {}", kept.1.len());
            for blocks in [1, usize::MAX] {
                let again = loss_and_gradients(&model.clone().with_recompute(blocks));
                assert_eq!(kept, again, "{name} {kind}, {blocks} blocks");
            }
        }
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
