//! The real all-MiniLM-L6-v2, from its texts on, where there is one: `BURN_LORA_MINILM` names its folder.

use std::path::PathBuf;

use super::common::{TOLERANCE, golden, result, tensor, text};

#[test]
fn embeddings_of_texts_are_those_of_the_package() {
    let Some(model) = std::env::var_os("BURN_LORA_MINILM").map(PathBuf::from) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let texts = golden("minilm/texts.jsonl");
    let arguments = [
        "score",
        "--model",
        text(&model),
        "--data",
        text(&texts),
        "--output",
        "o.safetensors",
    ];
    let found = result(folder.path(), &arguments);
    assert_eq!(found["task"], "embedding");
    let scores = folder.path().join("o.safetensors");
    let reference = golden("minilm/reference.safetensors");
    for name in ["input_ids", "attention_mask"] {
        let (ours, theirs) = (tensor(&scores, name), tensor(&reference, name));
        assert_eq!(ours.ints(), theirs.ints(), "{name}");
    }
    let (ours, theirs) = (
        tensor(&scores, "embeddings"),
        tensor(&reference, "embeddings"),
    );
    assert_eq!(ours.shape, theirs.shape);
    let pairs = ours.floats().into_iter().zip(theirs.floats());
    let worst = pairs.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= TOLERANCE, "{worst}");
}
