//! Factors that start from weights, activations and gradients, beside PEFT's.

#![allow(clippy::unwrap_used)]

mod common;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_adapter::{
    AdapterError, AdapterStack, CordaMethod, Direction, Eva, Evidence, FactorSet, GradientScale,
    Initialization, Initialized, LoftQ, LoraConfig, LoraGa, LoraInit, Needs, Observer, Quantizer,
    Targets, attach, attach_initialized, merge_and_unload, peft, set_enabled, to_plain,
    weight_gradients,
};
use burn_lora_linalg::{Matrix, svd};

use common::{Golden, LAYERS, Two, assert_near, distance, host};

fn config(rank: usize) -> LoraConfig {
    LoraConfig::new(rank, 12.0).with_targets(Targets::names(LAYERS))
}

fn observed(golden: &Golden, model: &Two, config: &LoraConfig, how: &Initialization) -> Evidence {
    let x = golden.tensor("x", &Device::flex());
    let mut observer = Observer::new(model, config, how).unwrap();
    let batches = match how {
        Initialization::Corda(_) => x.split(8, 0),
        _ => vec![x],
    };
    for batch in batches {
        observer.watch(None, || model.forward(batch));
    }
    observer.finish().unwrap()
}

fn gradients(golden: &Golden, config: &LoraConfig) -> Evidence {
    let device = Device::flex().autodiff();
    let model = golden.model(&device);
    let rows = |key| golden.tensor(key, &device).narrow(0, 0, 4);
    let loss = |model: &Two, _| {
        let error = model.forward(rows("x")) - rows("target");
        (error.clone() * error).mean()
    };
    weight_gradients(&model, config, 1, loss).unwrap()
}

fn started(golden: &Golden, config: &LoraConfig, how: &Initialization) -> Initialized<Two> {
    let model = golden.model(&Device::flex());
    let evidence = match how.needs() {
        Needs::Weights => Evidence::default(),
        Needs::Inputs => observed(golden, &model, config, how),
        Needs::Gradients => gradients(golden, config),
    };
    attach_initialized(model, "default", config, how, &evidence).unwrap()
}

fn base(model: &Two, layer: &str) -> Matrix {
    host(model.layer(layer).weight.base())
}

fn cases() -> Vec<(&'static str, Initialization)> {
    vec![
        ("pissa", Initialization::Pissa { iterations: None }),
        (
            "pissa_niter_30",
            Initialization::Pissa {
                iterations: Some(30),
            },
        ),
        ("olora", Initialization::Olora),
        (
            "corda_ipm",
            Initialization::Corda(CordaMethod::InstructionPreviewed),
        ),
        (
            "corda_kpm",
            Initialization::Corda(CordaMethod::KnowledgePreserved),
        ),
    ]
}

#[test]
fn products_and_bases_are_those_of_peft() {
    let golden = Golden::read();
    for (case, how) in cases() {
        let started = started(&golden, &config(4), &how);
        let found = FactorSet::of(&started.module, "default").unwrap();
        for layer in LAYERS {
            let (delta, left) = (
                format!("{case}.{layer}.delta"),
                format!("{case}.{layer}.base"),
            );
            let tolerance = match how {
                // It inverts, in f32 there, a covariance whose directions differ a thousandfold.
                Initialization::Corda(_) => 2e-4,
                // PEFT's sketch is no wider than what is wanted of it, so that much is left to its power iterations.
                Initialization::Pissa {
                    iterations: Some(_),
                } => 5e-4,
                _ => 1e-5,
            };
            assert_near(
                &found.layers[layer].delta(),
                &golden.matrix(&delta),
                tolerance,
                &delta,
            );
            assert_near(
                &base(&started.module, layer),
                &golden.matrix(&left),
                tolerance,
                &left,
            );
        }
    }
}

