//! Properties of target matching, patterns and merging, over drawn inputs.

use burn::tensor::{DType, Device};
use burn_lora::adapter::{
    DEFAULT_NAME, LoraConfig, Targets, adapted_weights, attach, merge, summary,
};
use burn_lora_tests::{assert_close, llama, methods_for, mlp, random};
use proptest::prelude::*;

/// The layers of the golden Llama that could be targets, by their paths.
const LINEAR: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

fn paths() -> Vec<String> {
    let layers = (0..2).flat_map(|layer| LINEAR.map(|name| format!("model.layers.{layer}.{name}")));
    layers.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_name_selects_the_layers_whose_last_segments_it_is(chosen in 0usize..14, segments in 1usize..6) {
        let device = Device::flex();
        let subject = llama(&device, DType::F32);
        let paths = paths();
        let parts: Vec<&str> = paths[chosen].split('.').collect();
        let name = parts[parts.len().saturating_sub(segments)..].join(".");
        let wanted: Vec<&str> = name.split('.').collect();
        let expected: Vec<&String> = paths
            .iter()
            .filter(|path| {
                let parts: Vec<&str> = path.split('.').collect();
                parts.ends_with(&wanted)
            })
            .collect();
        let config = LoraConfig::new(2, 4.0).with_targets(Targets::names([name]));
        let model = attach(subject.base, DEFAULT_NAME, &config).unwrap();
        let weights = adapted_weights(&model);
        let found: Vec<&str> = weights.iter().map(|weight| weight.module_path()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_pattern_gives_its_layers_their_rank_and_scale_and_the_first_wins(
        layer in 0usize..2,
        rank in 1usize..6,
        alpha in 1u8..20,
        rslora: bool,
    ) {
        let device = Device::flex();
        let subject = llama(&device, DType::F32);
        let mut config = subject.config().with_rslora(rslora);
        config.rank_pattern = vec![
            (format!(r"layers\.{layer}\.self_attn\.q_proj"), rank),
            ("q_proj".to_string(), 7),
        ];
        config.alpha_pattern = vec![("v_proj".to_string(), f64::from(alpha))];
        let model = attach(subject.base, DEFAULT_NAME, &config).unwrap();
        for row in summary(&model).rows {
            let r = match row.layer.as_str() {
                path if path == format!("model.layers.{layer}.self_attn.q_proj") => rank,
                path if path.ends_with("q_proj") => 7,
                _ => 4,
            };
            let a = if row.layer.ends_with("v_proj") { f64::from(alpha) } else { 8.0 };
            let scale = if rslora { a / (r as f64).sqrt() } else { a / r as f64 };
            prop_assert_eq!((row.rank, row.scale), (r, scale));
        }
    }

    #[test]
    fn merging_changes_no_output(method in 0usize..12, rank in 1usize..7, seed: u64) {
        let device = Device::flex();
        let subject = mlp(&device, DType::F32);
        let base = LoraConfig { rank, ..subject.config() };
        let config = random(&methods_for(&base, "down")[method]).with_seed(seed);
        let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
        let expected = subject.output(&model);
        let largest = expected.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
        let merged = subject.output(&merge(model).unwrap());
        assert_close(config.method.word(), &merged, &expected, 2e-5 * largest);
    }
}
