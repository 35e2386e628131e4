"""Every method of PEFT on weights, on the models of other cases and on a module of convolutions.

A case is a folder `adapter/` (trained and saved by PEFT) and a `reference.safetensors`; its base is another case's.
"""

import json

from dataclasses import dataclass, field
from pathlib import Path

import peft.tuners.loha.layer
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.tuners.lora import LoraGAConfig
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def make_weight_cp(t1, w1a, w1b, t2, w2a, w2b, scale):
    """PEFT's formula of LoHa with a core, differentiated by PyTorch.

    The backward that PEFT 0.21.2 wrote by hand takes the second matrix's core and factor for the gradient of the first's
    `w1a`, and the other way around.
    """
    first = torch.einsum("i j k l, j r, i p -> p r k l", t1, w1b, w1a)
    second = torch.einsum("i j k l, j r, i p -> p r k l", t2, w2b, w2a)
    return first * second * scale


peft.tuners.loha.layer.make_weight_cp = make_weight_cp

STEPS = 8
LEARNING_RATE = 2e-2
TOLERANCE = 1e-4


@dataclass
class MethodCase:
    """One method on one base."""

    name: str
    base: str  # the case that holds the model, or "vision"
    config: object
    seed: int = 71
    lora: object = field(default=None)
    converted: bool = False  # saved as plain LoRA, with the folder of the adapter before the training


LINEAR = ["down_proj", "q_proj", "v_proj"]


def method_cases():
    text = dict(task_type="CAUSAL_LM")
    return [
        MethodCase("dora", "llama", LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR, **text)),
        MethodCase("dora_gpt2", "gpt2", LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=["c_attn"], fan_in_fan_out=True, **text)),
        MethodCase("lora_bias", "gpt2", LoraConfig(r=3, lora_alpha=6, lora_bias=True, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, **text)),
        MethodCase("lora_biases", "gpt2", LoraConfig(r=3, lora_alpha=6, bias="all", target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, **text)),
        MethodCase("lora_own_biases", "gpt2", LoraConfig(r=3, lora_alpha=6, bias="lora_only", lora_bias=True, target_modules=["c_attn"], fan_in_fan_out=True, **text)),
        MethodCase("vera_own_biases", "vision", VeraConfig(r=5, bias="vera_only", target_modules=["head"])),
        MethodCase("conv_biases", "vision", LoraConfig(r=3, lora_alpha=6, bias="all", target_modules=["line", "plane"])),
        MethodCase("pissa", "llama", LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=LINEAR, rank_pattern={"v_proj": 2}, **text)),
        MethodCase("pissa_gpt2", "gpt2", LoraConfig(r=3, lora_alpha=6, use_rslora=True, init_lora_weights="pissa", target_modules=["c_attn"], fan_in_fan_out=True, **text)),
        MethodCase("pissa_wide", "vision", LoraConfig(r=4, lora_alpha=4, init_lora_weights="pissa", target_modules=["head"])),
        MethodCase("olora", "llama", LoraConfig(r=4, lora_alpha=8, init_lora_weights="olora", target_modules=LINEAR, **text)),
        MethodCase("pissa_dora", "llama", LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa", use_dora=True, target_modules=["q_proj", "down_proj"], **text)),
        MethodCase("pissa_niter_converted", "llama", LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa_niter_4", target_modules=["q_proj", "v_proj"], **text), converted=True),
        MethodCase("corda_converted", "llama", LoraConfig(r=3, lora_alpha=3, init_lora_weights="corda", corda_config=CordaConfig(), target_modules=["q_proj", "v_proj"], **text), converted=True),
        MethodCase("lora_ga_converted", "llama", LoraConfig(r=2, lora_alpha=4, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(), target_modules=["q_proj", "v_proj"], **text), converted=True),
        MethodCase("lora_layers", "llama", LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], layers_pattern="layers", **text)),
        MethodCase("lora_embedding", "llama_tied", LoraConfig(r=3, lora_alpha=6, target_modules=["embed_tokens", "q_proj"], **text)),
        MethodCase("dora_embedding", "llama", LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=["embed_tokens"], **text)),
        MethodCase("lora_tokens", "llama_tied", LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"], trainable_token_indices=[3, 7, 20], **text)),
        MethodCase("tokens", "llama_tied", TrainableTokensConfig(token_indices=[5, 9, 31], **text)),
        MethodCase("vera", "llama", VeraConfig(r=6, target_modules=LINEAR, projection_prng_key=3, **text)),
        MethodCase("vera_key", "llama", VeraConfig(r=5, target_modules=["q_proj", "v_proj"], projection_prng_key=7, save_projection=False, **text)),
        MethodCase("loha", "llama", LoHaConfig(r=3, alpha=6, target_modules=LINEAR, rank_pattern={"v_proj": 2}, **text)),
        MethodCase("lokr", "llama", LoKrConfig(r=2, alpha=4, target_modules=LINEAR, **text)),
        MethodCase("lokr_both", "llama", LoKrConfig(r=1, alpha=4, target_modules=LINEAR, decompose_both=True, decompose_factor=4, **text)),
        MethodCase("adalora", "llama", AdaLoraConfig(init_r=5, target_r=3, tinit=1, tfinal=2, deltaT=1, total_step=STEPS, lora_alpha=8, target_modules=LINEAR, **text)),
        MethodCase("ia3", "gpt2", IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True, **text)),
        MethodCase("ia3_llama", "llama", IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **text)),
        MethodCase("conv_lora", "vision", LoraConfig(r=3, lora_alpha=6, target_modules=["line", "plane", "head"])),
        MethodCase("conv_dora", "vision", LoraConfig(r=2, lora_alpha=6, use_dora=True, target_modules=["line", "plane"])),
        MethodCase("conv_loha", "vision", LoHaConfig(r=2, alpha=6, target_modules=["line", "plane"])),
        MethodCase("conv_lokr", "vision", LoKrConfig(r=1, alpha=2, target_modules=["line", "plane", "head"])),
        MethodCase("conv_loha_core", "vision", LoHaConfig(r=2, alpha=6, use_effective_conv2d=True, target_modules=["line", "plane", "head"])),
        MethodCase("conv_lokr_core", "vision", LoKrConfig(r=2, alpha=4, use_effective_conv2d=True, decompose_factor=1, target_modules=["line", "plane"])),
        MethodCase("conv_lokr_plane", "vision", LoKrConfig(r=1, alpha=2, use_effective_conv2d=True, target_modules=["plane", "head"])),
        MethodCase("conv_lokr_whole", "vision", LoKrConfig(r=4, alpha=4, use_effective_conv2d=True, target_modules=["line", "plane", "head"])),
        MethodCase("conv_groups", "grouped", LoraConfig(r=4, lora_alpha=8, target_modules=["line", "plane"])),
        MethodCase("conv_ia3", "vision", IA3Config(target_modules=["plane", "head"], feedforward_modules=["head"])),
    ]


