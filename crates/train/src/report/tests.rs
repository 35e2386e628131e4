use std::path::PathBuf;

use burn_lora_data::EncodeReport;

use super::*;

const NASTY: &str = "<script>alert('1')</script>\"&\u{1}";

fn page() -> String {
    let mut config = RunConfig {
        model: NASTY.into(),
        ..RunConfig::default()
    };
    config.data.path = NASTY.into();
    let fact = |step: usize, kind, value: f64| Fact {
        kind,
        step,
        steps: 3,
        seconds: step as f64,
        seconds_left: None,
        metrics: BTreeMap::from([
            ("loss".to_string(), Some(value)),
            (NASTY.to_string(), None),
            ("learning_rate".to_string(), Some(1e-4)),
        ]),
    };
    let facts = [
        fact(1, FactKind::Train, 3.0),
        fact(2, FactKind::Train, 2.0),
        fact(3, FactKind::Train, 1.5),
        fact(3, FactKind::Valid, 1.75),
    ];
    let result = RunResult {
        train_loss: Some(1.5),
        valid_loss: None,
        metrics: BTreeMap::from([("exact_match".to_string(), 0.5)]),
        steps: 3,
        adapter_steps: 3,
        stopped: None,
        tokens: 300,
        learned_tokens: 200,
        tokens_per_second: 100.0,
        seconds: 3.0,
        peak_memory_bytes: Some(1 << 30),
        adapter: Some(PathBuf::from("out/adapter")),
        checkpoint: None,
    };
    let parts = [RunPart {
        name: "train",
        files: vec![PathBuf::from(NASTY)],
        report: EncodeReport::default(),
        was_cached: false,
        warning: None,
    }];
    let samples = [Completion {
        prompt: NASTY.into(),
        expected: "two".into(),
        generated: "two".into(),
    }];
    let changes = [LayerChange {
        layer: "model.layers.0.q_proj".into(),
        method: "Lora",
        rank: Some(4),
        norm: 0.5,
        weight_norm: Some(10.0),
    }];
    Report {
        config: &config,
        result: &result,
        device: "flex",
        facts: &facts,
        parts: &parts,
        samples: &samples,
        made: &[Sample {
            step: 3,
            prompt: NASTY.into(),
            expected: NASTY.into(),
            generated: NASTY.into(),
        }],
        changes: &changes,
    }
    .html()
}

#[test]
fn nothing_that_comes_from_outside_is_markup() {
    let page = page();
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains('\u{1}'));
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("prefers-color-scheme:dark"));
}

#[test]
fn the_page_has_every_section() {
    let page = page();
    for part in [
        "<h2>Curves</h2>",
        "aria-label=\"loss\"",
        "<polyline class=\"s0\"",
        // One validation is a dot.
        "<circle class=\"d1\"",
        "aria-label=\"learning rate\"",
        "<h2>Data</h2>",
        "<h2>Samples</h2>",
        "1 of 1 prompts were completed exactly",
        "<td>model.layers.0.q_proj</td><td>4</td><td>0.5</td><td>5.000 %</td>",
        "<h2>Configuration</h2>",
        "learning_rate: 0.0002",
        "<td>exact_match at the end</td><td>0.5</td>",
        "<td>validation loss</td><td>none</td>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // The first picture is the one that is looked for.
    let loss = page.find("aria-label=\"loss\"");
    assert!(loss < page.find("aria-label=\"learning rate\""));
}

#[test]
fn numbers_have_four_digits() {
    let cases = [
        (0.0, "0"),
        (1.5, "1.5"),
        (1234.0, "1234"),
        (100000.0, "100000"),
        (0.012346, "0.01235"),
        (1.2e-5, "1.200e-5"),
        (-2.25, "-2.25"),
    ];
    for (value, text) in cases {
        assert_eq!(digits(value), text);
    }
}