#[test]
fn the_factors_of_lora_ga_are_those_of_peft_up_to_signs() {
    let golden = Golden::read();
    for (direction, scale) in [
        (Direction::ArB2r, GradientScale::Stable { gamma: 16.0 }),
        (Direction::ArBr, GradientScale::WeightSvd),
        (Direction::A2rBr, GradientScale::GradientDescent),
    ] {
        let how = Initialization::LoraGa(LoraGa { direction, scale });
        let started = started(&golden, &config(2), &how);
        for layer in LAYERS {
            let found = &started.initial.layers[layer];
            let key = format!("lora_ga_{direction:?}.{layer}");
            let expected = golden.matrix(&format!("{key}.a"));
            assert_near(&found.a.map(f64::abs), &expected, 1e-4, &key);
            let expected = golden.matrix(&format!("{key}.b"));
            // `weight_svd` divides by a sketch's singular value.
            assert_near(
                &found.b.map(f64::abs),
                &expected,
                1e-3 * expected.norm(),
                &key,
            );
        }
    }
}

#[test]
fn the_components_and_ranks_of_eva_are_those_of_peft() {
    let golden = Golden::read();
    for rho in [1.0, 2.0] {
        let eva = Eva {
            rho,
            ..Eva::default()
        };
        let started = started(&golden, &config(3), &Initialization::Eva(eva));
        let found = FactorSet::of(&started.module, "default").unwrap();
        for layer in LAYERS {
            let factors = &found.layers[layer];
            let span = &factors.a * &factors.a.transpose();
            let key = format!("eva_{rho}.{layer}");
            assert_near(&span, &golden.matrix(&format!("{key}.span")), 1e-3, &key);
            let scale = f64::from(golden.numbers(&format!("{key}.scale"))[0]);
            assert!(
                (factors.scale - scale).abs() < 1e-6,
                "{} {scale}",
                factors.scale
            );
        }
        let ranks: usize = found.layers.values().map(|factors| factors.rank()).sum();
        assert_eq!(ranks, 6, "the budget is kept");
        // The configuration describes what is there.
        let again = observed(
            &golden,
            &golden.model(&Device::flex()),
            &started.config,
            &Initialization::Eva(eva),
        );
        assert!(
            attach_initialized(
                golden.model(&Device::flex()),
                "x",
                &started.config,
                &Initialization::Eva(Eva { rho: 1.0, ..eva }),
                &again
            )
            .is_ok()
        );
    }
}

fn every() -> Vec<Initialization> {
    let mut every: Vec<Initialization> = cases().into_iter().map(|(_, how)| how).collect();
    every.extend([
        Initialization::Orthogonal,
        Initialization::Eva(Eva::default()),
        Initialization::LoraGa(LoraGa::default()),
    ]);
    every
}

#[test]
fn the_model_computes_what_it_did() {
    let golden = Golden::read();
    let x = golden.tensor("x", &Device::flex());
    let before = host(golden.model(&Device::flex()).forward(x.clone()));
    for how in every() {
        let started = started(&golden, &config(2), &how);
        let after = host(started.module.forward(x.clone()));
        assert_near(&after, &before, 1e-5, &how.word().to_string());
        let base = host(
            set_enabled(started.module, false)
                .unwrap()
                .forward(x.clone()),
        );
        assert_eq!(
            distance(&base, &before) > 1e-3,
            how.changes_base(),
            "{}",
            how.word()
        );
    }
}

#[test]
fn converted_to_plain_lora_the_output_is_the_same() {
    let golden = Golden::read();
    let device = Device::flex();
    let x = golden.tensor("x", &device);
    for how in every().into_iter().filter(Initialization::changes_base) {
        for rslora in [false, true] {
            let config = config(2).with_rslora(rslora);
            let started = started(&golden, &config, &how);
            let mut trained = FactorSet::of(&started.module, "default").unwrap();
            for factors in trained.layers.values_mut() {
                factors.a = factors.a.map(|value| f64::from((value * 1.5 + 0.1) as f32));
                factors.b = factors.b.map(|value| f64::from((value * 0.5 - 0.1) as f32));
            }
            // The trained adapter over the base that the initialization left.
            let left = merge_and_unload(set_enabled(started.module, false).unwrap()).unwrap();
            let expected = host(trained.attach(left, "t").unwrap().forward(x.clone()));
            let plain = to_plain(&trained, &started.initial).unwrap();
            assert!(plain.layers.values().all(|factors| factors.rank() == 4));
            let module = plain.attach(golden.model(&device), "p").unwrap();
            assert_near(
                &host(module.forward(x.clone())),
                &expected,
                1e-5 * expected.norm().max(1.0),
                &how.word().to_string(),
            );
            // And by a folder.
            let folder = tempfile::tempdir().unwrap();
            plain
                .save(folder.path(), &Default::default(), None)
                .unwrap();
            let (module, _) =
                burn_lora_adapter::peft::load(golden.model(&device), "f", folder.path()).unwrap();
            assert_near(
                &host(module.forward(x.clone())),
                &expected,
                1e-5 * expected.norm().max(1.0),
                "folder",
            );
        }
    }
}

