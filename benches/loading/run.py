#!/usr/bin/env python3
"""How long a Llama of a billion parameters takes to load, and with what memory.

    cargo build --release --example load_model
    python3 benches/loading/run.py [--program target/release/examples/load_model] [--rounds 3]

Writes a folder of the Llama 3.2 1B shape in bf16 (2.5 GB, in a temporary folder, removed at the end) with random weights in
three shards, and loads it, the first time cold as far as the system's cache goes, then warm. Needs Python alone.
"""

import argparse
import json
import math
import random
import struct
import subprocess
import tempfile
from pathlib import Path

CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
SHARDS = 3
BLOCK = 1 << 19


def tensors():
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    kv = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    yield "model.embed_tokens.weight", [CONFIG["vocab_size"], hidden]
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, shape in (
            ("input_layernorm", [hidden]),
            ("post_attention_layernorm", [hidden]),
            ("self_attn.q_proj", [hidden, hidden]),
            ("self_attn.k_proj", [kv, hidden]),
            ("self_attn.v_proj", [kv, hidden]),
            ("self_attn.o_proj", [hidden, hidden]),
            ("mlp.gate_proj", [inner, hidden]),
            ("mlp.up_proj", [inner, hidden]),
            ("mlp.down_proj", [hidden, inner]),
        ):
            yield f"{prefix}.{name}.weight", shape
    yield "model.norm.weight", [hidden]


def block():
    """Some normally distributed numbers: bf16 is the upper half of f32."""
    draw = random.Random(7)
    values = (struct.pack("<f", draw.gauss(0, 0.02))[2:] for _ in range(BLOCK))
    return b"".join(values)


def write_shard(path, entries, numbers):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in entries:
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        while end > 0:
            end -= file.write(numbers[: min(end, len(numbers))])


def write(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG))
    entries, numbers = list(tensors()), block()
    # The embedding is a fifth of it all.
    cuts = [0, 20, 85, len(entries)]
    index, sizes = {}, []
    for number in range(SHARDS):
        name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        part = entries[cuts[number] : cuts[number + 1]]
        write_shard(folder / name, part, numbers)
        index |= {tensor: name for tensor, _ in part}
        sizes.append((folder / name).stat().st_size)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    largest = max(2 * math.prod(shape) for _, shape in entries)
    mib = 1 << 20
    print(f"shards of {', '.join(f'{size / mib:.0f}' for size in sizes)} MiB, largest tensor {largest / mib:.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/examples/load_model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for 2.5 GB")
    arguments, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write(Path(folder))
        for _ in range(arguments.rounds):
            subprocess.run([arguments.program, "--model", folder, *rest], check=True)


if __name__ == "__main__":
    main()
