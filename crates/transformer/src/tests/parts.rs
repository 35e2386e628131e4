//! Methods beside the weights, whichever they are, on models of every kind.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn_lora_adapter::peft::{PeftMetadata, save};
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, attach, freeze};
use serde_json::{Map, json};

use super::encoder_families::encoders;
use super::*;
use crate::{
    AdapterKind, BottleneckConfig, BottleneckPlacement, Encoder, MaskedLm, PartConfig, PartError,
    PromptEncoderKind, PromptInit, SequenceClassifier, T5, VirtualTokensConfig, WithBottlenecks,
    WithParts, WithVirtualTokens as _, adapter_folders, inspect_part,
};

fn parts() -> Vec<PartConfig> {
    let tokens = 3;
    let mut parts: Vec<PartConfig> = [
        VirtualTokensConfig::Prompt {
            tokens,
            init: PromptInit::Random,
        },
        VirtualTokensConfig::PTuning {
            tokens,
            encoder: PromptEncoderKind::Mlp,
            d_hidden: 5,
        },
        VirtualTokensConfig::PTuning {
            tokens,
            encoder: PromptEncoderKind::Lstm { layers: 3 },
            d_hidden: 5,
        },
        VirtualTokensConfig::Prefix {
            tokens,
            projection: None,
        },
        VirtualTokensConfig::Prefix {
            tokens,
            projection: Some(6),
        },
    ]
    .map(PartConfig::VirtualTokens)
    .into();
    for placement in [
        BottleneckPlacement::Houlsby,
        BottleneckPlacement::Pfeiffer,
        BottleneckPlacement::Parallel,
    ] {
        parts.push(PartConfig::Bottleneck(BottleneckConfig::new(5, placement)));
    }
    parts
}

#[derive(Default)]
struct Trainable(usize);

impl ModuleVisitor for Trainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.clone().train().is_require_grad() {
            self.0 += param.lazy_shape().num_elements();
        }
    }
}

/// What is counted of a model without values is what the model then has, and what its file takes.
fn check<M: WithParts>(name: &str, outline: &M, model: &M) {
    let dir = tempfile::tempdir().expect("a folder");
    for part in parts() {
        let what = format!("{name}, {part:?}");
        let counted = outline.outline_part(&part).expect(&what);
        let with = model.clone().with_part(&part, 3).expect(&what);
        let mut trainable = Trainable::default();
        with.visit(&mut trainable);
        assert_eq!(counted.trained, trainable.0, "{what}");
        let folder = dir.path().join("saved");
        let bytes = with.save_part(&part, &folder, &Map::new()).expect(&what);
        assert_eq!(counted.file_bytes, bytes, "{what}");
        let report = inspect_part(&folder).expect(&what);
        assert_eq!(report.bytes, bytes, "{what}");
        assert_eq!(report.faults, [""; 0], "{what}");
        assert!(!model.has_adapters() && with.has_adapters(), "{what}");
        let loaded = model.clone().load_adapters(&folder).expect(&what);
        assert!(loaded.has_adapters(), "{what}");
    }
}

#[test]
fn what_is_counted_beforehand_is_what_there_will_be() {
    for (name, decoder) in decoders() {
        let outline = Decoder::outline(decoder.config()).expect(name);
        check(name, &outline, &decoder);
    }
    let device = Device::flex();
    for (name, config) in encoders() {
        let outline = Encoder::outline(config.clone()).expect(name);
        let encoder = Encoder::init(config.clone(), &device, 1).expect(name);
        check(name, &outline, &encoder);
        // With a head that a folder holds.
        let outline = SequenceClassifier::outline(config.clone()).expect(name);
        let model = SequenceClassifier::init(config, &device, 1).expect(name);
        check(name, &outline, &model);
    }
    for config in [super::t5::config(), super::t5::original()] {
        let outline = T5::outline(config.clone()).expect("valid");
        check("t5", &outline, &super::t5::model(config));
    }
}

#[test]
fn nothing_of_the_width_of_a_huge_model_is_made_to_count() {
    let shape = crate::Gpt3Shape::named("175B").expect("known");
    let outline = Decoder::outline(shape.config()).expect("valid");
    let config = BottleneckConfig::new(64, BottleneckPlacement::Houlsby);
    let counted = outline.outline_part(&PartConfig::Bottleneck(config));
    assert_eq!(
        counted.expect("counted").trained,
        config.num_parameters(12288, 96)
    );
    let prompt = PartConfig::VirtualTokens(VirtualTokensConfig::Prompt {
        tokens: 100,
        init: PromptInit::Random,
    });
    assert_eq!(
        outline.outline_part(&prompt).expect("counted").trained,
        100 * 12288
    );
}

#[test]
fn bottlenecks_that_are_there_do_not_count() {
    let (_, decoder) = decoders().remove(0);
    let other = BottleneckConfig::new(3, BottleneckPlacement::Houlsby);
    let with = decoder.clone().add_bottlenecks("other", &other, 1);
    let with = with.expect("a new name");
    let part = PartConfig::Bottleneck(BottleneckConfig::new(5, BottleneckPlacement::Pfeiffer));
    let counted = |model: &Decoder| model.outline_part(&part).expect("counted");
    assert_eq!(counted(&with), counted(&decoder));
}