#[test]
fn loftq_is_nearer_to_the_weight_than_its_quantization() {
    let golden = Golden::read();
    for quantizer in [Quantizer::Nf4, Quantizer::Int8] {
        let mut before = f64::INFINITY;
        for iterations in [1, 5] {
            let how = Initialization::LoftQ(LoftQ {
                quantizer,
                iterations,
            });
            let started = started(&golden, &config(3), &how);
            let error: f64 = LAYERS
                .map(|layer| {
                    let weight = golden.matrix(&format!("model.{layer}.weight")).transpose();
                    let base = base(&started.module, layer);
                    // The base holds nothing but what the format can.
                    assert_near(&quantizer.rounded(&base), &base, 1e-6, "quantized");
                    let plain = (&weight - &quantizer.rounded(&weight)).norm();
                    let left = &base + &started.initial.layers[layer].delta();
                    let error = (&weight - &left).norm();
                    assert!(error < plain, "{layer}: {error} {plain}");
                    error
                })
                .iter()
                .sum();
            assert!(error < 1.02 * before, "{error} after {before}");
            before = error;
        }
    }
}

#[test]
fn quantizers_know_their_levels() {
    let row = Matrix::from_fn(16, 1, |row, _| -3.0 + row as f64 * 0.4);
    let int8 = Quantizer::Int8.rounded(&row);
    assert_near(&int8, &row, 3.0 / 254.0 + 1e-12, "half a step");
    let nf4 = Quantizer::Nf4.rounded(&row);
    assert!(distance(&nf4, &row) <= 3.0 * 0.152, "half the widest gap");
    assert_eq!(nf4.get(0, 0), -3.0);
    let zeros = Matrix::zeros(3, 5);
    assert_eq!(Quantizer::Nf4.rounded(&zeros), zeros);
    // Blocks of 64 run over the columns of the weight, as PyTorch stores it.
    let long = Matrix::from_fn(
        64,
        2,
        |row, column| if row == 0 { [1.0, 100.0][column] } else { 0.5 },
    );
    let rounded = Quantizer::Nf4.rounded(&long);
    assert!((rounded.get(5, 0) - 0.5).abs() < 0.07);
    assert_eq!(rounded.get(5, 1), 0.0);
}

#[test]
fn orthogonal_factors_have_the_variance_of_their_design() {
    let golden = Golden::read();
    let started = started(&golden, &config(4), &Initialization::Orthogonal);
    for factors in started.initial.layers.values() {
        assert!(factors.delta().norm() < 1e-5);
        assert!(factors.a.norm() > 0.1 && factors.b.norm() > 0.1);
    }
    let again = self::started(&golden, &config(4), &Initialization::Orthogonal);
    assert_eq!(
        started.initial, again.initial,
        "the same seed gives the same factors"
    );
    let other = self::started(
        &golden,
        &config(4).with_seed(1),
        &Initialization::Orthogonal,
    );
    assert_ne!(started.initial, other.initial);
}

