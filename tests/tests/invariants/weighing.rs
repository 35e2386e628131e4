//! Ranks and scales of single layers, and weighted combinations.

use burn_lora::adapter::{
    Combination, CombinationMethod, DEFAULT_NAME, FactorSet, LoraConfig, adapted_weights, attach,
    combine,
};
use burn_lora_tests::{assert_close, on_every_subject, random};

// 15. `cat` has the summed rank and equals `linear` on the delta; a negative weight negates.

#[test]
fn i15_cat_has_the_summed_rank_and_the_summed_change_and_a_negative_weight_negates() {
    on_every_subject!(|subject| {
        let adapter = |rank: usize, seed: u64| {
            let config = LoraConfig {
                rank,
                ..random(&subject.config())
            };
            let model = attach(subject.base.clone(), DEFAULT_NAME, &config.with_seed(seed));
            FactorSet::of(&model.unwrap(), DEFAULT_NAME).unwrap()
        };
        let (x, y, z) = (adapter(4, 1), adapter(4, 2), adapter(2, 3));
        let by = |method, second, weights: [f64; 2]| {
            let pair = [(&x, weights[0]), (second, weights[1])];
            combine(&pair, &Combination::new(method)).unwrap()
        };
        let cat = by(CombinationMethod::Cat, &z, [0.7, -1.3]);
        for (layer, factors) in &cat.layers {
            let what = format!("{}: {layer}", subject.name);
            assert_eq!(factors.rank(), 6, "{what}");
            let (x, z) = (x.layers[layer].delta(), z.layers[layer].delta());
            let expected = x.iter().zip(z.iter());
            let expected: Vec<f32> = expected.map(|(x, z)| (0.7 * x - 1.3 * z) as f32).collect();
            let found = factors.delta().to_f32();
            assert_close(&what, &found, &expected, 1e-6);
        }
        // As PEFT, which weighs the factors: of one adapter alone that is its change, with the sign of its weight.
        let zero = by(CombinationMethod::Linear, &y, [-1.0, 0.0]);
        for (layer, factors) in &zero.layers {
            let expected = x.layers[layer].delta().scaled(-1.0).to_f32();
            let found = factors.delta().to_f32();
            assert_close(
                &format!("{}: {layer}", subject.name),
                &found,
                &expected,
                1e-6,
            );
        }
        let attached = cat.attach(subject.base.clone(), DEFAULT_NAME).unwrap();
        let negated = by(CombinationMethod::Cat, &z, [-0.7, 1.3]);
        let negated = negated.attach(attached, "negated").unwrap();
        let base = subject.output(&subject.base);
        assert_close(subject.name, &subject.output(&negated), &base, 1e-4);
    });
}

// 16. rank and alpha patterns give each layer its own r and scale; rsLoRA's scale is exact.

#[test]
fn i16_patterns_and_rslora_give_each_layer_its_own_rank_and_scale() {
    on_every_subject!(|subject| {
        for word in ["lora", "lora-fa", "dora", "loha"] {
            for use_rslora in [false, true] {
                if use_rslora && !word.starts_with("lora") && word != "dora" {
                    continue; // PEFT has it for LoRA.
                }
                let first = subject.targets[0];
                let config = LoraConfig {
                    rank_pattern: vec![(first.to_string(), 2)],
                    alpha_pattern: vec![(first.to_string(), 7.0)],
                    ..random(&subject.config())
                };
                let config = config.with_rslora(use_rslora);
                let config = config.with_method(word.parse().unwrap());
                let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
                for weight in adapted_weights(&model) {
                    let method = weight.stack.method(DEFAULT_NAME).unwrap();
                    let is_first = weight.module_path().ends_with(first);
                    let (rank, alpha) = if is_first { (2, 7.0) } else { (4, 8.0) };
                    let scale = match use_rslora {
                        true => alpha / f64::from(rank as u32).sqrt(),
                        false => alpha / rank as f64,
                    };
                    let what = format!("{}, {word}: {}", subject.name, weight.path);
                    assert_eq!(method.rank(), Some(rank), "{what}");
                    assert_eq!(method.scale(), Some(scale), "{what}");
                }
            }
        }
    });
}
