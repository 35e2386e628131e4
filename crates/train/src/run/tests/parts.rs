//! Methods that stand beside the weights, by their words.

use super::super::*;
use super::{SMALL, faults};

#[track_caller]
fn parsed(settings: &[&str]) -> RunConfig {
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    RunConfig::parse(SMALL, &settings).expect("a configuration")
}

#[test]
fn a_word_and_its_settings_are_read_and_written() {
    for (settings, expected) in [
        (
            vec!["method=prompt"],
            PartSettings::Prompt(PromptSettings::default()),
        ),
        (
            vec![
                "method=prompt",
                "num_virtual_tokens=5",
                "prompt_tuning_init=sample_vocab",
            ],
            PartSettings::Prompt(PromptSettings {
                num_virtual_tokens: 5,
                prompt_tuning_init: Some(PromptStart::SampleVocab),
                ..PromptSettings::default()
            }),
        ),
        (
            vec![
                "method=P_TUNING",
                "encoder_reparameterization_type=LSTM",
                "encoder_num_layers=3",
            ],
            PartSettings::PTuning(PTuningSettings {
                encoder_reparameterization_type: EncoderType::Lstm,
                encoder_num_layers: Some(3),
                ..PTuningSettings::default()
            }),
        ),
        (
            vec![
                "method=prefix",
                "prefix_projection=true",
                "encoder_hidden_size=32",
            ],
            PartSettings::Prefix(PrefixSettings {
                prefix_projection: true,
                encoder_hidden_size: Some(32),
                ..PrefixSettings::default()
            }),
        ),
        (
            vec![
                "method=bottleneck",
                "bottleneck_size=16",
                "placement=parallel",
                "non_linearity=gelu",
                "scaling=4",
            ],
            PartSettings::Bottleneck(BottleneckSettings {
                bottleneck_size: 16,
                placement: Placement::Parallel,
                non_linearity: "gelu".into(),
                scaling: 4.0,
            }),
        ),
    ] {
        let config = parsed(&settings);
        assert_eq!(config.adapter.parts(), [expected], "{settings:?}");
        assert_eq!(config.weights_config(), None);
        let written = config.to_yaml();
        assert!(!written.contains("rank:"), "{written}");
        let again = RunConfig::parse(&written, &[]).expect("what was written");
        assert_eq!(again, config);
    }
    let written = parsed(&["method=prefix"]).to_yaml();
    for line in ["num_virtual_tokens: 20", "prefix_projection: false"] {
        assert!(written.contains(line), "{written}");
    }
}

#[test]
fn a_method_beside_another_is_a_section_or_a_list() {
    let one = parsed(&[
        "rank=4",
        "adapter.beside={method: prefix, num_virtual_tokens: 3}",
    ]);
    let prefix = PartSettings::Prefix(PrefixSettings {
        num_virtual_tokens: 3,
        ..PrefixSettings::default()
    });
    assert_eq!(one.adapter.parts(), [prefix]);
    assert_eq!(one.weights_config().expect("LoRA").rank, 4);
    assert_eq!(one.adapter.words(), "lora and prefix");
    let again = RunConfig::parse(&one.to_yaml(), &[]).expect("what was written");
    assert_eq!(again, one);
    // A setting of it has a path of its own.
    let changed = RunConfig::parse(
        "model: m\ndata: {path: d}\nadapter: {beside: {method: prefix}}\n",
        &["adapter.beside.num_virtual_tokens=3".into()],
    );
    assert_eq!(changed.expect("valid").adapter.beside, one.adapter.beside);
    let two = parsed(&["beside=[{method: prompt}, {method: bottleneck}]"]);
    assert_eq!(two.adapter.words(), "lora and prompt and bottleneck");
    let both = parsed(&["method=prompt", "beside={method: bottleneck}"]);
    assert_eq!(both.adapter.words(), "prompt and bottleneck");
    assert_eq!(both.weights_config(), None);
}