#[test]
fn marked_rows_alone_count() {
    let golden = Golden::read();
    let model = golden.model(&Device::flex());
    let how = Initialization::Eva(Eva::default());
    let x = golden.tensor("x", &Device::flex());
    let mask: Vec<bool> = (0..48).map(|row| row % 3 != 0).collect();
    let mut masked = Observer::new(&model, &config(2), &how).unwrap();
    masked.watch(Some(&mask), || model.forward(x.clone()));
    let kept: Vec<Tensor<2>> = (0..48)
        .filter(|row| mask[*row])
        .map(|row| x.clone().narrow(0, row, 1))
        .collect();
    let mut alone = Observer::new(&model, &config(2), &how).unwrap();
    alone.watch(None, || model.forward(Tensor::cat(kept, 0)));
    let both = [masked, alone].map(|observer| {
        let evidence = observer.finish().unwrap();
        attach_initialized(model.clone(), "e", &config(2), &how, &evidence)
            .unwrap()
            .initial
    });
    for layer in LAYERS {
        assert_near(
            &both[0].layers[layer].a,
            &both[1].layers[layer].a,
            1e-5,
            layer,
        );
    }
    let mut wrong = Observer::new(&model, &config(2), &how).unwrap();
    wrong.watch(Some(&[true; 5]), || model.forward(x));
    let error = wrong.finish().unwrap_err().to_string();
    assert!(
        error.contains("first has 48 inputs, of which 5 are marked"),
        "{error}"
    );
}

fn faults(result: Result<Initialized<Two>, AdapterError>) -> Vec<String> {
    match result.unwrap_err() {
        AdapterError::Factors { faults, .. } => faults,
        other => panic!("{other}"),
    }
}

#[test]
fn every_fault_is_named_and_nothing_is_changed() {
    let golden = Golden::read();
    let device = Device::flex();
    let model = golden.model(&device);
    let attach = |model: Two, config: &LoraConfig, how: &Initialization| {
        attach_initialized(model, "default", config, how, &Evidence::default())
    };
    for how in [
        Initialization::Eva(Eva::default()),
        Initialization::Corda(CordaMethod::default()),
        Initialization::LoraGa(LoraGa::default()),
    ] {
        let faults = faults(attach(model.clone(), &config(2), &how));
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
    let odd = faults(attach(
        model.clone(),
        &config(3),
        &Initialization::Orthogonal,
    ));
    assert_eq!(odd.len(), 2);
    assert!(odd[0].contains("rank 3"), "{odd:?}");
    let many = faults(attach(
        model.clone(),
        &config(6),
        &Initialization::LoraGa(LoraGa::default()),
    ));
    assert!(many[0].contains("twice as many"), "{many:?}");
    let never = Initialization::LoftQ(LoftQ {
        iterations: 0,
        quantizer: Quantizer::Nf4,
    });
    assert_eq!(faults(attach(model.clone(), &config(2), &never)).len(), 1);

    let mut damaged = model.clone();
    damaged.first.weight = damaged
        .first
        .weight
        .map(|weight| weight.mul_scalar(f32::NAN));
    let pissa = Initialization::Pissa { iterations: None };
    let nan = faults(attach(damaged, &config(2), &pissa));
    assert_eq!(nan, ["first: the matrix holds NaN or infinity"]);

    let twice = attach(model.clone(), &config(2), &pissa).unwrap().module;
    let again = attach_initialized(twice, "second", &config(2), &pissa, &Evidence::default());
    assert!(faults(again)[0].contains("another adapter"));

    let unseen = Observer::new(&model, &config(2), &Initialization::Eva(Eva::default())).unwrap();
    let error = unseen.finish().unwrap_err().to_string();
    assert!(error.contains("first had no input") && error.contains("second had no input"));
    assert!(Observer::new(&model, &config(2), &pissa).is_err());
    let no_autodiff = weight_gradients(&model, &config(2), 0, |_, _| unreachable!());
    let error = no_autodiff.unwrap_err().to_string();
    assert!(
        error.contains("without autodiff") && error.contains("no batch"),
        "{error}"
    );
}

#[test]
fn a_bf16_base_keeps_its_dtype() {
    let golden = Golden::read();
    let mut model = golden.model(&Device::flex());
    model.first.weight = model.first.weight.map(|weight| weight.cast(DType::BF16));
    let config = config(2).with_targets(Targets::names(["first"]));
    let pissa = Initialization::Pissa { iterations: None };
    let before = host(model.first.weight.val().cast(DType::F32));
    let started = attach_initialized(model, "p", &config, &pissa, &Evidence::default()).unwrap();
    assert_eq!(started.module.first.weight.base().dtype(), DType::BF16);
    let after = host(started.module.first.weight.val().cast(DType::F32));
    assert_near(&after, &before, 0.01, "bf16");
}

#[test]
fn a_saved_adapter_is_plain_and_means_the_same_over_the_base_as_it_was() {
    let golden = Golden::read();
    let device = Device::flex();
    let x = golden.tensor("x", &device);
    for how in every() {
        // The layers have 9 and 10 directions at least; twice a rank of 5 is more than 9.
        let ranks: &[usize] = match how {
            Initialization::LoraGa(_) => &[2, 4],
            Initialization::Orthogonal => &[2, 6],
            _ => &[2, 5],
        };
        for (rank, rslora) in ranks.iter().zip([false, true]) {
            let config = config(*rank).with_rslora(rslora);
            let started = started(&golden, &config, &how);
            let mut module = started.module;
            for layer in [&mut module.first, &mut module.second] {
                let nudge = |tensor: Tensor<2>| tensor.mul_scalar(1.3).add_scalar(0.01);
                let stack = layer.weight.reparameterization::<AdapterStack>().unwrap();
                let lora = stack.get("default").unwrap();
                let (a, b) = (nudge(lora.a.val()), nudge(lora.b.val()));
                let id = [lora.a.id, lora.b.id];
                let mut set = Set { id, to: [a, b] };
                *layer = layer.clone().map(&mut set);
            }
            let expected = host(module.forward(x.clone()));
            let folder = tempfile::tempdir().unwrap();
            let metadata = Default::default();
            peft::save(
                &module,
                "default",
                &started.config,
                &metadata,
                folder.path(),
            )
            .unwrap();
            let (loaded, read) =
                peft::load(golden.model(&device), "default", folder.path()).unwrap();
            let word = how.word();
            let actual = host(loaded.forward(x.clone()));
            assert_near(
                &actual,
                &expected,
                2e-5 * expected.norm(),
                &word.to_string(),
            );
            let grows = how.changes_base();
            assert_eq!(read.rank, if grows { 2 * rank } else { *rank }, "{word}");
            // And again, with the configuration that was read.
            peft::save(&loaded, "default", &read, &metadata, folder.path()).unwrap();
            let text = std::fs::read_to_string(folder.path().join(peft::CONFIG_FILE)).unwrap();
            assert!(text.contains("\"init_lora_weights\": true"), "{text}");
        }
    }
}

/// Puts values into two parameters.
struct Set {
    id: [ParamId; 2],
    to: [Tensor<2>; 2],
}

impl ModuleMapper for Set {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.id.iter().position(|id| *id == param.id) {
            Some(place) => {
                let to = self.to[place].clone();
                param.map(|old| to.reshape(old.shape()))
            }
            None => param,
        }
    }
}

