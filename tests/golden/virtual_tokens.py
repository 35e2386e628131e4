"""What PEFT makes of virtual tokens, on the models of other cases: decoders, encoders that classify, and T5.

Writes `virtual_tokens/CASE_METHOD/`: PEFT's folder, and `reference.safetensors` with the batch (`input_ids`, `lengths`, and what a model
takes beside), the logits at its tokens, a loss, and its gradients. The loss is that of the next tokens (decoders) or the mean square of
the logits. P-tuning's has the network, too, as it was in training. The head of a model that classifies is PEFT's copy, and no longer the
base's.

    python virtual_tokens.py              # write the files again
    python virtual_tokens.py --verify     # compare with them (1e-4)
    python virtual_tokens.py --check DIR  # load what burn-lora saved to DIR/CASE_METHOD, compare logits (1e-4)
    python virtual_tokens.py --run MODEL ADAPTER SCORES
                                          # load the folder that `burn-lora train` wrote for a model, compare logits (1e-4) with those
                                          # that `burn-lora score --adapter` wrote to a file
"""

import argparse
from copy import deepcopy
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

HERE = Path(__file__).parent
OUT = HERE / "virtual_tokens"
COUNT = 3
METHODS = dict(
    prompt=(PromptTuningConfig, {}),
    p_tuning=(PromptEncoderConfig, dict(encoder_hidden_size=10)),
    prefix=(PrefixTuningConfig, {}),
    projected=(PrefixTuningConfig, dict(prefix_projection=True, encoder_hidden_size=10)),
)
ALL = tuple(METHODS)
# What `old/` holds as PyTorch's own file.
OLD = ("bert_sequence", "prompt")
CLASSES = dict(
    CAUSAL_LM=AutoModelForCausalLM,
    SEQ_CLS=AutoModelForSequenceClassification,
    TOKEN_CLS=AutoModelForTokenClassification,
    SEQ_2_SEQ_LM=AutoModelForSeq2SeqLM,
)
# Of a case the task, the methods, and what PEFT does not find out of the model's configuration.
CASES = dict(
    llama=("CAUSAL_LM", ALL, {}),
    gpt2=("CAUSAL_LM", ALL, {}),
    bert_sequence=("SEQ_CLS", ALL, {}),
    bert_token=("TOKEN_CLS", ALL, {}),
    roberta_sequence=("SEQ_CLS", ALL, {}),
    roberta_token=("TOKEN_CLS", ("prompt", "prefix"), {}),
    # PEFT has prefixes for encoders that take `past_key_values` only.
    distilbert_sequence=("SEQ_CLS", ("prompt",), dict(token_dim=16, num_layers=2, num_attention_heads=2)),
    deberta_sequence=("SEQ_CLS", ("prompt",), {}),
    # Its embedding is narrower than its hidden states.
    deberta_v2_sequence=("SEQ_CLS", ("prompt",), dict(token_dim=12)),
    deberta_v3_token=("TOKEN_CLS", ("p_tuning",), {}),
    modernbert_sequence=("SEQ_CLS", ("p_tuning",), {}),
    modernbert_token=("TOKEN_CLS", ("prompt",), {}),
    t5=("SEQ_2_SEQ_LM", ALL, {}),
    t5_v1_1=("SEQ_2_SEQ_LM", ("prompt", "prefix"), {}),
)


def config(case, name):
    task, _, stated = CASES[case]
    kind, options = METHODS[name]
    if task == "SEQ_2_SEQ_LM" and kind is PrefixTuningConfig:
        # PEFT would take the model's width, which the heads of these do not add up to.
        stated = dict(token_dim=12)
    return kind(task_type=task, num_virtual_tokens=COUNT, **options, **stated)


def base(case):
    return CLASSES[CASES[case][0]].from_pretrained(HERE / case / "model", dtype=torch.float32).eval()


def batch(case):
    """Two rows of seven tokens; where a model has a mask of its own, the second ends two earlier."""
    reference = load_file(HERE / case / "reference.safetensors")
    ids = reference["input_ids"].long()[:2, :7].clone()
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    if CASES[case][0] == "CAUSAL_LM":
        return inputs
    generator = torch.Generator().manual_seed(3)
    inputs["input_ids"] = torch.randint(5, 30, ids.shape, generator=generator)
    inputs["attention_mask"][1, 5:] = 0
    inputs["input_ids"][1, 5:] = base(case).config.pad_token_id
    if case.startswith("bert"):
        inputs["token_type_ids"] = torch.zeros_like(ids)
        inputs["token_type_ids"][:, 3:5] = 1
    if CASES[case][0] == "SEQ_2_SEQ_LM":
        inputs["decoder_input_ids"] = torch.randint(5, 30, (2, 4), generator=generator)
    return inputs


