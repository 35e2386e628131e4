//! Turning adapters off and on.

use burn_lora::adapter::{merge, set_enabled};
use burn_lora_tests::{assert_same, on_every_subject};

use crate::common::changed;

// 12. Disabled adapters give the base output exactly; enabling restores.

#[test]
fn i12_a_disabled_adapter_gives_the_base_output_exactly() {
    on_every_subject!(|subject| {
        let adapted = changed(&subject);
        let expected = subject.output(&adapted);
        let disabled = set_enabled(adapted, false).unwrap();
        assert_same(
            subject.name,
            &subject.output(&disabled),
            &subject.output(&subject.base),
        );
        let enabled = set_enabled(disabled, true).unwrap();
        assert_same(subject.name, &subject.output(&enabled), &expected);
    });
}

#[test]
fn i12_a_disabled_adapter_stays_out_when_merged() {
    on_every_subject!(|subject| {
        let merged = merge(changed(&subject)).unwrap();
        let expected = subject.output(&merged);
        let disabled = set_enabled(merged, false).unwrap();
        assert_same(
            subject.name,
            &subject.output(&disabled),
            &subject.output(&subject.base),
        );
        let enabled = set_enabled(disabled, true).unwrap();
        assert_same(subject.name, &subject.output(&enabled), &expected);
    });
}
