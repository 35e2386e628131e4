//! Targets that match nothing.

use burn_lora::adapter::{AdapterError, DEFAULT_NAME, LoraConfig, Targets, attach};
use burn_lora_tests::on_every_subject;

use crate::common::refusal;

// 11. No target matched: an error that shows near misses. One bad name in a list is an error too.

#[test]
fn i11_a_target_that_matches_nothing_is_an_error_with_the_nearest_name() {
    on_every_subject!(|subject| {
        for (index, name) in subject.targets.iter().enumerate() {
            // All names but one are right, then none is.
            let typo = format!("{name}x");
            let mut one_bad: Vec<String> = subject
                .targets
                .iter()
                .map(|name| name.to_string())
                .collect();
            one_bad[index] = typo.clone();
            for targets in [one_bad, vec![typo.clone()]] {
                let config = subject.config().with_targets(Targets::Names(targets));
                let error = refusal(attach(subject.base.clone(), DEFAULT_NAME, &config));
                let AdapterError::NoSuchTarget { targets } = &error else {
                    panic!("{}: {error}", subject.name);
                };
                assert_eq!(
                    *targets,
                    [(typo.clone(), vec![name.to_string()])],
                    "{}",
                    subject.name
                );
                assert!(
                    error.to_string().contains(&format!("\"{name}\"")),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn i11_all_bad_names_are_listed() {
    on_every_subject!(|subject| {
        let names = ["first_typo", subject.targets[0], "second_typo"];
        let config = subject.config().with_targets(Targets::names(names));
        let error = refusal(attach(subject.base.clone(), DEFAULT_NAME, &config));
        let AdapterError::NoSuchTarget { targets } = &error else {
            panic!("{}: {error}", subject.name);
        };
        let bad: Vec<_> = targets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(bad, ["first_typo", "second_typo"], "{}", subject.name);
    });
}

#[test]
fn i11_an_expression_that_matches_nothing_is_an_error() {
    on_every_subject!(|subject| {
        // It would match by search; PEFT matches whole paths.
        let text = subject.targets[0][1..].to_string();
        let config = subject.config().with_targets(Targets::Regex(text.clone()));
        match refusal(attach(subject.base.clone(), DEFAULT_NAME, &config)) {
            AdapterError::NoSuchTarget { targets } => assert_eq!(targets[0].0, text),
            other => panic!("{}: {other}", subject.name),
        }
    });
}

#[test]
fn i11_a_pattern_that_matches_no_target_is_an_error() {
    on_every_subject!(|subject| {
        let ranks = vec![
            (subject.targets[0].to_string(), 2),
            ("no_such_layer".to_string(), 2),
        ];
        let config = LoraConfig {
            rank_pattern: ranks,
            ..subject.config()
        };
        let error = refusal(attach(subject.base.clone(), DEFAULT_NAME, &config));
        assert!(
            matches!(error, AdapterError::Config { .. }),
            "{}: {error}",
            subject.name
        );
        assert!(error.to_string().contains("no_such_layer"), "{error}");
    });
}
