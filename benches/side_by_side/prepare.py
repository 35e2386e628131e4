#!/usr/bin/env python3
"""Writes what both sides of a comparison on a GPU start from: weights, an adapter and tokens.

    prepare.py --shape llama_1b DIR

`DIR/model` is a Hugging Face folder of random bf16 weights, `DIR/adapter` a fresh PEFT adapter, `DIR/ids.bin` the tokens of
50 batches as little-endian i32. The tokens follow a chain, so that there is something to learn: with probability 0.9 a
token is a fixed function of the one before.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

SHAPES = json.loads((Path(__file__).resolve().parent / "shapes.json").read_text())
SEED = 7
BATCHES = 50
DETERMINED = 0.9
# Few beside the vocabulary, so that 200 steps see each often.
TOKENS = 512


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    torch.manual_seed(SEED)
    fields = dict(shape["config"])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(options.folder / "model")
    lora = LoraConfig(
        r=shape["rank"], lora_alpha=shape["alpha"], target_modules=shape["targets"], task_type="CAUSAL_LM"
    )
    get_peft_model(model, lora).save_pretrained(options.folder / "adapter")
    tokens(shape).tofile(options.folder / "ids.bin")


def tokens(shape):
    random = np.random.default_rng(SEED)
    known = random.choice(shape["config"]["vocab_size"], TOKENS, replace=False)
    following = random.permutation(TOKENS)
    rows = BATCHES * shape["batch_size"]
    at = random.integers(TOKENS, size=rows)
    ids = np.empty((rows, shape["seq_len"]), dtype="<i4")
    for position in range(shape["seq_len"]):
        ids[:, position] = known[at]
        chance = random.random(rows) < DETERMINED
        at = np.where(chance, following[at], random.integers(TOKENS, size=rows))
    return ids


if __name__ == "__main__":
    main()