#[test]
fn faults_are_told_of_a_model_without_values() {
    let (_, decoder) = decoders().remove(0);
    let outline = Decoder::outline(decoder.config()).expect("valid");
    let wide = BottleneckConfig::new(1000, BottleneckPlacement::Pfeiffer);
    let error = outline.outline_part(&PartConfig::Bottleneck(wide));
    let error = error.expect_err("too wide");
    assert!(error.is_of_settings(), "{error}");
    assert!(error.to_string().contains("exceeds"), "{error}");
    let many = PartConfig::VirtualTokens(VirtualTokensConfig::Prefix {
        tokens: 1 << 20,
        projection: None,
    });
    let error = outline.outline_part(&many).expect_err("too many");
    assert!(error.to_string().contains("leave no room"), "{error}");
}

#[test]
fn a_head_beside_them_is_opened_saved_and_loaded() {
    let (name, config) = encoders().remove(0);
    let model = MaskedLm::init(config, &Device::flex(), 1).expect(name);
    let names = ["cls".to_string()];
    let mut all = Trainable::default();
    model.visit(&mut all);
    assert_eq!(all.0, 0, "a base is frozen");
    let open = freeze(model.clone(), &names);
    let mut head = Trainable::default();
    open.visit(&mut head);
    assert!(head.0 > 0);
    let dir = tempfile::tempdir().expect("a folder");
    for part in parts() {
        let with = open.clone().with_part(&part, 3).expect(name);
        let fields = [
            ("modules_to_save", json!(names)),
            ("task_type", json!("FEATURE_EXTRACTION")),
        ];
        let fields = fields.map(|(field, value)| (field.to_string(), value));
        let folder = dir.path().join("saved");
        with.save_part(&part, &folder, &fields.into_iter().collect())
            .expect(name);
        let [read] = adapter_folders(&folder)
            .expect("one")
            .try_into()
            .expect("one");
        assert_eq!(read.modules_to_save, names);
        assert_eq!(read.task_type.as_deref(), Some("FEATURE_EXTRACTION"));
        let report = inspect_part(&folder).expect("written");
        let of_head = report.tensors.iter();
        let of_head = of_head.filter(|tensor| tensor.name.contains("cls."));
        let numbers: usize = of_head
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum();
        assert_eq!(numbers, head.0, "{part:?}");
    }
}

fn write(model: &Decoder, parts: &[(&str, PartConfig)], dir: &Path) {
    for (place, part) in parts {
        let model = model.clone().with_part(part, 3).expect("valid");
        model
            .save_part(part, &dir.join(place), &Map::new())
            .expect("written");
    }
}

#[test]
fn a_folder_holds_one_adapter_or_one_of_each_kind() {
    let (name, base) = decoders().remove(0);
    let dir = tempfile::tempdir().expect("a folder");
    let parts = parts();
    let lora = LoraConfig::new(2, 4.0);
    let adapted = attach(base.clone(), DEFAULT_NAME, &lora).expect(name);
    let place = dir.path().join("lora");
    save(
        &adapted,
        DEFAULT_NAME,
        &lora,
        &PeftMetadata::default(),
        &place,
    )
    .expect("written");
    let both = [("a", parts[0].clone()), ("b", parts[5].clone())];
    write(&base, &both, dir.path());
    let kinds: Vec<AdapterKind> = adapter_folders(dir.path())
        .expect("three")
        .into_iter()
        .map(|folder| folder.kind)
        .collect();
    let expected = [
        AdapterKind::VirtualTokens,
        AdapterKind::Bottleneck,
        AdapterKind::Weights,
    ];
    assert_eq!(kinds, expected);
    let rows = || ids(&[&[1, 2, 3, 4]]);
    let loaded = base.clone().load_adapters(dir.path()).expect("they fit");
    assert!(loaded.virtual_tokens().is_some() && loaded.bottlenecks().is_some());
    let bare = loaded.without_adapters().expect("not merged");
    assert_eq!(
        bare.logits(rows()).into_data(),
        base.logits(rows()).into_data()
    );

    // Two of a kind, a folder of nothing, one that is not there, and a file that is damaged.
    write(&base, &[("c", parts[3].clone())], dir.path());
    let error = base.clone().load_adapters(dir.path()).expect_err("refused");
    assert!(
        error.to_string().contains("a, c are adapters of one kind"),
        "{error}"
    );
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("made");
    let error = adapter_folders(&empty).expect_err("nothing");
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
    let error = adapter_folders(&dir.path().join("none")).expect_err("nothing");
    assert!(matches!(error, PartError::Io { .. }), "{error}");
    fs::write(dir.path().join("a/adapter_config.json"), "{").expect("written");
    let error = adapter_folders(&dir.path().join("a")).expect_err("damaged");
    assert!(error.to_string().contains("not a JSON object"), "{error}");
}

#[test]
fn damage_is_reported_and_no_error() {
    let (_, base) = decoders().remove(0);
    let dir = tempfile::tempdir().expect("a folder");
    write(&base, &[("a", parts()[0].clone())], dir.path());
    let path = dir.path().join("a/adapter_model.safetensors");
    let mut bytes = fs::read(&path).expect("written");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let report = inspect_part(&dir.path().join("a")).expect("readable");
    assert_eq!(
        report.faults,
        ["prompt_embeddings holds NaN or infinity".to_string()]
    );
    assert_eq!(report.tensors[0].rms, None);
}
