//! What trains and what does not.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Distribution, Tensor};
use burn_lora::adapter::{DEFAULT_NAME, LoraConfig, LoraInit, attach, project, summary};
use burn_lora_tests::{
    assert_close, assert_same, floats, gradients, on_each_device, on_every_subject, parameters,
};

use crate::common::{
    adapters_of, assert_changed, assert_same_parameters, base_of, changed, is_adapter,
};

// 3. Only adapter parameters receive gradients; after three optimizer steps they changed and the base did not.

#[test]
fn i03_only_adapters_receive_gradients() {
    on_every_subject!(autodiff, |subject| {
        let model = changed(&subject);
        let found = gradients(&model, &subject.loss(&model).backward());
        let expected = adapters_of(parameters(&model));
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}: which parameters have a gradient",
            subject.name
        );
        assert_eq!(found.len(), 2 * subject.adapted.len(), "{}", subject.name);
        for (path, gradient) in &found {
            let values: Vec<f32> = gradient.try_to_vec().unwrap();
            assert!(
                values.iter().any(|value| *value != 0.0),
                "{path}: gradient is 0"
            );
        }
    });
}

#[test]
fn i03_three_steps_change_every_adapter_and_no_bit_of_the_base() {
    on_every_subject!(autodiff, |subject| {
        // The default init: A moves from the second step on, once B is not 0.
        let mut model = attach(subject.base.clone(), DEFAULT_NAME, &subject.config()).unwrap();
        let before = parameters(&model);
        // The whole module goes through the optimizer: the base must be frozen, not hidden.
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
        for _ in 0..3 {
            let gradients = GradientsParams::from_grads(subject.loss(&model).backward(), &model);
            model = optimizer.step(1e-2, model, gradients);
        }
        let after = parameters(&model);
        for (path, value) in &after {
            let is_same = before[path] == *value;
            assert_eq!(
                is_same,
                !is_adapter(path),
                "{}: {path} unchanged: {is_same}",
                subject.name
            );
        }
        let untouched = base_of(parameters(&subject.base));
        assert_same_parameters(subject.name, &base_of(after), &untouched);
    });
}

// 4. The trainable count is exactly r x (d_in + d_out) summed over the targets.

#[test]
fn i04_the_trainable_count_is_rank_times_the_widths() {
    on_every_subject!(autodiff, |subject| {
        let plain = subject.base.num_params();
        for rank in [1, 4, 6] {
            let config = LoraConfig {
                rank,
                ..subject.config()
            };
            let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
            let expected: usize = subject
                .adapted
                .iter()
                .map(|[d_in, d_out]| rank * (d_in + d_out))
                .sum();
            let summary = summary(&model);
            assert_eq!(summary.trainable, expected, "{}", subject.name);
            assert_eq!(summary.total, plain + expected, "{}", subject.name);
            let rows: Vec<[usize; 2]> = summary.rows.iter().map(|row| row.shape).collect();
            assert_eq!(rows, subject.adapted, "{}", subject.name);
        }
    });
}

// Dropout belongs to training: it never shows in inference, and the mean of many draws is the output without it.

#[derive(Module, Debug)]
struct Layer {
    layer: Linear,
}

#[test]
fn dropout_acts_on_the_adapter_in_training_only() {
    on_each_device(|device| {
        let base = Layer {
            layer: LinearConfig::new(24, 17).init(&device),
        };
        let config = LoraConfig::new(8, 8.0).with_init(LoraInit::Random);
        let attached = |config| attach(base.clone(), DEFAULT_NAME, config).unwrap();
        let without = attached(&config);
        let with = attached(&config.clone().with_dropout(0.4));
        // One row many times over: a mean over the rows is one over draws.
        let rows = 4096;
        let x = Tensor::<2>::random([1, 24], Distribution::Default, &device).repeat_dim(0, rows);
        let expected = floats(project(&without.layer, x.clone()));
        assert_same(
            "inference",
            &floats(project(&with.layer, x.clone())),
            &expected,
        );

        let x = Tensor::from_inner(x);
        let training = with.train();
        let draws = project(&training.layer, x.clone()).inner();
        assert_changed("training", &floats(draws.clone()), &expected);
        let mean = floats(draws.mean_dim(0));
        // Twice the largest of sixty simulated trials. Without the division by what is kept it is 0.06 or more.
        assert_close("mean of the draws", &mean, &expected[..17], 2e-2);
        let again = project(&training.valid().layer, x.inner());
        assert_same("inference after training", &floats(again), &expected);
    });
}
