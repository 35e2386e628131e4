#!/usr/bin/env python3
"""Golden values for burn-lora, computed by PyTorch, Transformers and PEFT in f32 on the CPU.

    generate.py                 write every case beside this script
    generate.py --verify        make them again in a temporary folder and compare with the committed ones
    generate.py --check DIR     load the adapters that burn-lora saved under DIR and compare their logits
    generate.py --case NAME     only this case, in each of the above; may be repeated

Each case is a folder: `model/` (a Hugging Face checkpoint), `adapter/` (a PEFT adapter) and
`reference.safetensors` (whole tensors; README.md lists the names).
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported; nothing here needs a network

import decoding
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers import GPT2Config, LlamaConfig, Qwen2Config
from transformers.utils import logging

import decoders
import encoders
import methods
import seq2seq

HERE = Path(__file__).resolve().parent
LOGITS_TOLERANCE = 1e-4  # what --check allows between burn-lora and PEFT
VERIFY_TOLERANCE = 1e-4  # what --verify allows between two CPUs
MIN_MARGIN = 1e-2  # a greedy choice must not hang on rounding
MIN_GRADIENT = 1e-6  # nor an optimizer step

STEPS = 5
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
NEW_TOKENS = 8
PROMPT_LENGTHS = [5, 3, 1]

# Right-padded rows: (prompt tokens, whose labels are masked; tokens in all).
ROWS = [(4, 11), (2, 7), (5, 9)]

# With heads of 8 and theta 333, one of the four frequencies stays, one is interpolated, and two are divided.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass
class Case:
    """One tiny model and the adapter configuration that is tried on it."""

    name: str
    seed: int
    config: object
    lora: dict  # None: only the bare model is computed
    encoder: str = ""  # an encoder, and what its head is for
    seq2seq: bool = False  # an encoder and a decoder
    dtype: torch.dtype = torch.float32
    max_shard_size: str = "1GB"
    config_removals: tuple = ()
    config_additions: dict = field(default_factory=dict)
    variants: dict = field(default_factory=dict)  # other fields of config.json over the same weights, by name
    has_sequences: bool = False  # labels of rows, too, by a head over the same weights


@dataclass
class Decoding:
    """What `generate` makes of prompts, with the models of other cases."""

    name: str = "decoding"


def cases():
    llama = dict(
        num_hidden_layers=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        attention_dropout=0.0,
    )
    return [
        Case(
            name="llama",
            seed=11,
            config=LlamaConfig(
                vocab_size=67,
                hidden_size=32,
                intermediate_size=45,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                rms_norm_eps=3e-5,
                rope_parameters={"rope_type": "default", "rope_theta": 7777.0},
                tie_word_embeddings=False,
                **llama,
            ),
            lora=dict(target_modules=["q_proj", "v_proj", "down_proj"]),
        ),
        Case(
            name="llama_tied",
            seed=23,
            config=LlamaConfig(
                vocab_size=61,
                hidden_size=30,
                intermediate_size=39,
                num_attention_heads=3,
                num_key_value_heads=1,
                head_dim=8,
                attention_bias=True,
                max_position_embeddings=512,
                rms_norm_eps=1e-4,
                rope_parameters={"rope_theta": 333.0, **LLAMA3_ROPE},
                tie_word_embeddings=True,
                **llama,
            ),
            lora=dict(
                target_modules=["q_proj", "v_proj", "down_proj"],
                rank_pattern={"down_proj": 3, r"layers\.1\.self_attn\.q_proj": 2},
                alpha_pattern={"v_proj": 5, r"model\.layers\.0\.mlp\.down_proj": 2},
            ),
            dtype=torch.bfloat16,
            max_shard_size="12KB",
            # The layout that Transformers 4 wrote, still that of most published folders.
            config_removals=("rope_parameters", "dtype"),
            config_additions={"rope_theta": 333.0, "rope_scaling": LLAMA3_ROPE, "torch_dtype": "bfloat16"},
        ),
        Case(
            name="qwen2",
            seed=53,
            config=Qwen2Config(
                vocab_size=53,
                hidden_size=24,
                intermediate_size=29,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                rms_norm_eps=1e-5,
                rope_parameters={"rope_type": "default", "rope_theta": 55555.0},
                tie_word_embeddings=True,
                **llama,
            ),
            lora=dict(
                r=3,
                target_modules="all-linear",
                exclude_modules=["o_proj", "0.mlp.up_proj"],
            ),
            dtype=torch.float16,
        ),
        Case(
            name="gpt2",
            seed=37,
            config=GPT2Config(
                vocab_size=59,
                n_positions=40,
                n_embd=30,
                n_layer=2,
                n_head=3,
                layer_norm_epsilon=3e-5,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=1,
                eos_token_id=2,
            ),
            lora=dict(target_modules=r".*\.(c_attn|c_fc)", use_rslora=True, fan_in_fan_out=True),
        ),
        *encoders.cases(Case),
        *seq2seq.cases(Case),
    ] + [Case(has_sequences=True, **entry) for entry in decoders.entries()]


# ---------------------------------------------------------------------------------------------------------- the model


def randomize(model, generator):
    """Weights large enough that every part of the model shows in the logits; no norm is 1 and no bias 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                value = 0.3 * noise
            elif parameter.dim() == 1:
                # Gemma's norms add 1 to their weight.
                value = 0.3 * noise + (0.0 if "gemma" in model.config.model_type else 1.0)
            elif "wpe" in name or "wte" in name or "embed" in name:
                value = 0.4 * noise
            else:
                value = 1.2 * noise / math.sqrt(model.config.hidden_size)
            parameter.copy_(value)


