#!/usr/bin/env python3
"""Training steps of PEFT and of burn-lora in turn on one GPU, from the same weights, adapter and tokens, as one table.

    gpu.py --executable training_step --shape llama_1b --devices cuda,vulkan --rounds 3 --steps 20
    gpu.py --executable training_step --shape llama_1b --steps 200 --rounds 1 --peft eager --losses
    gpu.py --executable training_step --shape llama_1b --devices cuda,vulkan --dtype f16 --rounds 1 --parts

README.md says what is measured and how. `--executable` is a built `training_step` with the features of the devices.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ among the sources
from flops import lora_step_flops
from parts import parts
from run import Failed, ratio, say, table

HERE = Path(__file__).resolve().parent
SHAPES = {name: shape for name, shape in json.loads((HERE / "shapes.json").read_text()).items() if shape.get("gpu")}
GIB = 1024**3
# How each side can run: the arguments beyond shape, steps and folder.
PEFT = {
    "eager": [],
    "compile": ["--compile"],
    "checkpoint": ["--recompute"],
    "full": ["--method", "full"],
}
OURS = {
    "lora": [],
    "quarter": ["--recompute", "{quarter}"],  # of the blocks
    "recompute": ["--recompute", "1000"],
    "full": ["--method", "full"],
}


def main():
    options = parse()
    command = shlex.join(["python3", *sys.argv])
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.prepared or Path(scratch)
        if not (folder / "ids.bin").exists():
            run_once([options.python, str(HERE / "prepare.py"), "--shape", options.shape, str(folder)])
        kinds, common = commands(options, folder)
        runs, failures = measure(options, kinds, common)
        print(f"- {gpu_name()}; {options.shape}, {options.dtype}, {options.rounds} rounds of {options.steps} steps")
        print(f"- `{command}`\n")
        print(steps_table(runs, options))
        if options.losses:
            print(loss_table(runs))
        if options.parts:
            sys.stdout.flush()  # what is known by now, should the rest be cut off
            known = {key: kinds[key] for key in runs}
            try:
                print(parts(known, common, options, run_once, SHAPES[options.shape]))
            except (Failed, subprocess.TimeoutExpired) as error:
                failures.append(f"the parts failed: {error}")
    for failure in failures:
        print(f"> {failure}\n")
    return 1 if failures else 0


def parse():
    split = lambda text: [part for part in text.split(",") if part]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama_1b")
    parser.add_argument("--dtype", default="bf16", help="of the base on both sides (bf16)")
    parser.add_argument("--executable", required=True)
    parser.add_argument("--devices", type=split, default=["cuda"], metavar="A,B", help="ours (cuda)")
    parser.add_argument("--ours", type=split, default=["lora"], metavar="A,B", help="of: " + ", ".join(OURS))
    parser.add_argument("--peft", type=split, default=["eager"], metavar="A,B", help="of: " + ", ".join(PEFT))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turn (3)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a process; the second half counts (20)")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for one process (240)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch, Transformers and PEFT")
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="a folder of prepare.py, to be filled if it is empty")
    parser.add_argument("--parts", action="store_true", help="also the floor, memory by part, kernels, and what compiling takes")
    parser.add_argument("--losses", action="store_true", help="how far the losses are apart")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers of every process go")
    return parser.parse_args()


def commands(options, folder):
    """Each way to run, and the arguments that all of them have but for the number of steps."""
    folder, executable = folder.resolve(), Path(options.executable).resolve()
    common = ["--shape", options.shape, "--prepared", str(folder), "--dtype", options.dtype]
    kinds = {("peft", name): [options.python, str(HERE / "peft_step.py"), "--device", "cuda", *PEFT[name]] for name in options.peft}
    quarter = SHAPES[options.shape]["config"]["num_hidden_layers"] // 4
    for device in options.devices:
        for name in options.ours:
            own = [argument.format(quarter=quarter) for argument in OURS[name]]
            kinds[(device, name)] = [str(executable), "--device", device, *own]
    return kinds, common


def measure(options, kinds, common):
    """Each way to run, in turn, each in a process of its own, for all rounds."""
    runs, failures = {}, []
    for round_ in range(options.rounds):
        order = list(kinds)
        order = order[round_ % len(order) :] + order[: round_ % len(order)]
        for key in order:
            if any(failure.startswith(" ".join(key)) for failure in failures):
                continue
            try:
                run = run_once([*kinds[key], *common, "--steps", str(options.steps)], options.timeout)
            except (Failed, subprocess.TimeoutExpired) as error:
                failures.append(f"{' '.join(key)} failed: {error}")
                say(failures[-1])
                continue
            runs.setdefault(key, []).append(run)
            if options.json:
                options.json.write_text(json.dumps({" ".join(key): rounds for key, rounds in runs.items()}, indent=1) + "\n")
            say(f"{' '.join(key)}: {run['median_ms']:.1f} ms/step, first {run['step_ms'][0] / 1e3:.1f} s")
    return runs, failures


def run_once(command, timeout=None, environment=None, folder=None):
    """Runs one process under a watch of the GPU's memory; its last line, if that is JSON."""
    before = memory_used()
    watch = Watch()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
        env=os.environ | (environment or {}), cwd=folder,
    )  # fmt: skip
    peak = watch.stop()
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        raise Failed(f"status {done.returncode}: {' / '.join(done.stderr.strip().splitlines()[-4:])}")
    if not lines or not lines[-1].startswith("{"):
        return {}
    result = json.loads(lines[-1]) | {"gpu_bytes": peak - before}
    # JSON has no NaN: a loss that is none is null.
    loss = lambda value: float("nan") if value is None else value
    for key, value in result.items():
        if key == "last_loss":
            result[key] = loss(value)
        elif key == "losses" and value:
            result[key] = [loss(one) for one in value]
    return result


