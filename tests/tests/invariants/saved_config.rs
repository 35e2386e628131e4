//! What the configuration of a saved adapter says.

use burn::tensor::DType;
use burn_lora::adapter::{
    AdapterError, DEFAULT_NAME, LoraConfig, attach, peft, peft::PeftMetadata,
};
use burn_lora_tests::{devices, llama};

#[test]
fn a_configuration_of_another_adapter_is_refused_and_nothing_written() {
    for device in devices() {
        let config = LoraConfig::new(4, 8.0);
        let model = attach(llama(&device, DType::F32).base, DEFAULT_NAME, &config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let save = |config: &LoraConfig| {
            let metadata = PeftMetadata::default();
            peft::save(&model, DEFAULT_NAME, config, &metadata, folder.path())
        };
        let fewer = config
            .clone()
            .with_targets(burn_lora::adapter::Targets::names(["q_proj"]));
        for wrong in [
            LoraConfig::new(2, 8.0),
            config.clone().with_rslora(true),
            fewer,
        ] {
            let error = save(&wrong).unwrap_err();
            assert!(matches!(error, AdapterError::Config { .. }), "{error}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        save(&config).unwrap();
    }
}

#[test]
fn all_linear_is_written_as_the_names_of_the_layers() {
    for device in devices() {
        let config = LoraConfig::new(4, 8.0);
        let model = attach(llama(&device, DType::F32).base, DEFAULT_NAME, &config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
        let written = peft::read_config(folder.path()).unwrap();
        let names = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ];
        let names = names.map(str::to_string).to_vec();
        assert_eq!(
            written.target_modules,
            Some(peft::TargetModules::Names(names))
        );
    }
}
