//! Options of methods on weights, by PEFT's keys.

use std::fs;

use burn_lora_adapter::{Targets, peft};
use burn_lora_transformer::ModelConfig;
use serde_json::{Value, json};

use super::super::*;
use super::part_runs::{setup, trained};
use super::{MethodConfig, SMALL, faults};
use crate::observer::Observer;
use crate::plan::Planner;
use crate::testing::alone;

#[track_caller]
fn parsed(settings: &[&str]) -> RunConfig {
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    RunConfig::parse(SMALL, &settings).expect("a configuration")
}

/// Runs an adapter's section, whose parameters are counted beforehand, and reads what it left.
#[track_caller]
fn left(adapter: &str, parameters: usize) -> (tempfile::TempDir, RunConfig, peft::AdapterReport) {
    let (dir, base, config) = setup(adapter);
    let model = ModelConfig::read(&base).expect("known");
    let planner = Planner::with_parts(&model, config.weights_config().as_ref(), &[]);
    let plan = planner.expect("planned").plan(&(&config).into());
    assert_eq!(plan.parameters.trained, parameters, "planned");
    let (result, summary) = trained(&config, &base);
    let told: String = summary.chars().filter(|letter| *letter != ',').collect();
    let expected = format!("trainable params: {parameters} ||");
    assert!(told.starts_with(&expected), "{told}, {expected}");
    let folder = result.adapter.expect("written");
    let found = evaluate_run(&config, &base, Some(&folder), &|_, _| {}).expect("evaluated");
    assert_eq!(found.metrics, result.metrics, "loaded anew");
    let report = peft::inspect(&folder).expect("an adapter");
    assert_eq!(report.parameters, parameters, "in the file");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    (dir, config, report)
}

fn written(config: &RunConfig) -> Value {
    let file = config.output.join("adapter/adapter_config.json");
    serde_json::from_str(&fs::read_to_string(file).expect("written")).expect("JSON")
}

