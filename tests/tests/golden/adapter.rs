//! The adapted model: logits, gradients and optimizer steps.

use burn_lora_tests::{assert_close, floats, gradients, largest_difference, parameters};

use crate::common::{
    GRADIENT, LOGITS, LOSS, STEPPED, logits, loss, on_each_case, optimized, values,
};

#[test]
fn logits_of_an_adapter_trained_by_peft_match() {
    on_each_case(|golden, device| {
        let expected = golden.at_tokens(&golden.floats("trained.logits"));
        let model = golden.trained(&device);
        assert_close(
            golden.name,
            &logits(golden, &model, &device),
            &expected,
            LOGITS,
        );
        let loss = floats(loss(golden, &model, &device));
        assert_close(golden.name, &loss, &golden.floats("trained.loss"), LOSS);
    });
}

#[test]
fn every_adapter_gradient_matches() {
    on_each_case(|golden, device| {
        let device = device.autodiff();
        let model = golden.initial(&device);
        let expected = golden.at_tokens(&golden.floats("init.logits"));
        assert_close(
            golden.name,
            &logits(golden, &model, &device),
            &expected,
            LOGITS,
        );

        let loss = loss(golden, &model, &device);
        let actual = gradients(&model, &loss.backward());
        assert_close(
            golden.name,
            &floats(loss),
            &golden.floats("init.loss"),
            LOSS,
        );
        let expected = golden.stage("init.grad/");
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}: which parameters have a gradient",
            golden.name
        );
        for (path, expected) in &expected {
            let actual = &actual[path];
            assert_eq!(actual.shape(), expected.shape(), "{path}");
            let what = format!("{}: gradient of {path}", golden.name);
            assert_close(&what, &values(actual), &values(expected), GRADIENT);
        }
    });
}

#[test]
fn adapters_after_five_adamw_steps_match() {
    on_each_case(|golden, device| {
        let (model, losses) = optimized(golden, &device.autodiff());
        assert_close(
            golden.name,
            &losses,
            &golden.floats("adamw.losses"),
            10.0 * LOSS,
        );

        let actual = parameters(&model);
        let (start, expected) = (golden.stage("init.weight/"), golden.stage("adamw.weight/"));
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, expected) in &expected {
            let what = format!("{}: {path} after the steps", golden.name);
            assert_close(&what, &values(&actual[path]), &values(expected), STEPPED);
            let moved = largest_difference(&values(&start[path]), &values(expected));
            assert!(
                moved > 500.0 * STEPPED,
                "{what}: the steps changed it by {moved} only"
            );
        }
    });
}
