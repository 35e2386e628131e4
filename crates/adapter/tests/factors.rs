//! Combination, extraction, portable export and foreign files.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use burn::tensor::Device;
use burn_lora_adapter::foreign::{LoralibOptions, read_loralib, read_mlx};
use burn_lora_adapter::peft::{self, PeftMetadata};
use burn_lora_adapter::{
    AdapterError, Combination, CombinationMethod, ExtractRank, FactorSet, Factors, MajoritySign,
    NamedPair, combine, extract, merge_and_unload,
};
use burn_lora_linalg::{Matrix, Normal};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use common::{Golden, LAYERS, assert_near, host};

fn golden_adapter(golden: &Golden, name: &str, scale: f64) -> FactorSet {
    let layer = |layer: &str| {
        let side = |side| golden.matrix(&format!("adapter_{name}.{layer}.{side}"));
        let (a, b) = (side("a"), side("b"));
        (layer.to_string(), Factors { a, b, scale })
    };
    LAYERS.map(layer).into_iter().collect()
}

#[test]
fn combinations_are_those_of_peft() {
    use CombinationMethod as M;
    let golden = Golden::read();
    let (x, y) = (
        golden_adapter(&golden, "x", 3.0),
        golden_adapter(&golden, "y", 0.5),
    );
    let z = golden_adapter(&golden, "z", 2.5);
    let dense = |method| Combination::new(method).with_density(0.4);
    let clamped = Combination {
        clamp: Some(0.9),
        ..Combination::new(M::Svd).with_rank(3)
    };
    let frequency = Combination {
        majority_sign: MajoritySign::Frequency,
        ..dense(M::Ties)
    };
    for (case, combination, second, weights) in [
        ("linear", Combination::new(M::Linear), &y, [0.7, -1.3]),
        ("cat", Combination::new(M::Cat), &y, [0.7, -1.3]),
        ("cat_xz", Combination::new(M::Cat), &z, [0.7, -1.3]),
        ("svd", Combination::new(M::Svd), &y, [0.7, -1.3]),
        ("ties", dense(M::Ties), &y, [0.7, 1.3]),
        ("ties_frequency", frequency, &y, [0.7, -1.3]),
        ("ties_svd", dense(M::TiesSvd), &y, [0.7, 1.3]),
        ("magnitude_prune", dense(M::MagnitudePrune), &y, [0.7, -1.3]),
        (
            "magnitude_prune_svd",
            dense(M::MagnitudePruneSvd),
            &y,
            [0.7, 1.3],
        ),
        (
            "dare_linear",
            Combination::new(M::DareLinear).with_density(1.0),
            &y,
            [0.7, 1.3],
        ),
        (
            "dare_ties",
            Combination::new(M::DareTies).with_density(1.0),
            &y,
            [0.7, 1.3],
        ),
    ] {
        let combined = combine(&[(&x, weights[0]), (second, weights[1])], &combination).unwrap();
        for layer in LAYERS {
            let expected = golden.matrix(&format!("combined_{case}.{layer}.delta"));
            let delta = combined.layers[layer].delta();
            assert_near(
                &delta,
                &expected,
                1e-5 * expected.norm(),
                &format!("{case} {layer}"),
            );
        }
    }
    // What is cut off depends on the signs of singular vectors; the bound does not exceed the largest element.
    let free = combine(
        &[(&x, 0.7), (&y, 0.5)],
        &Combination::new(M::Svd).with_rank(3),
    )
    .unwrap();
    let cut = combine(&[(&x, 0.7), (&y, 0.5)], &clamped).unwrap();
    for layer in LAYERS {
        let most = |set: &FactorSet| {
            set.layers[layer]
                .b
                .iter()
                .fold(0.0, |x: f64, y| x.max(y.abs()))
        };
        assert!(most(&cut) < most(&free));
    }
}

fn drawn(shapes: &[(usize, usize)], rank: usize, scale: f64, seed: u64) -> FactorSet {
    let layers = shapes.iter().enumerate().map(|(index, (d_in, d_out))| {
        let mut normal = Normal::new(seed, index as u64);
        let (a, b) = (normal.matrix(*d_in, rank), normal.matrix(rank, *d_out));
        (format!("layers.{index}"), Factors { a, b, scale })
    });
    layers.collect()
}

fn near(x: &Matrix, y: &Matrix) -> bool {
    (x - y).norm() <= 1e-9 * (1.0 + y.norm())
}