#[test]
fn a_word_in_the_configuration_is_enough_where_the_weights_are() {
    let golden = Golden::read();
    let device = Device::flex();
    let x = golden.tensor("x", &device);
    let before = host(golden.model(&device).forward(x.clone()));
    for word in ["orthogonal", "pissa", "pissa_niter_4", "olora", "loftq"] {
        let config = config(2).with_init(word.parse().unwrap());
        let module = attach(golden.model(&device), "default", &config).unwrap();
        let after = host(module.forward(x.clone()));
        let allowed = if word == "loftq" {
            0.1 * before.norm()
        } else {
            1e-5
        };
        assert_near(&after, &before, allowed, word);
        let factors = FactorSet::of(&module, "default").unwrap();
        assert!(factors.layers["first"].b.norm() > 0.0, "{word}");
    }
    for word in ["eva", "corda", "lora_ga"] {
        let config = config(2).with_init(word.parse().unwrap());
        let error = attach(golden.model(&device), "default", &config).unwrap_err();
        assert!(error.to_string().contains("looks at data"), "{error}");
    }
    let error = "pisa".parse::<LoraInit>().unwrap_err().to_string();
    assert!(error.contains("did you mean \"pissa\"?"), "{error}");
    assert_eq!(
        "default".parse::<LoraInit>().unwrap(),
        LoraInit::KaimingUniform
    );
}