class Watch:
    """The highest memory in use on the GPU, read every 50 ms."""

    def __init__(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "50"]
        self.process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        self.peak = 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.peak = max(self.peak, int(line.split()[0]) * 1024**2)

    def stop(self):
        self.process.terminate()
        self.thread.join(timeout=5)
        return self.peak


def memory_used():
    time.sleep(0.5)  # the driver takes back a process's memory a little after its end
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) * 1024**2


def gpu_name():
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip()


def steps_table(runs, options):
    header = ["implementation", "ms/step", "tokens/s", "of PEFT's", "TFLOP/s", "GPU GiB", "of PEFT's", "allocated GiB", "first step s", "last loss"]
    base = runs.get(("peft", "eager"))
    flops = lora_step_flops(SHAPES[options.shape])
    middle = lambda rounds, figure: statistics.median(figure(run) for run in rounds)
    rows = []
    for key, rounds in runs.items():
        ms = middle(rounds, lambda run: run["median_ms"])
        gpu = middle(rounds, lambda run: run["gpu_bytes"])
        allocated = rounds[0].get("device_peak_bytes")
        rows.append([
            " ".join(key), f"{ms:.1f}", f"{middle(rounds, lambda run: run['tokens_per_second']):,.0f}",
            ratio(middle(base, lambda run: run["median_ms"]), ms) if base else "",
            f"{flops / ms / 1e9:.0f}" if "full" not in key else "",
            f"{gpu / GIB:.2f}", ratio(gpu, middle(base, lambda run: run["gpu_bytes"])) if base else "",
            f"{allocated / GIB:.2f}" if allocated else "",
            f"{middle(rounds, lambda run: run['step_ms'][0]) / 1e3:.2f}", f"{rounds[0]['last_loss']:.4f}",
        ])  # fmt: skip
    return table("One training step", header, rows)


def loss_table(runs):
    """The largest relative distance of each curve from PEFT's eager one, over means of ten steps."""
    base = runs.get(("peft", "eager"))
    if not base:
        return ""
    tens = lambda losses: [statistics.mean(losses[at : at + 10]) for at in range(0, len(losses), 10)]
    expected = tens(base[0]["losses"])
    rows = []
    for key, rounds in runs.items():
        own = tens(rounds[0]["losses"])
        apart = max(abs(a - b) / b for a, b in zip(own, expected))
        rows.append([" ".join(key), f"{own[0]:.4f}", f"{own[-1]:.4f}", f"{apart:.2%}"])
    return table("Losses", ["implementation", "first ten steps", "last ten", "furthest from PEFT's"], rows)


if __name__ == "__main__":
    sys.exit(main())