proptest! {
    /// Invariant 15.
    #[test]
    fn cat_is_the_weighted_sum_of_the_changes_and_its_rank_the_sum(
        shape in (1usize..9, 1usize..9), ranks in (1usize..4, 1usize..4), weights in (-2.0..2.0f64, -2.0..2.0f64), seed in any::<u64>()
    ) {
        let x = drawn(&[shape, (3, 3)], ranks.0, 2.0, seed);
        let y = drawn(&[shape], ranks.1, 0.5, !seed);
        let cat = combine(&[(&x, weights.0), (&y, weights.1)], &Combination::new(CombinationMethod::Cat)).unwrap();
        let both = &cat.layers["layers.0"];
        prop_assert_eq!(both.rank(), ranks.0 + ranks.1);
        let sum = &x.layers["layers.0"].delta().scaled(weights.0) + &y.layers["layers.0"].delta().scaled(weights.1);
        prop_assert!(near(&both.delta(), &sum));
        // A layer of one adapter only is that adapter's.
        prop_assert!(near(&cat.layers["layers.1"].delta(), &x.layers["layers.1"].delta().scaled(weights.0)));
        let svd = Combination::new(CombinationMethod::Svd).with_rank(8);
        let svd = combine(&[(&x, weights.0), (&y, weights.1)], &svd).unwrap();
        prop_assert!(near(&svd.layers["layers.0"].delta(), &sum));
    }

    #[test]
    fn a_negative_weight_negates(shape in (1usize..9, 1usize..9), rank in 1usize..4, seed in any::<u64>()) {
        let x = drawn(&[shape], rank, 1.5, seed);
        for method in [CombinationMethod::Linear, CombinationMethod::Cat, CombinationMethod::Svd] {
            let turned = combine(&[(&x, -1.0)], &Combination::new(method)).unwrap();
            prop_assert!(near(&turned.layers["layers.0"].delta(), &x.layers["layers.0"].delta().scaled(-1.0)));
        }
    }

    #[test]
    fn dare_drops_a_share_and_keeps_the_mean(density in 0.2..0.9f64, seed in any::<u64>()) {
        let ones = |rows, columns| Matrix::from_fn(rows, columns, |_, _| 1.0);
        let x: FactorSet = [("l".to_string(), Factors { a: ones(60, 20), b: ones(20, 60), scale: 1.0 })].into_iter().collect();
        let dare = Combination { seed, ..Combination::new(CombinationMethod::DareLinear).with_density(density) };
        let dropped = combine(&[(&x, 1.0)], &dare).unwrap();
        let a = &dropped.layers["l"].a;
        prop_assert!(a.iter().all(|value| value == 0.0 || (value - 1.0 / density).abs() < 1e-12));
        let kept = a.iter().filter(|value| *value != 0.0).count() as f64 / 1200.0;
        // Five standard deviations.
        prop_assert!((kept - density).abs() < 5.0 * (density * (1.0 - density) / 1200.0).sqrt());
        prop_assert_eq!(&combine(&[(&x, 1.0)], &dare).unwrap(), &dropped);
        let mask = |matrix: &Matrix| matrix.iter().map(|value| value == 0.0).collect::<Vec<_>>();
        prop_assert_ne!(mask(a), mask(&dropped.layers["l"].b.transpose()), "the factors are drawn apart");
    }

    #[test]
    fn a_portable_adapter_makes_the_same_change(
        shapes in proptest::collection::vec((1usize..7, 1usize..7), 1..4), rank in 1usize..4, scale in 0.1..3.0f64, seed in any::<u64>()
    ) {
        let mut set = drawn(&shapes, rank, scale, seed);
        let other = drawn(&[(5, 4)], rank + 2, 2.0 * scale, seed);
        set.layers.insert("other".to_string(), other.layers["layers.0"].clone());
        let portable = set.portable();
        for (path, factors) in &portable.layers {
            prop_assert_eq!((factors.rank(), factors.scale), (rank + 2, 1.0));
            prop_assert!(near(&factors.delta(), &set.layers[path].delta()));
        }
        let config = portable.config();
        prop_assert_eq!((config.rank, config.alpha), (rank + 2, (rank + 2) as f64));
        prop_assert!(config.rank_pattern.is_empty() && config.alpha_pattern.is_empty());
    }

    #[test]
    fn what_was_added_is_extracted(shape in (2usize..9, 2usize..9), rank in 1usize..3, seed in any::<u64>()) {
        let added = drawn(&[shape, (4, 4)], rank, 0.7, seed);
        let mut normal = Normal::new(!seed, 9);
        let mut pair = |path: &str, change: Option<&Factors>, d_in, d_out| {
            let base = normal.matrix(d_in, d_out);
            let tuned = change.map_or(base.clone(), |change| &base + &change.delta());
            Ok(NamedPair { path: path.to_string(), base, tuned })
        };
        let pairs = [
            pair("layers.0", Some(&added.layers["layers.0"]), shape.0, shape.1),
            pair("layers.1", Some(&added.layers["layers.1"]), 4, 4),
            pair("same", None, 3, 5),
        ];
        let pairs: Vec<_> = pairs.into_iter().collect::<Result<_, AdapterError>>().unwrap();
        for extraction in [ExtractRank::Fixed(rank), ExtractRank::Energy { share: 1.0 - 1e-9, at_most: 8 }] {
            let mut told = Vec::new();
            let set = extract(pairs.clone().into_iter().map(Ok), extraction, |path, rank, kept| {
                told.push((path.to_string(), rank, kept));
            }).unwrap();
            prop_assert_eq!(set.layers.len(), 2, "what was not tuned is left out");
            for (path, found, kept) in told {
                prop_assert!(found <= rank && kept > 1.0 - 1e-8);
                prop_assert!((&set.layers[&path].delta() - &added.layers[&path].delta()).norm() < 1e-3 * (1.0 + added.layers[&path].delta().norm()));
            }
        }
        let half = extract(pairs.into_iter().map(Ok), ExtractRank::Energy { share: 0.5, at_most: 1 }, |_, _, _| {}).unwrap();
        prop_assert!(half.layers.values().all(|factors| factors.rank() == 1));
    }
}