class Vision(torch.nn.Module):
    """Convolutions in one and two dimensions, one of them with a bias."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Conv1d(6, 8, 3, padding=1)
        self.plane = torch.nn.Conv2d(4, 6, (2, 3), stride=2)
        self.head = torch.nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.line(x))  # [batch, 8, 9]
        x = x.reshape(-1, 4, 2, 9)
        x = torch.relu(self.plane(x))  # [batch, 6, 1, 4]
        x = x.reshape(x.shape[0], 2, 12)
        return self.head(x)


class Grouped(torch.nn.Module):
    """Convolutions in groups."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Conv1d(6, 8, 3, padding=1, groups=2)
        self.plane = torch.nn.Conv2d(4, 8, (2, 3), stride=2, groups=4)

    def forward(self, x):
        x = torch.relu(self.line(x))  # [batch, 8, 9]
        x = self.plane(x.reshape(-1, 4, 2, 9))  # [batch, 8, 1, 4]
        return x.flatten(2)


def keep_to_groups(model):
    """Takes from every A of a convolution in groups the channels of other groups than its rows' own."""
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "lora_A") and getattr(layer.base_layer, "groups", 1) > 1:
                groups = layer.base_layer.groups
                weight = layer.lora_A["default"].weight
                mask = torch.eye(groups).repeat_interleave(weight.shape[0] // groups, 0)
                mask = mask.repeat_interleave(weight.shape[1] // groups, 1)  # [r, channels]
                weight.mul_(mask.reshape(*mask.shape, *[1] * (weight.dim() - 2)))


# Modules that are the base of a case, other than the model of another case.
MODULES = {"vision": Vision, "grouped": Grouped}


def module(name, seed):
    model = MODULES[name]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def load_base(case, here, seed=5):
    if case.base in MODULES:
        return module(case.base, seed)
    folder = here / case.base / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def inputs_of(case, here):
    if case.base in MODULES:
        x = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(11))
        return {"x": x}
    reference = load_file(here / case.base / "reference.safetensors")
    return {key: reference[key] for key in ("input_ids", "attention_mask", "labels")}


def forward(case, model, inputs, with_loss=True):
    if case.base in MODULES:
        output = model(inputs["x"])
        return output, output.pow(2).mean()
    # AdaLoRA's penalty, which comes with a loss, needs an adapter that is trained.
    inputs = inputs if with_loss else {key: value for key, value in inputs.items() if key != "labels"}
    output = model(**inputs, use_cache=False)
    return output.logits, output.loss


def weights(model):
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {key: value.detach().clone() for key, value in state.items()}


def file_key(name):
    """The name of a parameter as a file has it."""
    return name.replace(".default.weight", ".weight").replace(".default.bias", ".bias").replace(".default", "").replace(
        "lora_magnitude_vector.weight", "lora_magnitude_vector"
    )


def perturb(model, generator):
    """Values from which every parameter has a gradient; those that multiply stay near what they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name or "ia3_l" in name or "trainable_tokens" in name:
                parameter.mul_(1 + 0.2 * noise)
            elif "vera_lambda" in name or "hada_" in name or "lokr_" in name or "lora_E" in name:
                parameter.copy_(0.4 * noise)
            else:
                parameter.copy_(0.15 * noise)


def write(case, folder, here):
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.rglob("*"), reverse=True):
        old.unlink() if old.is_file() else old.rmdir()
    torch.manual_seed(case.seed)
    if case.converted:
        return write_converted(case, folder, here)
    inputs = inputs_of(case, here)
    reference = {}
    if case.base in MODULES:
        reference["x"] = inputs["x"]
        for name, value in module(case.base, 5).named_parameters():
            reference[f"base.weight/{name}"] = value.detach().clone()
    with torch.no_grad():
        reference["base.logits"] = forward(case, load_base(case, here), inputs)[0]
    model = get_peft_model(load_base(case, here), case.config)
    model.eval()
    generator = torch.Generator().manual_seed(case.seed + 1)
    perturb(model, generator)

    logits, loss = forward(case, model, inputs)
    loss.backward()
    reference["init.logits"], reference["init.loss"] = logits.detach(), loss.detach()
    start = weights(model)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.requires_grad:
            reference[f"init.grad/{file_key(name)}"] = parameter.grad.clone()
    for key, value in start.items():
        reference[f"init.weight/{key}"] = value
    # How a folder of these values says what it is, before any rank was given away.
    config = dict(model.peft_config["default"].to_dict())
    save_config(case, config, folder / "init_config.json")

    if case.base == "grouped":
        keep_to_groups(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    for step in range(STEPS):
        optimizer.zero_grad()
        forward(case, model, inputs)[1].backward()
        optimizer.step()
        if case.base == "grouped":
            keep_to_groups(model)
        if isinstance(case.config, AdaLoraConfig):
            model.base_model.update_and_allocate(step + 1)
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    save_config(case, json.loads(path.read_text()), path)
    model = PeftModel.from_pretrained(load_base(case, here), folder / "adapter").eval()
    with torch.no_grad():
        reference["trained.logits"] = forward(case, model, inputs, with_loss=False)[0]
    gap = (reference["trained.logits"] - reference["base.logits"]).abs().max().item()
    assert gap > 0.05, f"{case.name}: the adapter moves the logits by {gap:.1e} only"
    for key, value in reference.items():
        assert not value.is_floating_point() or value.isfinite().all(), key
    save_file({key: value.contiguous() for key, value in reference.items()}, folder / "reference.safetensors")


def write_converted(case, folder, here):
    """An adapter over a base that lost its factors, trained, and saved as a plain LoRA for the base as it was."""
    inputs = inputs_of(case, here)
    base = load_base(case, here)
    word = case.config.init_lora_weights
    if word == "corda":
        preprocess_corda(base, case.config, run_model=lambda: [base(row[None]) for row in inputs["input_ids"]])
    if word == "lora_ga":
        preprocess_loraga(base, case.config, lambda: forward(case, base, inputs)[1].backward())
    model = get_peft_model(base, case.config)
    model.train()
    # As PEFT documents it: the adapter that training starts from, under a configuration that decomposes nothing.
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(folder / "initial", save_embedding_layers=False)
    model.peft_config["default"].init_lora_weights = word
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=LEARNING_RATE
    )
    for _ in range(STEPS):
        optimizer.zero_grad()
        forward(case, model, inputs)[1].backward()
        optimizer.step()
    with torch.no_grad():
        trained = forward(case, model.eval(), inputs)[0]
    model.save_pretrained(
        folder / "adapter",
        save_embedding_layers=False,
        path_initial_model_for_weight_conversion=str(folder / "initial"),
    )
    for path in [*(folder / "initial").iterdir(), folder / "adapter" / "README.md"]:
        path.unlink(missing_ok=True)
    (folder / "initial").rmdir()
    path = folder / "adapter" / "adapter_config.json"
    save_config(case, json.loads(path.read_text()), path)
    plain = PeftModel.from_pretrained(load_base(case, here), folder / "adapter").eval()
    with torch.no_grad():
        reference = {
            "base.logits": forward(case, load_base(case, here), inputs)[0],
            "trained.logits": forward(case, plain, inputs)[0],
        }
    gap = (reference["trained.logits"] - trained).abs().max().item()
    assert gap < TOLERANCE, f"{case.name}: converted, the logits differ by {gap:.1e}"
    gap = (reference["trained.logits"] - reference["base.logits"]).abs().max().item()
    assert gap > 0.05, f"{case.name}: the adapter moves the logits by {gap:.1e} only"
    save_file(reference, folder / "reference.safetensors")


def save_config(case, config, path):
    config["base_model_name_or_path"] = f"burn-lora/golden-{case.base}"  # not this machine's path
    for key, value in config.items():
        if isinstance(value, (set, frozenset)):
            config[key] = sorted(value)
        elif hasattr(value, "value"):
            config[key] = value.value
        elif isinstance(value, list) and key.endswith("modules"):
            config[key] = sorted(value)
    # What only the running library asks for.
    config = {key: value for key, value in config.items() if key != "runtime_config"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")


def check(case, folder, here):
    """PEFT loads what burn-lora saved in `folder` and must find the logits that burn-lora wrote beside it."""
    mine = load_file(folder / "logits.safetensors")["logits"]
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    config = PeftConfig.from_pretrained(folder / "adapter")
    if case.base in MODULES:
        config.task_type = None  # which is that of a language model where burn-lora is told of none
    model = PeftModel.from_pretrained(load_base(case, here), folder / "adapter", config=config).eval()
    expected = weights(model)
    # The rows of a tied head are the embedding's.
    tied = {key for key in expected if key.endswith("lm_head.trainable_tokens_delta")}
    complaints = [f"missing {key}" for key in sorted(expected.keys() - saved.keys() - tied)]
    complaints += [f"unexpected {key}" for key in sorted(saved.keys() - expected.keys())]
    outcome = set_peft_model_state_dict(model, dict(saved))
    complaints += [f"unexpected {key}" for key in outcome.unexpected_keys]
    inputs = inputs_of(case, here)
    with torch.no_grad():
        logits = forward(case, model, inputs, with_loss=False)[0]
    if logits.shape != mine.shape:
        return [*complaints, f"logits are {list(mine.shape)}, not {list(logits.shape)}"]
    real = inputs["attention_mask"].bool() if "attention_mask" in inputs else slice(None)
    base = load_file(here / case.name / "reference.safetensors")["base.logits"]
    gap = (logits[real] - mine[real]).abs().max().item()
    moved = (base[real] - mine[real]).abs().max().item()
    print(f"check: {case.name}: largest difference {gap:.2e} (the adapter moves the logits by {moved:.2e})")
    if not gap <= TOLERANCE:
        complaints.append(f"logits differ by {gap:.2e}, allowed {TOLERANCE:.0e}")
    if not moved > 1e-2:
        complaints.append(f"the adapter does nothing: it moves the logits by {moved:.2e}")
    return complaints
