//! The real all-MiniLM-L6-v2, where there is one: its folder is named by `BURN_LORA_MINILM`.

use std::path::PathBuf;

use burn_lora::transformer::{Pooling, SentenceEncoder};
use burn_lora_tests::{Golden, assert_close, floats, on_each_device};

#[test]
fn embeddings_of_the_real_minilm_match() {
    let Some(folder) = std::env::var_os("BURN_LORA_MINILM").map(PathBuf::from) else {
        return;
    };
    on_each_device(|device| {
        let golden = Golden::open("minilm");
        let model = SentenceEncoder::load(&folder, &device).unwrap();
        let pooling = model.pooling();
        assert_eq!(pooling.pooling, Pooling::Mean);
        assert!(pooling.normalize);
        assert_eq!(model.max_length(), 256);
        let rows = golden.rows("input_ids", "attention_mask");
        let batch = model.encoder.batch(&rows, None).unwrap();
        let expected = golden.floats("embeddings");
        assert_close(
            "embeddings",
            &floats(model.forward(&batch)),
            &expected,
            1e-4,
        );
    });
}