#[test]
fn each_adapter_may_have_a_density_of_its_own() {
    use CombinationMethod as M;
    let x = drawn(&[(6, 5), (4, 7)], 2, 1.5, 1);
    let y = drawn(&[(6, 5), (4, 7)], 2, 0.5, 2);
    let both = [(&x, 0.7), (&y, 1.3)];
    for method in CombinationMethod::ALL {
        let one = Combination::new(method).with_density(0.4);
        if let Ok(one) = combine(&both, &one) {
            let each = Combination::new(method).with_densities([0.4, 0.4]);
            assert_eq!(combine(&both, &each).unwrap(), one, "{}", method.word());
        }
    }
    // Without a sign to elect, each adapter is pruned and added by itself.
    let combined = combine(
        &both,
        &Combination::new(M::MagnitudePrune).with_densities([0.3, 0.9]),
    )
    .unwrap();
    let alone = |place: usize, density: f64| {
        let pruned = Combination::new(M::MagnitudePrune).with_density(density);
        combine(&both[place..=place], &pruned).unwrap()
    };
    let (x, y) = (alone(0, 0.3), alone(1, 0.9));
    for (path, factors) in &combined.layers {
        let (x, y) = (&x.layers[path], &y.layers[path]);
        assert!(near(&factors.a, &(&x.a + &y.a)), "{path}");
        assert!(near(&factors.b, &(&x.b + &y.b)), "{path}");
    }
    let faults = |combination: Combination| combine(&both, &combination).unwrap_err().to_string();
    let error = faults(Combination::new(M::Ties).with_densities([0.3, 1.2, -1.0]));
    for fault in [
        "density is 1.2",
        "density is -1",
        "3 densities for 2 adapters",
    ] {
        assert!(error.contains(fault), "{error}");
    }
    let two = Combination::new(M::Ties).with_density(0.5);
    let error = faults(two.with_densities([0.3, 0.2]));
    assert!(
        error.contains("a density for all and one for each"),
        "{error}"
    );
    let error = faults(Combination::new(M::Linear).with_densities([0.3, 0.2]));
    assert!(error.contains("linear takes no density"), "{error}");
}

