#!/usr/bin/env python3
"""One measurement of PEFT and PyTorch: training steps of one shape, as one line of JSON.

    peft_step.py --shape llama --method lora --steps 10 --threads 2
    peft_step.py --product --threads 2
    peft_step.py --shape llama_1b --prepared DIR --device cuda --dtype bf16 [--compile | --recompute]

`run.py` and `gpu.py` start it, one process for each measurement, in turn with `training_step.rs`, which prints the same
fields.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported; nothing here needs a network

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

SHAPES = json.loads((Path(__file__).resolve().parent / "shapes.json").read_text())
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
SEED = 7
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

# M x K x N of single products: the head of the Llama shape, and one that is large in every direction.
PRODUCTS = [(1024, 384, 8000), (2048, 2048, 2048)]
# On a GPU.
DEVICE_PRODUCTS = [(8192, 8192, 8192)]
PRODUCT_ROUNDS = 20


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    result = products(options) if options.product else steps(options)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    print(json.dumps(result | {"implementation": "peft", "threads": options.threads, "versions": versions}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="weights, adapter and tokens that prepare.py wrote")
    parser.add_argument("--compile", action="store_true", help="the model under torch.compile")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing of every block")
    parser.add_argument("--product", action="store_true", help="measure single large products instead of steps")
    parser.add_argument("--kernels", action="store_true", help="name the kernels of the last step on a GPU")
    return parser.parse_args()


def steps(options):
    torch.manual_seed(SEED)
    start_rss_bytes = memory("VmRSS")
    shape = SHAPES[options.shape]
    model = prepared_model(options) if options.prepared else build(shape, options.method)
    if options.recompute:
        model.gradient_checkpointing_enable()
        if options.method == "lora":
            model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    # PEFT keeps the untrained copy of a head that it trains; it is no parameter of the model.
    total = sum(p.numel() for name, p in model.named_parameters() if ".original_module." not in name)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = prepared_batches(shape, options) if options.prepared else [random_batch(shape)]
    stepped = torch.compile(model) if options.compile else model
    wait = waiting(options)

    gc.collect()
    loaded_rss_bytes = memory("VmRSS")
    build_peak_bytes = memory("VmHWM")
    reset_peak()
    on_device = options.device == "cuda"
    device_memory = {"before": torch.cuda.memory_allocated()} if on_device else None
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) if options.kernels else None
    step_ms, losses = [], []
    for step in range(options.steps):
        batch = batches[step % len(batches)]
        wait()
        if profiler and step + 1 == options.steps:
            profiler.start()
        started = time.perf_counter()
        loss = stepped(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait()
        step_ms.append((time.perf_counter() - started) * 1e3)
        losses.append(loss.item())
    step_peak_bytes = memory("VmHWM")
    if profiler:
        profiler.stop()
    if on_device:
        device_memory |= {
            "most": torch.cuda.max_memory_allocated(),
            "after": torch.cuda.memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
        }

    tokens = shape["batch_size"] * shape["seq_len"]
    median_ms = statistics.median(step_ms[options.steps // 2 :])
    # The kernel's figure for the process; it forgets what came before `reset_peak`.
    whole_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "shape": options.shape,
        "method": options.method,
        "steps": options.steps,
        "median_ms": median_ms,
        "step_ms": step_ms,
        "tokens_per_second": tokens / (median_ms / 1e3),
        "start_rss_bytes": start_rss_bytes,
        "loaded_rss_bytes": loaded_rss_bytes,
        "step_peak_bytes": step_peak_bytes,
        "peak_rss_bytes": max(build_peak_bytes, step_peak_bytes, whole_peak_bytes),
        "trainable_params": sum(p.numel() for p in trained),
        "total_params": total,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "losses": losses,
        "device_peak_bytes": torch.cuda.max_memory_allocated() if on_device else None,
        "device_memory": device_memory,
        "kernels": kernels(profiler) if profiler else None,
    }


def kernels(profiler):
    """Launches and milliseconds of each kernel of a step by name; copies are none."""
    events = [event for event in profiler.key_averages() if not event.key.startswith(("Memcpy", "Memset", "cuda"))]
    return {event.key: (event.count, event.device_time_total / 1e3) for event in events if event.device_time_total > 0}


def build(shape, method):
    """The model in training mode, f32, random weights, SDPA attention; PEFT's adapters on it unless `method` is full."""
    fields = dict(shape["config"])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    # A training step needs no cache of keys and values.
    config.use_cache = False
    if config.model_type == "bert":
        factory, task = AutoModelForSequenceClassification, "SEQ_CLS"
    else:
        factory, task = AutoModelForCausalLM, "CAUSAL_LM"
    model = factory.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    if method == "lora":
        lora = LoraConfig(
            r=shape["rank"],
            lora_alpha=shape["alpha"],
            lora_dropout=0.0,
            target_modules=shape["targets"],
            fan_in_fan_out=config.model_type == "gpt2",
            task_type=task,
        )
        model = get_peft_model(model, lora)
    return model.train()


def prepared_model(options):
    """The prepared weights on the device, the prepared adapter on them unless `method` is full. PEFT keeps it in f32."""
    dtype, folder = DTYPES[options.dtype], options.prepared
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype, attn_implementation="sdpa")
    model.config.use_cache = False
    model = model.to(options.device)
    if options.method == "lora":
        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    return model.train()


def prepared_batches(shape, options):
    rows, length = shape["batch_size"], shape["seq_len"]
    ids = torch.frombuffer(bytearray((options.prepared / "ids.bin").read_bytes()), dtype=torch.int32)
    ids = ids.view(-1, rows, length).long().to(options.device)
    return [{"input_ids": batch, "labels": batch} for batch in ids]


def random_batch(shape):
    """Rows without padding. Of a decoder the ids are the labels, which the model shifts by one."""
    size, config = (shape["batch_size"], shape["seq_len"]), shape["config"]
    ids = torch.randint(0, config["vocab_size"], size)
    labels = torch.randint(0, config["num_labels"], size[:1]) if "num_labels" in config else ids
    return {"input_ids": ids, "labels": labels}


def memory(field):
    """`VmRSS`, resident now, or `VmHWM`, the highest since `reset_peak`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    sys.exit(f"/proc/self/status has no {field}")


def reset_peak():
    """Makes `VmHWM` begin anew, so that what building the model took does not count as the step's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def products(options):
    rates = {}
    wait = waiting(options)
    for m, k, n in PRODUCTS if options.device == "cpu" else DEVICE_PRODUCTS:
        a, b = (torch.randn(*size, device=options.device, dtype=DTYPES[options.dtype]) for size in ((m, k), (k, n)))
        seconds = []
        for _ in range(PRODUCT_ROUNDS):
            wait()
            started = time.perf_counter()
            a @ b
            wait()
            seconds.append(time.perf_counter() - started)
        # The best round: a rate that the machine reaches, whatever else it did meanwhile.
        rates[f"{m}x{k}x{n}"] = 2 * m * k * n / min(seconds) / 1e9
    return {"gflops_per_second": rates}


def waiting(options):
    return torch.cuda.synchronize if options.device == "cuda" else lambda: None


if __name__ == "__main__":
    main()
