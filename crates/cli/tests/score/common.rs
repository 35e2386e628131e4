//! The command as a user starts it, and what it is compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::{Value, json};

/// How far a logit may be from Transformers'.
pub const TOLERANCE: f32 = 1e-4;

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn golden(path: &str) -> PathBuf {
    repository().join("tests/golden").join(path)
}

/// The command, on the CPU and away from the user's cache.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-lora"));
    command
        .current_dir(folder)
        .env_remove("BURN_DEVICE")
        .env_remove("HF_TOKEN")
        .env("HF_HOME", folder.join("cache"));
    command
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().expect("started")
}

/// The object on the standard output of a run with `--json`.
#[track_caller]
pub fn result(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

/// The message of a run that must fail with this code.
#[track_caller]
pub fn refused(code: i32, folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert!(
        output.stdout.is_empty(),
        "results go to the standard output, errors do not"
    );
    error
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A tensor of a safetensors file.
pub struct Tensor {
    pub shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    pub fn floats(&self) -> Vec<f32> {
        let chunks = self.bytes.as_chunks::<4>().0.iter();
        chunks.map(|chunk| f32::from_le_bytes(*chunk)).collect()
    }

    pub fn ints(&self) -> Vec<i64> {
        let chunks = self.bytes.as_chunks::<8>().0.iter();
        chunks.map(|chunk| i64::from_le_bytes(*chunk)).collect()
    }
}

pub fn tensor(path: &Path, name: &str) -> Tensor {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect(name);
    Tensor {
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    }
}

/// Writes the rows of a golden case as token ids, and returns their lengths.
pub fn write_ids(case: &str, path: &Path) -> Vec<usize> {
    let reference = golden(case).join("reference.safetensors");
    let ids = tensor(&reference, "input_ids");
    let mask = tensor(&reference, "attention_mask").ints();
    let width = ids.shape[1];
    let rows: Vec<Vec<i64>> = ids
        .ints()
        .chunks(width)
        .zip(mask.chunks(width))
        .map(|(ids, mask)| ids[..mask.iter().sum::<i64>() as usize].to_vec())
        .collect();
    fs::write(path, json!(rows).to_string()).expect("written");
    rows.iter().map(Vec::len).collect()
}

/// The largest difference of `[n, t, d]` numbers at the tokens of rows of these lengths.
pub fn largest_difference(ours: &Tensor, theirs: &Tensor, lengths: &[usize]) -> f32 {
    assert_eq!(ours.shape, theirs.shape);
    let (row, width) = (ours.shape[1..].iter().product::<usize>(), ours.shape[2]);
    let (ours, theirs) = (ours.floats(), theirs.floats());
    let rows = ours.chunks(row).zip(theirs.chunks(row)).zip(lengths);
    rows.flat_map(|((ours, theirs), length)| {
        let pairs = ours.iter().zip(theirs).take(length * width);
        pairs.map(|(ours, theirs)| (ours - theirs).abs())
    })
    .fold(0.0, |worst, gap| {
        if gap > worst || gap.is_nan() {
            gap
        } else {
            worst
        }
    })
}

/// A tokenizer of the words `w0`, `w1` and so on, whose ids are their numbers: `w1` begins a sequence, `w2` ends each text
/// of it.
pub fn words_tokenizer(count: usize) -> String {
    let word = |id: usize| format!("w{id}");
    let vocab: serde_json::Map<_, _> = (0..count).map(|id| (word(id), id.into())).collect();
    let special =
        |id: usize, kind: usize| json!({"SpecialToken": {"id": word(id), "type_id": kind}});
    let sequence = |name: &str, kind: usize| json!({"Sequence": {"id": name, "type_id": kind}});
    let entry = |id: usize| json!({"id": word(id), "ids": [id], "tokens": [word(id)]});
    let added = [1, 2].map(|id| {
        json!({
            "id": id, "content": word(id), "single_word": true, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special(1, 0), sequence("A", 0), special(2, 0)],
            "pair": [special(1, 0), sequence("A", 0), special(2, 0), sequence("B", 1), special(2, 1)],
            "special_tokens": {"w1": entry(1), "w2": entry(2)},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    })
    .to_string()
}