#[test]
fn faults_of_combinations_come_together() {
    let x = drawn(&[(3, 4), (2, 2)], 2, 1.0, 0);
    let y = drawn(&[(4, 3), (2, 2)], 1, 1.0, 0);
    let faults = |adapters: &[(&FactorSet, f64)], combination: Combination| match combine(
        adapters,
        &combination,
    ) {
        Err(AdapterError::Factors { faults, .. }) => faults,
        other => panic!("{other:?}"),
    };
    let both = [(&x, 1.0), (&y, 1.0)];
    let found = faults(&both, Combination::new(CombinationMethod::Linear));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("[3, 4] and [4, 3]") && found[1].contains("ranks 2 and 1"));
    let wrong = Combination {
        rank: Some(0),
        clamp: Some(2.0),
        ..Combination::new(CombinationMethod::Ties)
    };
    let found = faults(&[(&x, f64::NAN)], wrong);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("ties needs a density"));
    assert_eq!(
        faults(
            &[],
            Combination::new(CombinationMethod::Cat).with_density(0.5)
        )
        .len(),
        2
    );
    assert_eq!(
        faults(
            &both,
            Combination::new(CombinationMethod::Ties).with_density(1.5)
        )
        .len(),
        1
    );
    for method in CombinationMethod::ALL {
        assert_eq!(CombinationMethod::parse(method.word()).unwrap(), method);
    }
    let error = CombinationMethod::parse("tie").unwrap_err().to_string();
    assert!(error.contains("did you mean \"ties\"?"), "{error}");

    let pair = |path: &str, tuned: Matrix| {
        Ok(NamedPair {
            path: path.into(),
            base: Matrix::zeros(2, 3),
            tuned,
        })
    };
    let nan = Matrix::from_fn(2, 3, |_, _| f64::NAN);
    let pairs = [pair("a", Matrix::zeros(3, 2)), pair("b", nan)];
    let error = extract(pairs, ExtractRank::Fixed(1), |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a is [2, 3] in the base and [3, 2]")
            && error.contains("b: the matrix holds NaN"),
        "{error}"
    );
    assert!(extract([], ExtractRank::Fixed(0), |_, _, _| {}).is_err());
}

#[test]
fn a_folder_brings_back_ranks_and_scales() {
    let golden = Golden::read();
    let device = Device::flex();
    let x = golden.tensor("x", &device);
    let mut set = golden_adapter(&golden, "x", 3.0);
    set.layers.insert(
        "second".to_string(),
        golden_adapter(&golden, "z", 2.5).layers["second"].clone(),
    );
    let expected = host(
        set.attach(golden.model(&device), "a")
            .unwrap()
            .forward(x.clone()),
    );
    let folder = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata::default();
    for (set, name) in [(set.clone(), "own"), (set.portable(), "portable")] {
        let folder = folder.path().join(name);
        set.save(&folder, &metadata, None).unwrap();
        assert_eq!(FactorSet::load(&folder).unwrap().config(), set.config());
        let (module, config) = peft::load(golden.model(&device), "b", &folder).unwrap();
        let output = host(module.forward(x.clone()));
        assert_near(&output, &expected, 1e-5 * expected.norm(), name);
        // And as the module's own writer has it.
        peft::save(&module, "b", &config, &metadata, &folder.join("again")).unwrap();
        let again = FactorSet::load(&folder.join("again")).unwrap();
        for layer in LAYERS {
            assert_near(
                &again.layers[layer].delta(),
                &set.layers[layer].delta(),
                1e-5,
                layer,
            );
        }
        // For PEFT to read, by `factors.py --check`.
        if let Some(out) = std::env::var_os("BURN_LORA_EXPORT_FACTORS") {
            let out = Path::new(&out).join(name);
            // Two layers are no language model.
            let metadata = PeftMetadata {
                task_type: Some("FEATURE_EXTRACTION".to_string()),
                ..PeftMetadata::default()
            };
            set.save(&out, &metadata, None).unwrap();
            write(&out.join("output.safetensors"), &[("output", output)]);
        }
        let merged = merge_and_unload(module).unwrap();
        assert_near(
            &host(merged.forward(x.clone())),
            &expected,
            1e-4 * expected.norm(),
            "merged",
        );
    }
    let text = std::fs::read_to_string(folder.path().join("portable/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&4.into(), &4.into())
    );
    assert_eq!(config["init_lora_weights"], true);
    assert_eq!(config["rank_pattern"], serde_json::json!({}));

    let mut stray = set.clone();
    stray
        .layers
        .insert("third".to_string(), set.layers["first"].clone());
    stray
        .layers
        .insert("first".to_string(), set.layers["second"].clone());
    let error = stray
        .attach(golden.model(&device), "a")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no layer third")
            && error.contains("first is [14, 9], the model's is [10, 14]"),
        "{error}"
    );
    let taken = set.attach(set.attach(golden.model(&device), "a").unwrap(), "a");
    assert!(matches!(taken, Err(AdapterError::DuplicateName { .. })));
}

