//! Adapters on the experts of a mixture, one for each.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn_lora::adapter::{
    DEFAULT_NAME, LoraConfig, Targets, attach, merge_and_unload, peft, peft::PeftMetadata,
};
use burn_lora::transformer::Decoder;
use burn_lora_tests::{Golden, assert_close, assert_same, floats, gradients, on_each_device};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{LOGITS, loss, stepped};

const CASES: [(&str, [&str; 3]); 2] = [
    ("mixtral", ["w1", "w2", "w3"]),
    ("qwen3_moe", ["gate_proj", "up_proj", "down_proj"]),
];

/// Only experts: in other layers the same names stand for a plain inner layer. PEFT looks for the name without a number.
fn targets(names: [&str; 3]) -> LoraConfig {
    let targets = Targets::parse(&format!(r".*\.experts\.(\d+\.)?({})", names.join("|")));
    LoraConfig::new(2, 4.0).with_targets(targets)
}

fn on_each_mixture(test: impl Fn(&Golden, LoraConfig, burn::tensor::Device)) {
    on_each_device(|device| {
        for (name, names) in CASES {
            test(&Golden::open(name), targets(names), device.clone());
        }
    });
}

#[test]
fn every_expert_learns_and_merges() {
    on_each_mixture(|golden, config, device| {
        let tracked = device.clone().autodiff();
        let model = attach(golden.base(&tracked), DEFAULT_NAME, &config).unwrap();
        let (model, losses) = stepped(golden, model, |model| loss(golden, model, &tracked));
        let last = losses[losses.len() - 1];
        assert!(last < losses[0], "{}: {losses:?}", golden.name);

        let model = model.into_inner();
        let found = gradients(&model, &loss(golden, &model, &tracked).backward());
        let of_an_expert = |path: &String| path.contains(".experts.");
        assert!(!found.is_empty() && found.keys().all(of_an_expert));

        let ids = || golden.input_ids(&device);
        let model = model.valid();
        let adapted = floats(model.logits(ids()));
        let merged = merge_and_unload(model).unwrap();
        assert_close(golden.name, &floats(merged.logits(ids())), &adapted, LOGITS);
    });
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, as the adapters' test of this name does.
#[test]
fn exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    on_each_mixture(|golden, config, device| {
        let folder = root.join(golden.name).join("experts");
        let adapter = folder.join("adapter");
        let tracked = device.clone().autodiff();
        let model = attach(golden.base(&tracked), DEFAULT_NAME, &config).unwrap();
        let (model, _) = stepped(golden, model, |model| loss(golden, model, &tracked));
        let model: Decoder = model.into_inner().valid();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, &adapter).unwrap();

        let logits = model.logits(golden.input_ids(&device));
        let shape = logits.dims().to_vec();
        let written = floats(logits);
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();

        let (again, _) = peft::load(golden.base(&device), DEFAULT_NAME, &adapter).unwrap();
        let again = floats(again.logits(golden.input_ids(&device)));
        assert_same(golden.name, &again, &written);
    });
}
