//! Adapter folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn_lora::adapter::{
    AdapterError, DEFAULT_NAME, TensorFault, adapted_weights, peft, peft::PeftMetadata, summary,
};
use burn_lora_tests::{Subject, assert_close, assert_same, on_every_subject, parameters};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{assert_same_parameters, changed, refusal};

// 9. save -> load reproduces the output under another seed; the folder holds no base weight.

/// Saves the adapter of a module under the subject's configuration.
fn save<M: Module>(subject: &Subject<M>, model: &M, folder: &Path) {
    let metadata = PeftMetadata::default();
    peft::save(model, DEFAULT_NAME, &subject.config(), &metadata, folder).unwrap();
}

#[test]
fn i09_a_saved_adapter_reproduces_the_output_under_another_seed() {
    on_every_subject!(|subject| {
        let adapted = changed(&subject);
        let folder = tempfile::tempdir().unwrap();
        save(&subject, &adapted, folder.path());
        // Another seed: nothing of the loaded adapter may come from a generator.
        subject.seed(1234);
        let (loaded, config) =
            peft::load(subject.base.clone(), DEFAULT_NAME, folder.path()).unwrap();
        assert_close(
            subject.name,
            &subject.output(&loaded),
            &subject.output(&adapted),
            1e-6,
        );
        assert_same_parameters(subject.name, &parameters(&loaded), &parameters(&adapted));
        assert_eq!(config, subject.config(), "{}", subject.name);
    });
}

#[test]
fn i09_a_saved_folder_holds_the_factors_and_nothing_of_the_base() {
    on_every_subject!(|subject| {
        let folder = tempfile::tempdir().unwrap();
        save(&subject, &changed(&subject), folder.path());
        let names: BTreeSet<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(
            names,
            BTreeSet::from(
                [
                    "README.md",
                    "adapter_config.json",
                    "adapter_model.safetensors"
                ]
                .map(String::from)
            )
        );

        let bytes = fs::read(folder.path().join(peft::WEIGHTS_FILE)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rank = subject.config().rank;
        let expected: Vec<_> = summary(&changed(&subject))
            .rows
            .into_iter()
            .flat_map(|row| {
                let key = |factor| format!("base_model.model.{}.{factor}.weight", row.layer);
                let [d_in, d_out] = row.shape;
                [
                    (key("lora_A"), vec![rank, d_in]),
                    (key("lora_B"), vec![d_out, rank]),
                ]
            })
            .collect();
        let found: BTreeMap<_, _> = file
            .iter()
            .map(|(key, view)| (key.to_string(), view.shape().to_vec()))
            .collect();
        assert_eq!(found, expected.into_iter().collect(), "{}", subject.name);
    });
}

// 10. A missing, unexpected or mis-shaped tensor is an error that lists all of them; nothing is applied by halves.

type File = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read_file(folder: &Path) -> File {
    let bytes = fs::read(folder.join(peft::WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(key, view)| {
        let values = view
            .data()
            .chunks(4)
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()));
        (key.to_string(), (view.shape().to_vec(), values.collect()))
    });
    tensors.collect()
}

fn write_file(folder: &Path, file: &File) {
    let tensors = file.iter().map(|(key, (shape, values))| {
        let bytes = bytemuck::cast_slice(values);
        (
            key,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(tensors, None, &folder.join(peft::WEIGHTS_FILE)).unwrap();
}

#[test]
fn i10_every_fault_of_a_file_is_listed_at_once() {
    on_every_subject!(|subject| {
        let folder = tempfile::tempdir().unwrap();
        save(&subject, &changed(&subject), folder.path());
        let mut file = read_file(folder.path());
        let keys: Vec<String> = file.keys().cloned().collect();
        let [missing, bent, poisoned, renamed] = [0, 1, 2, 3].map(|index| keys[index].clone());
        file.remove(&missing);
        file.get_mut(&bent).unwrap().0.reverse();
        file.get_mut(&poisoned).unwrap().1[0] = f32::NAN;
        let stranger = format!("{renamed}s");
        let tensor = file.remove(&renamed).unwrap();
        file.insert(stranger.clone(), tensor);
        write_file(folder.path(), &file);

        let error = refusal(peft::load(
            subject.base.clone(),
            DEFAULT_NAME,
            folder.path(),
        ));
        let AdapterError::Tensors { faults, .. } = &error else {
            panic!("{}: {error}", subject.name);
        };
        let mut found: Vec<_> = faults
            .iter()
            .map(|fault| match fault {
                TensorFault::Missing { key, .. } => ("missing", key.clone()),
                TensorFault::Unexpected { key, nearest, .. } => {
                    assert_eq!(nearest.as_deref(), Some(renamed.as_str()));
                    ("unexpected", key.clone())
                }
                TensorFault::Shape { key, .. } => ("shape", key.clone()),
                TensorFault::NotFinite { key } => ("not finite", key.clone()),
                other => panic!("{other}"),
            })
            .collect();
        found.sort();
        let mut expected = vec![
            ("missing", missing),
            ("missing", renamed.clone()),
            ("unexpected", stranger),
            ("shape", bent),
            ("not finite", poisoned),
        ];
        expected.sort();
        assert_eq!(found, expected, "{}", subject.name);
        for (_, key) in &expected {
            assert!(
                error.to_string().contains(key.as_str()),
                "{}: {error} does not name {key}",
                subject.name
            );
        }
    });
}

#[test]
fn i10_a_refused_file_leaves_nothing_behind() {
    on_every_subject!(|subject| {
        let folder = tempfile::tempdir().unwrap();
        save(&subject, &changed(&subject), folder.path());
        let mut file = read_file(folder.path());
        let last = file.keys().next_back().unwrap().clone();
        file.remove(&last);
        write_file(folder.path(), &file);
        // A clone shares its tensors: an adapter applied by halves would show in the original.
        let base = subject.base.clone();
        refusal(peft::load(base.clone(), DEFAULT_NAME, folder.path()));
        assert!(adapted_weights(&base).is_empty(), "{}", subject.name);
        assert_same(
            subject.name,
            &subject.output(&base),
            &subject.output(&subject.base),
        );
    });
}

#[test]
fn i10_an_empty_file_is_refused() {
    on_every_subject!(|subject| {
        let folder = tempfile::tempdir().unwrap();
        save(&subject, &changed(&subject), folder.path());
        write_file(folder.path(), &File::new());
        match refusal(peft::load(
            subject.base.clone(),
            DEFAULT_NAME,
            folder.path(),
        )) {
            AdapterError::Tensors { faults, .. } => {
                assert_eq!(faults.len(), 2 * subject.adapted.len())
            }
            other => panic!("{}: {other}", subject.name),
        }
    });
}