def auto_model(case):
    if case.seq2seq:
        return AutoModelForSeq2SeqLM
    return encoders.MODELS[case.encoder] if case.encoder else AutoModelForCausalLM


def write_base(case, folder):
    torch.manual_seed(case.seed)
    model = auto_model(case).from_config(case.config, dtype=torch.float32)
    if case.seq2seq:
        seq2seq.untie(case, model)
    randomize(model, torch.Generator().manual_seed(case.seed))
    model.to(case.dtype)
    model.save_pretrained(folder, max_shard_size=case.max_shard_size)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in case.config_removals:
        del config[key]
    config.update(case.config_additions)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)


def write_variant(case, name, folder, scratch):
    """Puts the variant's config.json beside the case, and a whole model folder into `scratch`."""
    changes = case.variants[name]
    config = json.loads((folder / "model" / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None or key not in changes}
    (folder / "variants").mkdir(exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "variants" / f"{name}.json").write_text(text)
    model = Path(scratch) / name
    shutil.copytree(folder / "model", model)
    (model / "config.json").write_text(text)
    return model


def load_base(case, folder):
    model = auto_model(case).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if hasattr(model.config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")  # the others want widths that are multiples of 16 bytes
    if not case.encoder:
        model.generation_config.eos_token_id = None  # every generation has its full length
        model.generation_config.pad_token_id = 0
    return model.eval()


# ---------------------------------------------------------------------------------------------------------- the batch


def batch(case, generator):
    if case.encoder:
        return encoders.batch(case, generator)
    if case.seq2seq:
        return seq2seq.batch(case, generator)
    vocab_size = case.config.vocab_size
    width = max(total for _, total in ROWS)
    input_ids = torch.zeros(len(ROWS), width, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for row, (prompt, total) in enumerate(ROWS):
        ids = torch.randint(3, vocab_size, (total,), generator=generator)
        input_ids[row, :total] = ids
        attention_mask[row, :total] = 1
        labels[row, prompt:total] = ids[prompt:]
    return dict(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


def forward(case, model, inputs):
    if case.encoder:
        output = model(**encoders.model_inputs(case, inputs))
    else:
        output = model(**inputs, use_cache=False)
    return output.logits, output.loss


def adapter_weights(model):
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {key: value.detach().clone() for key, value in state.items()}


def adapter_gradients(model):
    """The gradients under the names that PEFT gives the weights in its files."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    strangers = [name for name, _ in named if "lora_" not in name and "modules_to_save" not in name]
    assert not strangers, f"PEFT trains more than the adapter: {strangers}"
    # A module that is saved as a whole has its plain name in the file.
    keys = [name.replace(".modules_to_save.default", "").replace(".default", "") for name, _ in named]
    return {key: value.grad.clone() for key, (_, value) in zip(keys, named)}


def perturb(model, generator):
    """A fresh adapter has B = 0, and then A has no gradient: give both factors random values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))


def write_adapter(case, model, folder):
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = f"burn-lora/golden-{case.name}"  # not this machine's path
    for names in (config["target_modules"], config["exclude_modules"]):
        if isinstance(names, list):
            names.sort()  # PEFT keeps a set: the order changes from run to run
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def optimize(case, model, inputs, steps, learning_rate):
    trainable = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = forward(case, model, inputs)[1]
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def left_padded(vocab_size, generator):
    width = max(PROMPT_LENGTHS)
    ids = torch.zeros(len(PROMPT_LENGTHS), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(PROMPT_LENGTHS):
        ids[row, width - length :] = torch.randint(3, vocab_size, (length,), generator=generator)
        mask[row, width - length :] = 1
    return ids, mask


def greedy(model, ids, mask, use_cache):
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_scores=True,
    )
    best = torch.stack(output.scores).topk(2, dim=-1).values
    margin = (best[..., 0] - best[..., 1]).min().item()
    return output.sequences[:, ids.shape[1] :].contiguous(), margin


def generations(model, base, vocab_size, generator):
    """The first prompts whose every greedy choice is clear of rounding, and which the adapter changes."""
    for _ in range(100):
        ids, mask = left_padded(vocab_size, generator)
        (cached, margin), (uncached, _) = greedy(model, ids, mask, True), greedy(model, ids, mask, False)
        assert torch.equal(cached, uncached)
        if margin > MIN_MARGIN and not torch.equal(greedy(base, ids, mask, True)[0], cached):
            return {"generate.input_ids": ids, "generate.attention_mask": mask, "generate.new_ids": cached}
    raise RuntimeError("no prompt has clear greedy choices: take another seed")


# ----------------------------------------------------------------------------------------------------------- one case


def write_case(case, folder):
    if isinstance(case, Decoding):
        return decoding.write(folder, HERE)
    if isinstance(case, methods.MethodCase):
        return methods.write(case, folder, HERE)
    with tempfile.TemporaryDirectory() as scratch:
        write_case_with(case, folder, scratch)


def write_case_with(case, folder, scratch):
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.rglob("*"), reverse=True):
        old.unlink() if old.is_file() else old.rmdir()
    write_base(case, folder / "model")

    generator = torch.Generator().manual_seed(case.seed + 1)
    inputs = batch(case, generator)
    reference = dict(inputs)

    base = load_base(case, folder / "model")
    with torch.no_grad():
        reference["base.logits"], reference["base.loss"] = forward(case, base, inputs)
        if case.encoder:
            encoder_inputs = {key: value for key, value in inputs.items() if key != "labels"}
            reference["base.hidden"] = base.base_model(**encoder_inputs).last_hidden_state
    if case.lora is None:
        return write_reference(reference, folder)

    for name in case.variants:
        with torch.no_grad():
            logits, _ = forward(case, load_base(case, write_variant(case, name, folder, scratch)), inputs)
        gap = (logits - reference["base.logits"]).abs().max().item()
        # What is only spelled otherwise changes nothing.
        assert gap > 1e-2 or name == "version_4", f"{case.name}: {name} changes the logits by {gap:.1e} only"
        reference[f"variant.{name}.logits"] = logits

    if case.has_sequences:
        reference |= decoders.sequence_logits(folder / "model", inputs, case.seed)

    torch.manual_seed(case.seed + 2)
    lora = LoraConfig(**(dict(r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM") | case.lora))
    model = get_peft_model(base, lora)
    model.eval()

    # Gradients and optimizer steps, from weights where every factor has a gradient.
    perturb(model, generator)
    start = adapter_weights(model)
    logits, loss = forward(case, model, inputs)
    loss.backward()
    reference["init.logits"], reference["init.loss"] = logits.detach(), loss.detach()
    gradients = adapter_gradients(model)
    assert gradients.keys() == start.keys()
    # AdamW divides by the gradient's size: where it is only rounding, the first steps would be too.
    # A gradient of exactly 0 (behind a ReLU) moves nothing.
    smallest = min(value[value != 0].abs().min().item() for value in gradients.values())
    assert smallest > MIN_GRADIENT, f"{case.name}: a gradient of {smallest:.1e}: take another seed"
    losses = optimize(case, model, inputs, STEPS, LEARNING_RATE)
    stepped = adapter_weights(model)
    for key, value in start.items():
        reference[f"init.weight/{key}"] = value
        reference[f"init.grad/{key}"] = gradients[key]
        reference[f"adamw.weight/{key}"] = stepped[key]
    reference["adamw.losses"] = losses
    reference["adamw.learning_rate"] = torch.tensor(LEARNING_RATE, dtype=torch.float64)
    reference["adamw.weight_decay"] = torch.tensor(WEIGHT_DECAY, dtype=torch.float64)

    # The adapter that PEFT trains and saves: other data, more steps.
    optimize(case, model, batch(case, generator), 12, 2e-2)
    write_adapter(case, model, folder / "adapter")
    model = PeftModel.from_pretrained(load_base(case, folder / "model"), folder / "adapter").eval()
    with torch.no_grad():
        reference["trained.logits"], reference["trained.loss"] = forward(case, model, inputs)
        if case.seq2seq:
            bare = load_base(case, folder / "model")
            reference |= seq2seq.generations(case, model, bare, generator, NEW_TOKENS, MIN_MARGIN)
        elif not case.encoder:
            reference |= generations(model, load_base(case, folder / "model"), case.config.vocab_size, generator)
    for stage in ("base", "init"):
        gap = (reference[f"{stage}.logits"] - reference["trained.logits"]).abs().max().item()
        assert gap > 0.1, f"{case.name}: the trained adapter is too close to {stage} ({gap:.1e})"
    write_reference(reference, folder)


def write_reference(reference, folder):
    for key, value in reference.items():
        assert not value.is_floating_point() or value.isfinite().all(), key
    reference = {key: value.contiguous() for key, value in reference.items()}
    save_file(reference, folder / "reference.safetensors")


# -------------------------------------------------------------------------------------------------- --verify, --check


def compare_tensors(name, expected, actual, tolerance):
    """Complaints about two dictionaries of tensors, and the largest difference found."""
    complaints, worst = [], 0.0
    for key in sorted(expected.keys() | actual.keys()):
        if key not in expected or key not in actual:
            complaints.append(f"{name}: {key} is only in the {'committed' if key in expected else 'new'} file")
            continue
        left, right = expected[key], actual[key]
        if left.shape != right.shape or left.dtype != right.dtype:
            complaints.append(f"{name}: {key} is {left.dtype} {list(left.shape)}, new {right.dtype} {list(right.shape)}")
            continue
        gap = (left.double() - right.double()).abs().max().item() if left.numel() else 0.0
        worst = max(worst, gap)
        if not gap <= tolerance:
            complaints.append(f"{name}: {key} differs by {gap:.2e}")
    return complaints, worst


def verify(chosen):
    complaints, worst = [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for case in chosen:
            committed, fresh = HERE / case.name, Path(scratch) / case.name
            write_case(case, fresh)
            names = {path.relative_to(root) for root in (committed, fresh) for path in root.rglob("*") if path.is_file()}
            for name in sorted(names):
                old, new, label = committed / name, fresh / name, f"{case.name}/{name}"
                if not (old.exists() and new.exists()):
                    complaints.append(f"{label}: only {'committed' if old.exists() else 'made now'}")
                elif name.suffix == ".safetensors":
                    found, gap = compare_tensors(label, load_file(old), load_file(new), VERIFY_TOLERANCE)
                    complaints += found
                    worst = max(worst, gap)
                elif json.loads(old.read_text()) != json.loads(new.read_text()):
                    complaints.append(f"{label}: the contents differ")
    print(f"verify: largest difference {worst:.2e}, {len(complaints)} complaints")
    return complaints


def check_adapter(case, folder):
    """PEFT loads what burn-lora saved in `folder` and must find the logits that burn-lora wrote beside it."""
    reference = load_file(HERE / case.name / "reference.safetensors")
    mine = load_file(folder / "logits.safetensors")["logits"]
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    model = PeftModel.from_pretrained(load_base(case, HERE / case.name / "model"), folder / "adapter").eval()

    # from_pretrained only warns of a missing key; a silent gap would leave that layer unadapted.
    expected = adapter_weights(model)
    complaints = [f"missing {key}" for key in sorted(expected.keys() - weights.keys())]
    complaints += [f"unexpected {key}" for key in sorted(weights.keys() - expected.keys())]
    outcome = set_peft_model_state_dict(model, weights)
    complaints += [f"unexpected {key}" for key in outcome.unexpected_keys]

    with torch.no_grad():
        names = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
        logits, _ = forward(case, model, {key: reference[key] for key in names if key in reference})
    if logits.shape != mine.shape:
        return [*complaints, f"logits are {list(mine.shape)}, not {list(logits.shape)}"]
    # What stands at padding is nobody's concern; some heads have one row of logits for all.
    mask = reference["labels"] != -100 if case.seq2seq else reference["attention_mask"].bool()
    real = slice(None) if case.encoder in encoders.PER_ROW else mask
    gap = (logits[real] - mine[real].float()).abs().max().item()
    moved = (reference["base.logits"][real] - mine[real].float()).abs().max().item()
    print(f"check: {case.name}: largest difference {gap:.2e} (the adapter moves the logits by {moved:.2e})")
    if not gap <= LOGITS_TOLERANCE:
        complaints.append(f"logits differ by {gap:.2e}, allowed {LOGITS_TOLERANCE:.0e}")
    if not moved > 1e-2:
        complaints.append(f"the adapter does nothing: it moves the logits by {moved:.2e}")
    return complaints


def check_experts(case, folder):
    """As `check_adapter`, of an adapter on the experts: PEFT fuses what it reads for them, so that keys cannot be compared."""
    reference = load_file(HERE / case.name / "reference.safetensors")
    mine = load_file(folder / "logits.safetensors")["logits"]
    model = PeftModel.from_pretrained(load_base(case, HERE / case.name / "model"), folder / "adapter").eval()
    with torch.no_grad():
        logits, _ = forward(case, model, {key: reference[key] for key in ("input_ids", "attention_mask")})
    real = reference["attention_mask"].bool()
    gap = (logits[real] - mine[real]).abs().max().item()
    moved = (reference["base.logits"][real] - mine[real]).abs().max().item()
    print(f"check: {case.name}, experts: largest difference {gap:.2e} (the adapter moves the logits by {moved:.2e})")
    complaints = [] if gap <= LOGITS_TOLERANCE else [f"the logits under adapted experts differ by {gap:.2e}"]
    return complaints if moved > 1e-2 else [*complaints, f"the adapted experts move the logits by {moved:.2e} only"]


def check_model(case, folder):
    """Transformers loads the base that burn-lora saved in `folder` and must find the logits of the one it was read from."""
    reference = load_file(HERE / case.name / "reference.safetensors")
    with torch.no_grad():
        inputs = {key: reference[key] for key in ("input_ids", "attention_mask")}
        logits, _ = forward(case, load_base(case, folder), inputs)
    gap = (logits - reference["base.logits"]).abs().max().item()
    print(f"check: {case.name}, saved model: largest difference {gap:.2e}")
    return [] if gap <= LOGITS_TOLERANCE else [f"the logits of the saved model differ by {gap:.2e}"]


def check(chosen, root):
    complaints = []
    for case in chosen:
        is_method = isinstance(case, methods.MethodCase)
        # What was converted is plain LoRA, which other cases write.
        if (case.lora is None and not is_method) or (is_method and case.converted):
            continue
        folder = root / case.name
        if not folder.is_dir():
            complaints.append(f"{case.name}: {folder} is not there")
            continue
        if is_method:
            complaints += [f"{case.name}: {complaint}" for complaint in methods.check(case, folder, HERE)]
            continue
        found = check_adapter(case, folder)
        if (folder / "model").is_dir():
            found += check_model(case, folder / "model")
        if (folder / "experts").is_dir():
            found += check_experts(case, folder / "experts")
        complaints += [f"{case.name}: {complaint}" for complaint in found]
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", metavar="DIR", type=Path, help="compare what burn-lora saved under DIR with PEFT")
    group.add_argument("--verify", action="store_true", help="make the values again and compare with the committed ones")
    everything = [*cases(), *methods.method_cases(), Decoding()]
    names = [case.name for case in everything]
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be repeated")
    arguments = parser.parse_args()
    chosen = [case for case in everything if case.name in (arguments.case or names)]

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    complaints = []
    if arguments.check:
        complaints = check([case for case in chosen if not isinstance(case, Decoding)], arguments.check)
    elif arguments.verify:
        complaints = verify(chosen)
    else:
        for case in chosen:
            write_case(case, HERE / case.name)
            size = sum(path.stat().st_size for path in (HERE / case.name).rglob("*") if path.is_file())
            print(f"{case.name}: {size} bytes")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
