//! Rows of a batch with adapters of their own, in encoders of every family, alone and behind virtual tokens.

use burn_lora_adapter::{LoraConfig, LoraInit, Targets, attach, with_rows};

use super::encoder_families::{encoder, encoders};
use super::*;
use crate::{Encoder, EncoderBatch, PromptInit, VirtualTokensConfig, WithVirtualTokens};

const ROWS: [&[u32]; 3] = [&[7, 8, 9, 10], &[4, 5, 6, 11], &[1, 2, 3, 12]];

fn hidden(model: &Encoder, rows: &[&[u32]]) -> Tensor<3> {
    model.hidden(&EncoderBatch::new(ids(rows), vec![4; rows.len()]))
}

fn check(name: &str, base: Encoder) {
    let lora = |seed| {
        let config = LoraConfig::new(2, 8.0).with_targets(Targets::AllLinear);
        config.with_init(LoraInit::Random).with_seed(seed)
    };
    let one = attach(base.clone(), "one", &lora(1)).expect(name);
    let two = attach(base.clone(), "two", &lora(2)).expect(name);
    let both = attach(one.clone(), "two", &lora(2)).expect(name);
    for names in [
        [Some("two"), None, Some("one")],
        [Some("one"), Some("two"), Some("one")],
    ] {
        let mixed = with_rows(both.clone(), Some(&names)).expect(name);
        let together = hidden(&mixed, &ROWS);
        for (row, adapter) in names.into_iter().enumerate() {
            let alone = match adapter {
                Some("one") => &one,
                Some(_) => &two,
                None => &base,
            };
            let expected = hidden(alone, &ROWS[row..=row]);
            let found = together.clone().narrow(0, row, 1);
            assert_close(name, found, expected, 2e-5);
        }
        let moved = together.narrow(0, 2, 1) - hidden(&base, &ROWS[2..]);
        let moved: f32 = moved.abs().max().into_scalar();
        assert!(moved > 1e-2, "{name}: {moved}");
    }
}

#[test]
fn rows_with_adapters_of_their_own_are_computed_as_alone() {
    for (name, config) in encoders() {
        check(name, encoder(&config));
    }
}

#[test]
fn they_are_behind_virtual_tokens_too() {
    for (name, config) in encoders() {
        for config_of_tokens in [
            VirtualTokensConfig::Prompt {
                tokens: 2,
                init: PromptInit::Random,
            },
            VirtualTokensConfig::Prefix {
                tokens: 2,
                projection: None,
            },
        ] {
            let base = encoder(&config).with_virtual_tokens(&config_of_tokens, 4);
            check(name, base.expect(name));
        }
    }
}
