"""What a step on a GPU consists of: the floor, memory by part, kernels, and what the first step takes with nothing compiled.

Each figure has a process of its own, since looking slows the steps: gpu.py `--parts` asks for them after its rounds.
"""

import os
import re
import tempfile
from pathlib import Path

from flops import lora_step_flops
from run import table

GIB = 1024**3
# Steps of a process that is looked at: kernels are compiled, and the allocator has settled, in the first ones.
SETTLED = 4
# Kernels that are named, those that take the longest.
NAMED = 8


def parts(kinds, common, options, run_once, shape):
    """The tables, for each of `kinds`, a command by its name."""
    floor = run_once([options.python, *floor_command(options)], options.timeout)["gflops_per_second"]
    best = max(floor.values())
    flops = lora_step_flops(shape)
    lines = [
        f"- {flops / 1e12:.2f} TFLOP in the products of a LoRA step; {flops / best / 1e6:.1f} ms at the {best / 1e3:.0f} TFLOP/s of one "
        "large product in PyTorch, in this run\n"
    ]
    memory, kernels, named = [], [], []
    for key, command in kinds.items():
        ours = key[0] != "peft"
        sized = lambda steps: [*command, *common, "--steps", str(steps)]
        with tempfile.TemporaryDirectory() as empty:
            cold = run_once(sized(SETTLED) + (["--pools"] if ours else []), options.timeout, nothing_compiled(empty), empty)
        memory.append([" ".join(key), *memory_row(cold)])
        steady = profile(sized(SETTLED), ours, run_once, options.timeout)
        count = sum(count for count, _ in steady.values())
        busy = sum(ms for _, ms in steady.values())
        kernels.append([" ".join(key), f"{count:.0f}", f"{busy:.1f}", f"{cold['step_ms'][0] / 1e3:.1f}"])
        longest = sorted(steady.items(), key=lambda item: -item[1][1])[:NAMED]
        named += [[" ".join(key), name[:90], f"{count:.0f}", f"{ms:.2f}"] for name, (count, ms) in longest]
    header = ["implementation", "weights, adapters, tokens", "optimizer's state", "activations, gradients", "spare in pools", "driver, libraries", "all"]
    lines.append(table("Memory by part, GiB", header, memory))
    header = ["implementation", "kernels of a step", "their time, ms, one by one", "first step with nothing compiled, s"]
    lines.append(table("Kernels", header, kernels))
    lines.append(table("Those that take the longest", ["implementation", "kernel", "launches of a step", "ms"], named))
    return "\n".join(lines)


def floor_command(options):
    program = Path(__file__).resolve().parent / "peft_step.py"
    return [str(program), "--product", "--device", "cuda", "--dtype", options.dtype]


def nothing_compiled(empty):
    """Caches of kernels in a folder that is empty: the driver's, Triton's, the compiler's of PyTorch, and CubeCL's, which lies
    in `target` of the project that a process is started in."""
    (Path(empty) / "Cargo.toml").touch()
    return {
        "__GL_SHADER_DISK_CACHE_PATH": empty,
        "CUDA_CACHE_PATH": empty,
        "TRITON_CACHE_DIR": os.path.join(empty, "triton"),
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(empty, "inductor"),
    }


def memory_row(run):
    """Before the first step; what stays after the last beyond it; the most in use beyond that; the rest of what is reserved;
    the rest of what the driver reports."""
    pools = run.get("device_memory") or device_memory(run["pools"])
    before, most, after, reserved = (pools[name] for name in ("before", "most", "after", "reserved"))
    sizes = [before, after - before, most - after, reserved - most, run["gpu_bytes"] - reserved, run["gpu_bytes"]]
    return [f"{size / GIB:.2f}" for size in sizes]


def device_memory(pools):
    return {
        "before": pools["before"]["in_use_bytes"],
        "most": pools["most_in_use_bytes"],
        "after": pools["after"]["in_use_bytes"],
        "reserved": pools["after"]["reserved_bytes"],
    }


def profile(command, ours, run_once, timeout):
    """Launches and milliseconds of each kernel in the last step, by name."""
    if not ours:
        return run_once([*command, "--kernels"], timeout)["kernels"]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        run_once(command, timeout, {"CUBECL_DEBUG_LOG": str(log), "CUBECL_DEBUG_OPTION": "profile-medium"})
        return profiled(log.read_text())


def profiled(log):
    """The last table in a log of CubeCL, which writes one at each wait for the device: a step waits at its end."""
    kernels = {}
    for line in log[log.rfind("| Name ") :].splitlines()[1:]:
        # Names may have bars of their own.
        cells = [cell.strip() for cell in line.strip().strip("|").rsplit("|", 3)]
        if len(cells) == 4 and cells[0] != "Total" and cells[2].isdigit():
            kernels[cells[0]] = (int(cells[2]), milliseconds(cells[1]))
    return kernels


def milliseconds(duration):
    """Of Rust's `1.5s`, `1.5ms`, `1.5µs`, `15ns`."""
    number, unit = re.fullmatch(r"([\d.]+)(s|ms|µs|ns)", duration).groups()
    return float(number) * {"s": 1e3, "ms": 1.0, "µs": 1e-3, "ns": 1e-6}[unit]