#[test]
fn patterns_and_excluded_layers_reach_the_folder() {
    let _turn = alone();
    let adapter = "{rank: 2, targets: 'q_proj,v_proj,down_proj', options: {rank_pattern: {q_proj: 5, \
                   1.self_attn.v_proj: 3}, exclude_modules: [layers.0.mlp.down_proj]}}";
    // Queries [128, 128], values [128, 64], down-projections [352, 128] of 4 layers.
    let count = 4 * 5 * 256 + 3 * 2 * 192 + 3 * 192 + 3 * 2 * 480;
    let (_dir, config, report) = left(adapter, count);
    let fields = written(&config);
    assert_eq!(
        fields["rank_pattern"],
        json!({"q_proj": 5, "1.self_attn.v_proj": 3})
    );
    assert_eq!(fields["exclude_modules"], json!(["layers.0.mlp.down_proj"]));
    assert_eq!(report.layers.len(), 11);
    for layer in &report.layers {
        let expected = match layer.layer.as_str() {
            path if path.ends_with("q_proj") => 5,
            path if path.ends_with("1.self_attn.v_proj") => 3,
            _ => 2,
        };
        assert_eq!(layer.rank, Some(expected), "{}", layer.layer);
    }

    // Other options are another adapter.
    let settings = [
        "adapter.options.rank_pattern={q_proj: 4}".to_string(),
        "training.resume=true".to_string(),
    ];
    let other = RunConfig::parse(&config.to_yaml(), &settings).expect("valid");
    let watcher = RunWatcher {
        tell: &mut |_, _| {},
        tokenized: &|_, _| {},
        observer: Observer::Nobody,
    };
    let error = run(&other, config.model.as_ref(), watcher).expect_err("refused");
    let part = "adapter.options.rank_pattern.q_proj: 5, now 4";
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn the_small_matrix_of_lokr_is_as_large_as_asked() {
    let _turn = alone();
    let adapter = "{method: lokr, rank: 2, targets: q_proj, options: {decompose_factor: 4, rank_dropout: 0.1}}";
    // 128 is 4 x 32: a matrix [4, 4] and, since 2 is below 32 / 2, factors [32, 2] and [2, 32].
    let (_dir, config, _) = left(adapter, 4 * (16 + 2 * 64));
    let fields = written(&config);
    assert_eq!(fields["decompose_factor"], json!(4));
    assert_eq!(fields["rank_dropout"], json!(0.1));
}

#[test]
fn each_method_has_its_own_options() {
    let adalora = parsed(&[
        "method=adalora",
        "rank=12",
        "training.steps=100",
        "adapter.options={target_r: 3, tinit: 10, tfinal: 20, deltaT: 5, beta1: 0.5, beta2: 0.6, orth_reg_weight: 0.1}",
    ]);
    let MethodConfig::AdaLora(found) = adalora.lora_config().method else {
        panic!("AdaLoRA");
    };
    let budget = (
        found.target_rank,
        found.t_init,
        found.t_final,
        found.delta_t,
    );
    assert_eq!(budget, (3, 10, 20, 5));
    let weights = (found.beta_1, found.beta_2, found.orthogonality_weight);
    assert_eq!((weights, found.total_steps), ((0.5, 0.6, 0.1), 100));
    let vera = parsed(&[
        "method=vera",
        "adapter.options={d_initial: 0.5, projection_prng_key: 7, save_projection: false}",
    ]);
    let MethodConfig::Vera(found) = vera.lora_config().method else {
        panic!("VeRA");
    };
    assert_eq!(
        (found.d_initial, found.key, found.save_projection),
        (0.5, 7, false)
    );
    let ia3 = parsed(&[
        "method=ia3",
        "adapter.options={feedforward_modules: [down_proj]}",
    ]);
    let MethodConfig::Ia3(found) = ia3.lora_config().method else {
        panic!("(IA)3");
    };
    assert_eq!(found.feedforward, Some(Targets::names(["down_proj"])));
    let tokens = parsed(&["method=tokens", "adapter.options={token_indices: [3, 5]}"]);
    assert_eq!(
        tokens.lora_config().method,
        MethodConfig::Tokens(vec![3, 5])
    );
    let lora = parsed(&[
        "method=lora-fa",
        "adapter.options={lora_bias: true, trainable_token_indices: [1], layers_to_transform: 2, layers_pattern: layers, \
         alpha_pattern: {v_proj: 3}}",
    ]);
    let found = lora.lora_config();
    assert_eq!(found.method, MethodConfig::LoraFa);
    assert_eq!((found.lora_bias, found.rank), (true, 8));
    assert_eq!(found.trainable_tokens, [(String::new(), vec![1])]);
    assert_eq!(found.layers_to_transform, Some(vec![2]));
    assert_eq!(found.layers_pattern, ["layers"]);
    assert_eq!(found.alpha_pattern, [("v_proj".to_string(), 3.0)]);
    for config in [adalora, vera, ia3, tokens, lora] {
        let again = RunConfig::parse(&config.to_yaml(), &[]).expect("what was written");
        assert_eq!(again, config);
    }
}

#[test]
fn wrong_options_are_told_at_once() {
    let options = "adapter.options={rank_patern: {q_proj: 4}, r: 4, lora_alpha: 2, layers_to_transform: all, lora_bias: 3, \
                   layers_pattern: [layers], alpha_pattern: {q_proj: 0}}";
    assert_eq!(
        faults(SMALL, &[options, "adapter.dropout=2"]),
        [
            "adapter.dropout must be at least 0 and below 1",
            "adapter.options: r has a setting of its own: adapter.rank",
            "adapter.options: lora_alpha has a setting of its own: adapter.alpha",
            "adapter.options: layers_to_transform is \"all\", not a whole number or a list of such",
            "adapter.options: lora_bias is 3, not true or false",
            "adapter.options: alpha_pattern of \"q_proj\" is 0; it must be a number other than 0",
            "adapter.options: lora has no option rank_patern: did you mean rank_pattern?",
        ]
    );
    for (settings, expected) in [
        (
            vec!["method=loha", "adapter.options={decompose_factr: 4}"],
            "adapter.options: loha has no option decompose_factr; there are exclude_modules, layers_to_transform, \
             layers_pattern, rank_pattern, alpha_pattern, use_effective_conv2d, rank_dropout, module_dropout",
        ),
        (
            vec!["method=tokens"],
            "adapter.options: no token is named (token_indices)",
        ),
        (
            vec![
                "method=adalora",
                "training.steps=9",
                "adapter.options={tinit: 5, tfinal: 4}",
            ],
            "adapter.options: t_init 5 and t_final 4 leave none of 9 steps for the budget to fall",
        ),
        (
            vec!["adapter.options=[rank_pattern]"],
            "adapter.options: invalid type: sequence, expected a map",
        ),
    ] {
        assert_eq!(faults(SMALL, &settings), [expected], "{settings:?}");
    }
    let found = faults(
        SMALL,
        &["method=prefix", "adapter.options={rank_pattern: {}}"],
    );
    assert!(
        found[0].starts_with("adapter.options is no setting of prefix; there are method,"),
        "{found:?}"
    );
}