fn write(path: &Path, tensors: &[(&str, Matrix)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, matrix)| {
            matrix
                .to_f32()
                .into_iter()
                .flat_map(f32::to_le_bytes)
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((key, matrix), bytes)| {
        (
            *key,
            TensorView::new(Dtype::F32, matrix.shape().to_vec(), bytes).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn adapters_of_mlx_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut normal = Normal::new(0, 0);
    let (a, b) = (normal.matrix(6, 2), normal.matrix(2, 5));
    let weights = folder.join("adapters.safetensors");
    let path = "model.layers.3.self_attn.q_proj";
    write(
        &weights,
        &[
            (&format!("{path}.lora_a"), a.clone()),
            (&format!("{path}.lora_b"), b.clone()),
        ],
    );
    let config = |text: &str| std::fs::write(folder.join("adapter_config.json"), text).unwrap();
    config(
        r#"{"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": {"rank": 2, "dropout": 0.0, "scale": 20.0}}"#,
    );
    let read = read_mlx(folder).unwrap();
    assert_near(
        &read.layers[path].delta(),
        &(&a * &b).scaled(20.0),
        1e-4,
        "delta",
    );

    config(r#"{"lora_parameters": {"rank": 3, "scale": 1}}"#);
    let error = read_mlx(folder).unwrap_err().to_string();
    assert!(
        error.contains("q_proj has rank 2, lora_parameters says 3"),
        "{error}"
    );
    config(r#"{"fine_tune_type": "dora", "lora_parameters": {}}"#);
    assert!(matches!(
        read_mlx(folder),
        Err(AdapterError::Unsupported { .. })
    ));
    config(r#"{"lora_parameters": {}}"#);
    let error = read_mlx(folder).unwrap_err().to_string();
    assert!(
        error.contains("for scale") && error.contains("for rank"),
        "{error}"
    );
    config("{");
    assert!(matches!(
        read_mlx(folder),
        Err(AdapterError::ConfigFile { .. })
    ));
    config(r#"{"lora_parameters": {"rank": 2, "scale": 1}}"#);
    let nan = Matrix::from_fn(6, 2, |_, _| f64::NAN);
    write(
        &weights,
        &[
            ("x.lora_a", a.clone()),
            ("y.lora_a", nan),
            ("y.lora_b", b.clone()),
            ("y.m", b.clone()),
            ("z.lora_a", a),
            ("z.lora_b", b.transpose()),
        ],
    );
    match read_mlx(folder) {
        Err(AdapterError::Tensors { faults, .. }) => assert_eq!(faults.len(), 4, "{faults:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn state_dictionaries_of_loralib_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lora.safetensors");
    let mut normal = Normal::new(3, 0);
    // q and v of a fused projection of 4 -> 3 x 5, rank 2; a plain layer beside it.
    let (a, b) = (normal.matrix(4, 4), normal.matrix(10, 2));
    let (plain_a, plain_b) = (normal.matrix(3, 4), normal.matrix(6, 3));
    write(
        &file,
        &[
            ("h.0.attn.c_attn.lora_A", a.clone()),
            ("h.0.attn.c_attn.lora_B", b.clone()),
            ("h.0.mlp.c_fc.lora_A", plain_a.clone()),
            ("h.0.mlp.c_fc.lora_B", plain_b.clone()),
            ("h.0.mlp.c_fc.weight", plain_b.clone()),
        ],
    );
    let options = LoralibOptions::new(8.0)
        .with_merged("c_attn", &[true, false, true])
        .with_prefix("transformer.");
    let read = read_loralib(&file, &options).unwrap();
    assert_eq!(read.layers.len(), 2);
    let plain = read.layers["transformer.h.0.mlp.c_fc"].delta();
    assert_near(
        &plain,
        &(&plain_b * &plain_a).transpose().scaled(8.0 / 3.0),
        1e-5,
        "plain",
    );
    let fused = read.layers["transformer.h.0.attn.c_attn"].delta();
    let group = |index: usize| {
        let (a, b) = (
            a.row_range(2 * index..2 * index + 2),
            b.row_range(5 * index..5 * index + 5),
        );
        (&b * &a).transpose().scaled(4.0)
    };
    let expected = group(0).beside(&Matrix::zeros(4, 5)).beside(&group(1));
    assert_near(&fused, &expected, 1e-5, "fused");

    let error = read_loralib(&file, &LoralibOptions::new(0.0))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("lora_alpha is 0")
            && error.contains("c_attn: lora_A is [4, 4] and lora_B [10, 2]"),
        "{error}"
    );
    write(&file, &[("x.weight", a)]);
    assert!(read_loralib(&file, &options).is_err());
}