#[test]
fn settings_of_another_method_are_refused_with_what_there_is() {
    for (settings, expected) in [
        (
            vec!["method=prompt", "rank=8", "targets=q_proj"],
            vec![
                "adapter.rank is no setting of prompt; there are method, num_virtual_tokens, prompt_tuning_init, \
                 prompt_tuning_init_text, beside",
                "adapter.targets is no setting of prompt; there are method, num_virtual_tokens, prompt_tuning_init, \
                 prompt_tuning_init_text, beside",
            ],
        ),
        (
            vec!["method=prompt", "adapter.num_virtual_token=8"],
            vec!["adapter.num_virtual_token is no setting: did you mean num_virtual_tokens?"],
        ),
        (
            vec!["method=prefix", "encoder_num_layers=2"],
            vec![
                "adapter.encoder_num_layers is no setting of prefix; there are method, num_virtual_tokens, \
                 prefix_projection, encoder_hidden_size, beside",
            ],
        ),
        (
            vec!["num_virtual_tokens=8"],
            vec![
                "adapter.num_virtual_tokens is no setting of lora; there are method, rank, alpha, dropout, rslora, targets, \
                 bias, initialization, initialization_options, initialization_batches, options, beside",
            ],
        ),
        (
            vec!["method=promt"],
            vec![
                "adapter.method: there is no method \"promt\" (did you mean \"prompt\"?); the methods are: lora, lora-fa, \
                 dora, vera, loha, lokr, adalora, ia3, bitfit, full, tokens, prompt, p-tuning, prefix, bottleneck",
            ],
        ),
        (
            vec!["method=prompt", "num_virtual_tokens=many"],
            vec![
                "adapter.num_virtual_tokens: num_virtual_tokens: invalid type: string \"many\", expected usize",
            ],
        ),
        (
            vec!["method=bottleneck", "placement=pfeifer"],
            vec![
                "adapter.placement: placement: unknown variant `pfeifer`, expected one of `houlsby`, `pfeiffer`, `parallel`",
            ],
        ),
        (
            vec!["beside={method: prefix, rank: 4, num_virtual_tokns: 3}"],
            vec![
                "adapter.beside: prefix has no setting rank; there are num_virtual_tokens, prefix_projection, \
                 encoder_hidden_size; prefix has no setting num_virtual_tokns: did you mean num_virtual_tokens?",
            ],
        ),
        (
            vec!["beside={method: lora}"],
            vec![
                "adapter.beside: \"lora\" is no method that stands beside another; there are prompt, p-tuning, prefix, \
                 bottleneck",
            ],
        ),
        (
            vec!["beside=prefix"],
            vec!["adapter.beside: invalid type: string \"prefix\", expected a map"],
        ),
    ] {
        assert_eq!(faults(SMALL, &settings), expected, "{settings:?}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (settings, expected) in [
        (
            vec!["method=prompt", "num_virtual_tokens=0"],
            vec!["adapter.num_virtual_tokens is 0"],
        ),
        (
            vec!["method=prompt", "num_virtual_tokens=9999999999"],
            vec!["adapter.num_virtual_tokens is above 1048576"],
        ),
        (
            vec!["method=prompt", "prompt_tuning_init=TEXT"],
            vec![
                "adapter.prompt_tuning_init_text is missing: the text that prompt_tuning_init: TEXT starts from",
            ],
        ),
        (
            vec![
                "method=prompt",
                "prompt_tuning_init=RANDOM",
                "prompt_tuning_init_text=a",
            ],
            vec!["adapter.prompt_tuning_init_text is for prompt_tuning_init: TEXT"],
        ),
        (
            vec!["method=prompt", "prompt_tuning_init_text=' '"],
            vec!["adapter.prompt_tuning_init_text is empty"],
        ),
        (
            vec!["method=p-tuning", "encoder_num_layers=2"],
            vec![
                "adapter.encoder_num_layers is for encoder_reparameterization_type: LSTM; an MLP always has three layers",
            ],
        ),
        (
            vec!["method=prefix", "encoder_hidden_size=2"],
            vec!["adapter.encoder_hidden_size is for prefix_projection: true"],
        ),
        (
            vec![
                "method=bottleneck",
                "bottleneck_size=0",
                "scaling=0",
                "non_linearity=rellu",
            ],
            vec![
                "adapter.bottleneck_size is 0",
                "adapter.scaling must be a number other than 0",
                "adapter.non_linearity \"rellu\" is no activation: did you mean relu?",
            ],
        ),
        (
            vec!["method=prompt", "beside={method: prefix}"],
            vec![
                "adapter.beside: prompt, prefix are all virtual tokens, of which a model has one kind",
            ],
        ),
        (
            vec!["method=prompt", "packing=true"],
            vec![
                "training.packing has no place for virtual tokens in front of each example: leave it out",
            ],
        ),
        (
            vec!["method=bottleneck", "lora_plus_ratio=16"],
            vec![
                "training.lora_plus_ratio is for the up-projections of LoRA, of which the adapter has none",
            ],
        ),
    ] {
        assert_eq!(faults(SMALL, &settings), expected, "{settings:?}");
    }
    // Made in code, where a value cannot tell whether it was set.
    let mut config = parsed(&["method=prompt"]);
    config.adapter.rank = 3;
    config.adapter.part = PartSettings::of("prefix");
    let expected = [
        "adapter.rank is no setting of prompt",
        "adapter.part has the settings of prefix, the method is prompt",
    ];
    assert_eq!(config.faults(), expected);
}
