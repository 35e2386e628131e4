use super::*;
use crate::Padding;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients};
use burn_lora_kernels::RopeScaling;

#[test]
fn later_tokens_do_not_change_earlier_logits() {
    for (name, decoder) in decoders() {
        let a = decoder.logits(ids(&[&[1, 2, 3, 4, 5]]));
        let b = decoder.logits(ids(&[&[1, 2, 3, 9, 8]]));
        let front = |x: Tensor<3>| x.slice([0..1, 0..3]);
        let back = |x: Tensor<3>| x.slice([0..1, 3..5]);
        assert_close(name, front(a.clone()), front(b.clone()), 1e-6);
        let moved: f32 = (back(a) - back(b)).abs().max().into_scalar();
        assert!(moved > 1e-2, "{name}: the tokens themselves count: {moved}");
    }
}

#[test]
fn the_order_of_earlier_tokens_counts() {
    for (name, decoder) in decoders() {
        let last = |x: Tensor<3>| x.slice([0..1, 2..3]);
        let a = last(decoder.logits(ids(&[&[1, 2, 3]])));
        let b = last(decoder.logits(ids(&[&[2, 1, 3]])));
        let moved: f32 = (a - b).abs().max().into_scalar();
        assert!(moved > 1e-3, "{name}: {moved}");
    }
}

#[test]
fn padding_behind_changes_nothing_in_front() {
    for (name, decoder) in decoders() {
        let alone = decoder.logits(ids(&[&[7, 8, 9]]));
        let batch = decoder.logits(ids(&[&[1, 2, 3, 4, 5], &[7, 8, 9, 0, 0]]));
        assert_close(name, batch.slice([1..2, 0..3]), alone, 1e-5);
    }
}

#[test]
fn padding_in_front_changes_nothing_behind() {
    for (name, decoder) in decoders() {
        let alone = decoder.logits(ids(&[&[7, 8, 9]]));
        let padding = Padding::for_lengths(&[5, 3]);
        let hidden = decoder.hidden(ids(&[&[1, 2, 3, 4, 5], &[0, 0, 7, 8, 9]]), Some(&padding));
        let batch = decoder.logits_of(hidden);
        assert_close(name, batch.slice([1..2, 2..5]), alone, 1e-5);
    }
}

#[test]
fn the_cache_changes_nothing() {
    for (name, decoder) in decoders() {
        let tokens: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 8, 7, 6, 5, 4]];
        let whole = decoder.hidden(ids(&tokens), None);
        let mut cache = decoder.new_cache(6);
        let mut parts = Vec::new();
        // Several tokens, one token, and several tokens behind a filled cache.
        for range in [0..3, 3..4, 4..6] {
            let part = tokens.map(|row| &row[range.clone()]);
            parts.push(decoder.hidden_cached(ids(&part), None, &mut cache));
        }
        assert_eq!(cache.len(), 6);
        assert_close(name, Tensor::cat(parts, 1), whole, 1e-5);
    }
}

#[test]
fn a_cache_has_the_frequencies_of_its_capacity() {
    let long = RopeScaling::LongRope {
        short: vec![1.0, 1.5, 2.0],
        long: vec![2.0, 3.0, 4.0],
        original_positions: 4,
        attention_factor: 1.2,
    };
    let dynamic = RopeScaling::Dynamic {
        factor: 8.0,
        original_positions: 4,
    };
    for rope_scaling in [long, dynamic] {
        let config = LlamaConfig {
            rope_scaling: rope_scaling.clone(),
            ..llama()
        };
        let decoder = Decoder::init(config, &Device::flex(), 3).expect("valid");
        let tokens = [1, 2, 3, 4, 5, 6];
        let whole = decoder.hidden(ids(&[&tokens]), None);
        let mut cache = decoder.new_cache(6);
        let parts = tokens.chunks(2).map(|part| {
            // The first of them end before the length from which the frequencies are others.
            decoder.hidden_cached(ids(&[part]), None, &mut cache)
        });
        let parts = Tensor::cat(parts.collect(), 1);
        assert_close(&format!("{rope_scaling:?}"), parts, whole.clone(), 1e-5);

        let short = decoder.hidden(ids(&[&tokens[..2]]), None);
        let moved: f32 = (whole.slice([0..1, 0..2]) - short)
            .abs()
            .max()
            .into_scalar();
        assert!(moved > 1e-3, "{rope_scaling:?}: the length counts: {moved}");
    }
}

#[test]
fn low_precision_follows_f32() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, decoder) in decoders() {
        decoder.save(dir.path(), DType::F32).expect("saved");
        let exact = decoder.logits(ids(&[&[1, 2, 3, 4]]));
        let scale: f32 = exact.clone().abs().max().into_scalar();
        for dtype in [DType::F16, DType::BF16] {
            let options = crate::LoadOptions::new(dtype, Device::flex());
            let rounded = Decoder::load(dir.path(), &options).expect("loaded");
            assert_eq!(rounded.dtype(), dtype);
            let logits = rounded.logits(ids(&[&[1, 2, 3, 4]]));
            assert_eq!(logits.dtype(), dtype, "{name}");
            let logits = logits.cast(DType::F32);
            assert_close(name, logits, exact.clone(), 0.05 * scale);
        }
    }
}

#[test]
fn everything_is_frozen_until_it_is_asked_for() {
    let device = Device::flex().autodiff();
    let decoder = Decoder::init(llama(), &device, 1).expect("valid");
    let hidden = decoder.hidden(ids(&[&[1, 2]]), None);
    assert!(!hidden.is_tracked());

    let decoder = decoder.set_require_grad(true);
    let loss = decoder.logits(ids(&[&[1, 2]])).square().mean();
    let grads = loss.backward();
    let mut without = WithoutGradient {
        path: Vec::new(),
        grads: &grads,
        found: Vec::new(),
    };
    decoder.visit(&mut without);
    assert_eq!(without.found, Vec::<String>::new());
}

/// The parameters that a loss did not reach.
struct WithoutGradient<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    found: Vec<String>,
}

impl ModuleVisitor for WithoutGradient<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.grads);
        let size: f32 = grad.map_or(0.0, |grad| grad.abs().max().into_scalar());
        if size == 0.0 {
            self.found.push(self.path.join("."));
        }
    }
}

#[test]
fn lengths_beyond_the_positions_are_an_error() {
    for (name, decoder) in decoders() {
        assert!(decoder.check_length(32).is_ok(), "{name}");
        let error = decoder.check_length(33).expect_err(name);
        assert_eq!((error.length, error.limit), (33, 32));
    }
}

#[test]
fn the_seed_decides_the_fresh_weights() {
    let logits = |seed| {
        let decoder = Decoder::init(gpt2(), &Device::flex(), seed).expect("valid");
        decoder.logits(ids(&[&[1, 2]]))
    };
    assert_close("same", logits(5), logits(5), 0.0);
    let moved: f32 = (logits(5) - logits(6)).abs().max().into_scalar();
    assert!(moved > 1e-3);
}
