//! Folding adapters into the weights and taking them out again.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use burn_lora::adapter::{
    AdapterError, DEFAULT_NAME, adapted_weights, merge, merge_and_unload, set_enabled, summary,
    unmerge,
};
use burn_lora::transformer::{Decoder, LoadOptions};
use burn_lora_tests::{
    assert_close, assert_same, floats, gpt2, llama, on_each_device, on_every_subject, parameters,
};

use crate::common::{SAME, assert_same_parameters, base_of, changed, refusal};

// 5. merged = unmerged = merged-then-unmerged; merging twice is never doubled.

#[test]
fn i05_merged_computes_what_unmerged_does() {
    on_every_subject!(|subject| {
        let adapted = changed(&subject);
        let expected = subject.output(&adapted);
        let merged = merge(adapted.clone()).unwrap();
        assert_close(subject.name, &subject.output(&merged), &expected, SAME);
        let unmerged = unmerge(merged).unwrap();
        assert_same(subject.name, &subject.output(&unmerged), &expected);
        assert_same_parameters(subject.name, &parameters(&unmerged), &parameters(&adapted));
    });
}

#[test]
fn i05_a_merged_weight_is_the_base_plus_the_scaled_product() {
    on_every_subject!(|subject| {
        let adapted = changed(&subject);
        let plain = parameters(&merge_and_unload(adapted.clone()).unwrap());
        for weight in adapted_weights(&adapted) {
            let lora = weight.stack.get(DEFAULT_NAME).unwrap();
            let [d_in, d_out] = weight.base.dims();
            let (base, rank) = (floats(weight.base.clone()), lora.rank());
            let (a, b) = (floats(lora.a.val()), floats(lora.b.val()));
            let expected: Vec<f32> = (0..d_in * d_out)
                .map(|index| {
                    let (row, column) = (index / d_out, index % d_out);
                    let products = (0..rank)
                        .map(|k| f64::from(a[row * rank + k]) * f64::from(b[k * d_out + column]));
                    (f64::from(base[index]) + 2.0 * products.sum::<f64>()) as f32
                })
                .collect();
            let merged: Vec<f32> = plain[&weight.path].try_to_vec().unwrap();
            assert_close(&weight.path, &merged, &expected, 1e-6);
        }
    });
}

#[test]
fn i05_merging_twice_adds_nothing() {
    on_every_subject!(|subject| {
        let merged = merge(changed(&subject)).unwrap();
        let once = subject.output(&merged);
        let twice = merge(merged).unwrap();
        assert_same(subject.name, &subject.output(&twice), &once);
        // Nor does unmerging twice take anything away.
        let unmerged = unmerge(unmerge(twice).unwrap()).unwrap();
        assert_same(
            subject.name,
            &subject.output(&unmerged),
            &subject.output(&changed(&subject)),
        );
    });
}

// 6. A safe merge refuses NaN and infinity and leaves the base as it was.

/// Writes a value into the first number of each adapter parameter whose path contains a text.
struct Poison<'a> {
    path: Vec<String>,
    within: &'a str,
    value: f32,
}

impl ModuleMapper for Poison<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        if !path.contains(self.within) || !path.contains(".lora.") {
            return param;
        }
        let value = self.value;
        param.map(|tensor| {
            let options = (&tensor.device(), tensor.dtype());
            let mut values: Vec<f32> = tensor.to_data().try_to_vec().unwrap();
            values[0] = value;
            Tensor::from_data(TensorData::new(values, tensor.shape()), options)
        })
    }
}

#[test]
fn i06_merging_refuses_nan_and_infinity_and_names_every_layer() {
    on_every_subject!(|subject| {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // The name of the last target is found in all layers of a decoder, but in one of the user's module.
            let within = *subject.targets.last().unwrap();
            let mut poison = Poison {
                path: Vec::new(),
                within,
                value,
            };
            let model = changed(&subject).map(&mut poison);
            let expected: Vec<_> = summary(&model)
                .rows
                .into_iter()
                .map(|row| row.layer)
                .filter(|layer| layer.ends_with(within))
                .collect();
            assert!(!expected.is_empty());
            let before = parameters(&subject.base);
            for result in [merge(model.clone()), merge_and_unload(model.clone())] {
                match refusal(result) {
                    AdapterError::NotFinite { layers } => {
                        assert_eq!(layers, expected, "{}", subject.name)
                    }
                    other => panic!("{}: {other}", subject.name),
                }
            }
            // The base is as it was, also inside the refused module, which computes as the base once disabled.
            assert_same_parameters(subject.name, &base_of(parameters(&model)), &before);
            let disabled = set_enabled(model, false).unwrap();
            assert_same(
                subject.name,
                &subject.output(&disabled),
                &subject.output(&subject.base),
            );
        }
    });
}

// 7. A merged model has no adapter left, and survives save and load.

#[test]
fn i07_a_merged_module_has_no_adapter_left() {
    on_every_subject!(|subject| {
        let adapted = changed(&subject);
        let plain = merge_and_unload(adapted.clone()).unwrap();
        assert!(adapted_weights(&plain).is_empty(), "{}", subject.name);
        let (paths, expected) = (parameters(&plain), parameters(&subject.base));
        assert_eq!(
            paths.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        assert_close(
            subject.name,
            &subject.output(&plain),
            &subject.output(&adapted),
            SAME,
        );
        assert!(matches!(
            refusal(unmerge(plain)),
            AdapterError::NoAdapter { .. }
        ));
    });
}

#[test]
fn i07_a_merged_module_survives_a_record() {
    on_every_subject!(|subject| {
        let plain = merge_and_unload(changed(&subject)).unwrap();
        let bytes = plain.clone().into_record().into_bytes().unwrap();
        let record = burn::store::ModuleRecord::from_bytes(bytes).unwrap();
        let restored = subject.base.clone().try_load_record(record).unwrap();
        assert_same(
            subject.name,
            &subject.output(&restored),
            &subject.output(&plain),
        );
    });
}

#[test]
fn i07_a_merged_decoder_survives_a_hugging_face_folder() {
    on_each_device(|device| {
        for subject in [llama(&device, DType::F32), gpt2(&device, DType::F32)] {
            let plain = merge_and_unload(changed(&subject)).unwrap();
            let folder = tempfile::tempdir().unwrap();
            plain.save(folder.path(), DType::F32).unwrap();
            let options = LoadOptions::new(DType::F32, device.clone());
            let restored = Decoder::load(folder.path(), &options).unwrap();
            assert_same(
                subject.name,
                &subject.output(&restored),
                &subject.output(&plain),
            );
        }
    });
}