#[test]
fn settings_go_by_pefts_keys() {
    let with = |word: &str, options: serde_json::Value| {
        let initialization = Initialization::parse(word).unwrap();
        initialization.with_options(options.as_object().unwrap())
    };
    assert_eq!(
        with("eva", serde_json::json!({"rho": 1, "whiten": true})),
        Ok(Initialization::Eva(Eva {
            rho: 1.0,
            whiten: true,
            ..Eva::default()
        }))
    );
    assert_eq!(
        with("corda", serde_json::json!({"corda_method": "kpm"})),
        Ok(Initialization::Corda(CordaMethod::KnowledgePreserved))
    );
    assert_eq!(
        with(
            "loftq",
            serde_json::json!({"loftq_bits": 8, "loftq_iter": 3})
        ),
        Ok(Initialization::LoftQ(LoftQ {
            quantizer: Quantizer::Int8,
            iterations: 3
        }))
    );
    let options = serde_json::json!({"direction": "random", "scale": "unit", "stable_gamma": 8});
    assert_eq!(
        with("lora_ga", options),
        Ok(Initialization::LoraGa(LoraGa {
            direction: Direction::Random,
            scale: GradientScale::Unit
        }))
    );
    let options = serde_json::json!({"stable_gamma": 8});
    assert_eq!(
        with("lora_ga", options),
        Ok(Initialization::LoraGa(LoraGa {
            scale: GradientScale::Stable { gamma: 8.0 },
            ..LoraGa::default()
        }))
    );
    let faults = with(
        "lora_ga",
        serde_json::json!({"scale": 3, "dircetion": "ArBr"}),
    )
    .unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].starts_with("scale is 3, not stable"),
        "{faults:?}"
    );
    assert!(faults[1].ends_with("did you mean direction?"), "{faults:?}");
    let faults = with("pissa", serde_json::json!({"rho": 3})).unwrap_err();
    assert!(faults[0].contains("which has none"), "{faults:?}");
}

#[test]
fn lora_ga_at_random_takes_the_same_vectors_for_both_factors() {
    let golden = Golden::read();
    let how = Initialization::LoraGa(LoraGa {
        direction: Direction::Random,
        scale: GradientScale::Unit,
    });
    let evidence = gradients(&golden, &config(2));
    let model = golden.model(&Device::flex());
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..6 {
        let config = config(2).with_seed(seed);
        let started = attach_initialized(model.clone(), "x", &config, &how, &evidence).unwrap();
        for layer in LAYERS {
            let factors = &started.initial.layers[layer];
            // Of the gradient `U S V^T`, `A B` has whole components: applied to B's rows, A's columns are orthonormal, and the
            // singular values of the product are some of the gradient's.
            let found = svd(&(&factors.a * &factors.b)).unwrap();
            let all = svd(&golden_gradient(&golden, layer)).unwrap();
            for value in &found.s[..2] {
                let near = all.s[..4]
                    .iter()
                    .any(|s| (s - value).abs() < 1e-4 * all.s[0]);
                assert!(near, "{layer}: {value} is none of {:?}", &all.s[..4]);
            }
            let place = |value: f64| {
                all.s
                    .iter()
                    .position(|s| (s - value).abs() < 1e-4 * all.s[0])
            };
            seen.insert((layer, place(found.s[0]), place(found.s[1])));
        }
    }
    assert!(seen.len() > 2, "the seed chooses: {seen:?}");
}

/// The gradient that [`gradients`] has seen, computed anew.
fn golden_gradient(golden: &Golden, layer: &str) -> Matrix {
    let device = Device::flex().autodiff();
    let model = golden.model(&device);
    let rows = |key| golden.tensor(key, &device).narrow(0, 0, 4);
    let error = model.forward(rows("x")) - rows("target");
    let gradients = (error.clone() * error).mean().backward();
    host(model.layer(layer).weight.val().grad(&gradients).unwrap())
}

#[test]
fn words_are_pefts() {
    for how in every() {
        let word = how.word();
        let parsed = Initialization::parse(word.as_str().unwrap()).unwrap();
        assert_eq!(parsed.word(), word);
    }
    for word in ["gaussian", "pissa_niter_", "pissa_niter_x", "nonsense"] {
        assert_eq!(Initialization::parse(word), None, "{word}");
    }
}
