#!/usr/bin/env python3
"""Writes `llama_tied` as PyTorch's own files, in `pytorch/`: the same weights, which must load to the same model.

    single/    torch.save of a state dict: the head shares the embedding's storage, a weight is a transposed view
    sharded/   two files and their index
    legacy/    the container of PyTorch before 1.6
    hostile/   a file that runs a command when Python loads it
    adapter/   the adapter of that model, as PEFT wrote adapters before safetensors
"""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
TRAP = "burn-lora-hostile-file-was-run"


class Hostile:
    def __reduce__(self):
        return os.system, (f"touch {TRAP}",)


def state_dict():
    state = {}
    for path in sorted((HERE / "llama_tied" / "model").glob("*.safetensors")):
        state |= load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    state[name] = state[name].t().contiguous().t()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def main():
    state = state_dict()
    folders = {name: HERE / "pytorch" / name for name in ("single", "sharded", "legacy", "hostile", "adapter")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folders["single"] / "pytorch_model.bin")
    torch.save(state, folders["legacy"] / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    torch.save({"first": Hostile(), **state}, folders["hostile"] / "pytorch_model.bin")
    adapter = load_file(HERE / "llama_tied" / "adapter" / "adapter_model.safetensors")
    torch.save(adapter, folders["adapter"] / "adapter_model.bin")
    names, weight_map = list(state), {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        part = {name: state[name] for name in names[number - 1 :: 2]}
        torch.save(part, folders["sharded"] / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folders["sharded"] / "pytorch_model.bin.index.json").write_text(text)


if __name__ == "__main__":
    main()