def logits_of(case, model, inputs):
    """Those of real tokens, row after row; padding is left out."""
    task = CASES[case][0]
    # With a mask, else Transformers guesses one where a token looks like padding.
    logits = model(**inputs).logits
    if task in ("SEQ_CLS", "SEQ_2_SEQ_LM"):
        return logits
    logits = logits[:, -inputs["input_ids"].shape[1] :]
    return logits if task == "CAUSAL_LM" else logits[inputs["attention_mask"] == 1]


def make(case, name):
    torch.manual_seed(17)
    model = get_peft_model(base(case), config(case, name)).eval()
    encoder = model.prompt_encoder["default"]
    for parameter in encoder.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    for key, parameter in model.named_parameters():
        if "modules_to_save" in key:
            parameter.data = torch.randn_like(parameter) * 0.3
    inputs = batch(case)
    logits = logits_of(case, model, inputs)
    if CASES[case][0] == "CAUSAL_LM":
        scores = logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(scores, inputs["input_ids"][:, 1:].flatten())
    else:
        loss = logits.square().mean()
    loss.backward()
    tensors = dict(logits=logits, loss=loss.reshape(1))
    for key, value in inputs.items():
        if key == "attention_mask" and CASES[case][0] == "CAUSAL_LM":
            continue
        if key == "attention_mask":
            key, value = "lengths", value.sum(1)
        tensors[key] = value.to(torch.int32)
    for key, parameter in encoder.named_parameters():
        tensors[f"grad.{key}"] = parameter.grad
        tensors[f"encoder.{key}"] = parameter
    return model, {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


def check_run(folder, adapter, scores):
    """Where PEFT makes a prompt of a text itself, it must have read the same tokens as the run did."""
    config = PeftConfig.from_pretrained(adapter)
    labels = dict(num_labels=load_file(scores)["logits"].shape[-1]) if config.task_type.endswith("_CLS") else {}
    model = CLASSES[config.task_type].from_pretrained(folder, dtype=torch.float32, **labels).eval()
    if getattr(config, "prompt_tuning_init", None) == "TEXT":
        config.inference_mode = False
        fresh = get_peft_model(deepcopy(model), config).get_prompt(1)[0]
        drift = (load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"][: len(fresh)] - fresh).abs().max()
        print("the prompt moved from its text by at most", drift.item())
    model = PeftModel.from_pretrained(model, adapter).eval()
    ours = load_file(scores)
    inputs = {name: value for name, value in ours.items() if value.dtype == torch.int64 and name != "labels"}
    logits = model(**inputs).logits
    kept = ours["logits"]
    if config.task_type in ("CAUSAL_LM", "TOKEN_CLS"):
        mask = inputs["attention_mask"] == 1
        logits, kept = logits[:, -mask.shape[1] :][mask], kept[mask]
    if config.task_type == "SEQ_2_SEQ_LM":
        mask = ours["labels"] != -100
        logits, kept = logits[mask], kept[mask]
    torch.testing.assert_close(logits, kept, rtol=1e-4, atol=1e-4)
    print("ok", adapter)


def write_as_older_versions_did(folder):
    old = OUT / "old"
    old.mkdir(exist_ok=True)
    torch.save(load_file(folder / "adapter_model.safetensors"), old / "adapter_model.bin")
    (old / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--check", type=Path)
    parser.add_argument("--run", type=Path, nargs=3, metavar=("MODEL", "ADAPTER", "SCORES"))
    arguments = parser.parse_args()
    if arguments.run:
        return check_run(*arguments.run)
    for case, name in ((case, name) for case, (_, names, _) in CASES.items() for name in names):
        folder = OUT / f"{case}_{name}"
        if arguments.check:
            saved = arguments.check / f"{case}_{name}"
            if not saved.exists():
                raise SystemExit(f"{saved} is missing")
            logits = logits_of(case, PeftModel.from_pretrained(base(case), saved).eval(), batch(case))
            ours = load_file(saved / "logits.safetensors")["logits"].reshape(logits.shape)
            torch.testing.assert_close(logits, ours, rtol=1e-4, atol=1e-4)
            print("ok", saved.name)
            continue
        model, tensors = make(case, name)
        if arguments.verify:
            kept = load_file(folder / "reference.safetensors")
            assert kept.keys() == tensors.keys(), f"{case} {name}: {kept.keys() ^ tensors.keys()}"
            for key, tensor in tensors.items():
                torch.testing.assert_close(tensor, kept[key], rtol=1e-4, atol=1e-4, msg=f"{case} {name} {key}")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            model.peft_config["default"].base_model_name_or_path = case
            model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)
            save_file(tensors, folder / "reference.safetensors")
            if (case, name) == OLD:
                write_as_older_versions_did(folder)


if __name__ == "__main__":
    main()
