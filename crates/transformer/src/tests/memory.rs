//! The memory of a load, measured in a process of its own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::LoadOptions;
use burn::tensor::DType;

/// Tells the child which folder to load.
const VARIABLE: &str = "BURN_LORA_MEMORY_TEST";

fn large() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 16_384,
        hidden_size: 512,
        intermediate_size: 1408,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 64,
        max_position_embeddings: 32,
        ..LlamaConfig::default()
    }
}

/// Writes a checkpoint of small numbers in four shards, and returns the bytes of all, and of the largest shard and
/// tensor.
fn write(dir: &Path, config: &DecoderConfig) -> [u64; 3] {
    fs::write(dir.join("config.json"), config.to_json()).expect("written");
    let keys = Decoder::keys(config, &Device::flex());
    let mut index = serde_json::json!({"weight_map": {}});
    let [mut all, mut largest_shard, mut largest_tensor] = [0; 3];
    for (number, shard) in keys.chunks(keys.len().div_ceil(4)).enumerate() {
        let name = format!("part-{number}.safetensors");
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for key in shard {
            let bytes = 4 * key.shape.iter().product::<usize>() as u64;
            largest_tensor = largest_tensor.max(bytes);
            let entry = serde_json::json!({
                "dtype": "F32", "shape": key.file_shape(), "data_offsets": [end, end + bytes],
            });
            header.insert(key.path.clone(), entry);
            index["weight_map"][&key.path] = name.clone().into();
            end += bytes;
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = fs::File::create(dir.join(&name)).expect("created");
        file.write_all(&(header.len() as u64).to_le_bytes())
            .expect("written");
        file.write_all(header.as_bytes()).expect("written");
        let block = 0.01f32.to_le_bytes().repeat(1 << 14);
        let mut left = end as usize;
        while left > 0 {
            let n = left.min(block.len());
            file.write_all(&block[..n]).expect("written");
            left -= n;
        }
        all += end;
        largest_shard = largest_shard.max(end);
    }
    let path = dir.join("model.safetensors.index.json");
    fs::write(path, index.to_string()).expect("written");
    [all, largest_shard, largest_tensor]
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    1024 * kilobytes
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
}

#[test]
fn a_load_takes_the_model_and_little_more_than_a_tensor() {
    if let Some(dir) = std::env::var_os(VARIABLE) {
        // The child: what a load adds to a process whose device is there.
        let device = Device::flex();
        Tensor::<1>::ones([8], &device).into_data();
        let before = status("VmRSS");
        let options = LoadOptions::new(DType::F32, device);
        let decoder = Decoder::load(Path::new(&dir), &options).expect("loaded");
        let peak = status("VmHWM") - before;
        fs::write(Path::new(&dir).join("peak"), peak.to_string()).expect("written");
        drop(decoder);
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let [all, largest_shard, largest_tensor] = write(dir.path(), &large().into());
    let test = "tests::memory::a_load_takes_the_model_and_little_more_than_a_tensor";
    let child = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", test])
        .env(VARIABLE, dir.path())
        .output()
        .expect("started");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    let peak = fs::read_to_string(dir.path().join("peak")).expect("measured");
    let peak: u64 = peak.parse().expect("a number");
    // On this device the model is in the same memory. The bytes of a tensor are there as in the file and as they become.
    let allowed = all + 2 * largest_tensor + (16 << 20);
    assert!(largest_shard + largest_tensor > 2 * largest_tensor);
    assert!(peak <= allowed, "{peak} bytes for {all}, at most {allowed}");
    assert!(peak > all, "{peak} bytes cannot hold {all}");
}
