"""What PEFT makes of virtual tokens, on the models of the cases `llama` and `gpt2`.

Writes `virtual_tokens/CASE_METHOD/`: PEFT's folder, and `reference.safetensors` with the logits of `input_ids`, the loss of the next
tokens, and its gradients. P-tuning's has the network, too, as it was in training.

    python virtual_tokens.py              # write the files again
    python virtual_tokens.py --verify     # compare with them (1e-4)
    python virtual_tokens.py --check DIR  # load what burn-lora saved to DIR/CASE_METHOD, compare logits (1e-4)
"""

import argparse
from copy import deepcopy
from pathlib import Path

import torch
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
OUT = HERE / "virtual_tokens"
COMMON = dict(task_type="CAUSAL_LM", num_virtual_tokens=3)
METHODS = dict(
    prompt=PromptTuningConfig(**COMMON),
    p_tuning=PromptEncoderConfig(encoder_hidden_size=10, **COMMON),
    prefix=PrefixTuningConfig(**COMMON),
    projected=PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=10, **COMMON),
)
CASES = ("llama", "gpt2")


def base(case):
    return AutoModelForCausalLM.from_pretrained(HERE / case / "model", dtype=torch.float32).eval()


def ids(case):
    return load_file(HERE / case / "reference.safetensors")["input_ids"].long()[:2, :7]


def logits_of(model, input_ids):
    # With a mask, else Transformers guesses one where a token looks like padding.
    count = model.active_peft_config.num_virtual_tokens
    logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
    return logits[:, -input_ids.shape[1] :] if logits.shape[1] == input_ids.shape[1] + count else logits


def make(case, name):
    torch.manual_seed(17)
    model = get_peft_model(base(case), deepcopy(METHODS[name]))
    encoder = model.prompt_encoder["default"]
    for parameter in encoder.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    input_ids = ids(case)
    logits = logits_of(model, input_ids)
    scores = logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(scores, input_ids[:, 1:].flatten())
    loss.backward()
    tensors = dict(input_ids=input_ids.to(torch.int32), logits=logits, loss=loss.reshape(1))
    for key, parameter in encoder.named_parameters():
        tensors[f"grad.{key}"] = parameter.grad
        tensors[f"encoder.{key}"] = parameter
    return model, {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    for case in CASES:
        for name in METHODS:
            folder = OUT / f"{case}_{name}"
            if arguments.check:
                saved = arguments.check / f"{case}_{name}"
                if not saved.exists():
                    raise SystemExit(f"{saved} is missing")
                logits = logits_of(PeftModel.from_pretrained(base(case), saved).eval(), ids(case))
                torch.testing.assert_close(logits, load_file(saved / "logits.safetensors")["logits"], rtol=1e-4, atol=1e-4)
                print("ok", saved.name)
                continue
            model, tensors = make(case, name)
            if arguments.verify:
                kept = load_file(folder / "reference.safetensors")
                assert kept.keys() == tensors.keys()
                for key, tensor in tensors.items():
                    torch.testing.assert_close(tensor, kept[key], rtol=1e-4, atol=1e-4, msg=f"{case} {name} {key}")
            else:
                folder.mkdir(parents=True, exist_ok=True)
                model.peft_config["default"].base_model_name_or_path = case
                model.save_pretrained(folder)
                (folder / "README.md").unlink(missing_ok=True)
                save_file(tensors, folder / "reference.safetensors")


if __name__ == "__main__":
    main()
