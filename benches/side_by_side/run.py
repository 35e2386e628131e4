#!/usr/bin/env python3
"""Training steps of PEFT with PyTorch and of burn-lora on equal work, in turn, as one Markdown table.

    run.py --python .venv/bin/python
    run.py --shapes llama --methods lora --rounds 5 --steps 20 --json raw.json

README.md says what is measured and how.
"""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ among the sources
from flops import lora_step_flops

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Those for a GPU are gpu.py's.
SHAPES = {name: shape for name, shape in json.loads((HERE / "shapes.json").read_text()).items() if not shape.get("gpu")}
METHODS = ["lora", "full"]
PEFT = "peft"
# Share of the machine's CPU time that other processes may take during a measurement.
QUIET = 0.05
MIB = 1024 * 1024

# The whole workspace, so that its build of the dependencies is used again and not made a second time.
BUILD = ["cargo", "bench", "--workspace", "--bench", "training_step", "--no-run", "--message-format=json"]


class Failed(Exception):
    """A process that did not print its line of JSON."""


def main():
    options = parse()
    executable = options.executable or build(options.devices)
    started = time.strftime("%Y-%m-%d %H:%M")
    floors = measure_floors(options, executable)
    runs, failures = measure(options, executable)
    machine = describe_machine() | {"date": started}
    versions = describe_versions(runs)
    command = shlex.join(["python3", *sys.argv])
    warnings = failures + doubts(runs, versions)

    medians = {key: median_of(rounds) for key, rounds in runs.items()}
    print(header(machine, versions, command, options))
    print(steps_table(medians, options))
    if {"lora", "full"} <= set(options.methods):
        print(method_table(medians, options))
    if "lora" in options.methods:
        print(floor_table(medians, floors, options))
    for warning in warnings:
        print(f"> {warning}\n")
    if options.json:
        flat = [run | {"round": index} for rounds in runs.values() for index, run in enumerate(rounds)]
        raw = {"command": command, "machine": machine, "versions": versions, "floors": floors, "runs": flat}
        options.json.write_text(json.dumps(raw | {"warnings": warnings}, indent=1) + "\n")
    return 1 if failures else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=names(SHAPES), default=list(SHAPES), metavar="A,B", help="of: " + ", ".join(SHAPES))
    parser.add_argument("--methods", type=names(METHODS), default=METHODS, metavar="A,B", help="of: lora, full")
    parser.add_argument("--devices", type=names(["flex", "ndarray"]), default=["flex", "ndarray"], metavar="A,B")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turn (3)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a process; the second half counts (10)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every process (all cores)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has requirements.txt installed")
    parser.add_argument("--executable", help="a built training_step; builds one if it is left out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers of every process go")
    return parser.parse_args()


def names(known):
    def split(text):
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
        return chosen

    return split


# ---- Running ----


def build(devices):
    """Builds `training_step` and returns its path."""
    features = [name for name in devices if name != "flex"]
    command = BUILD + (["--features", ",".join(features)] if features else [])
    say(shlex.join(command))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for message in messages:
        if message.get("executable") and message["target"]["name"] == "training_step":
            return message["executable"]
    for message in messages:
        if message.get("message", {}).get("level") == "error":
            print(message["message"]["rendered"], file=sys.stderr)
    sys.exit("training_step could not be built")


def measure(options, executable):
    """Every shape and method: the implementations in turn, each in a process of its own, for all rounds."""
    runs, failures = {}, []
    for shape in options.shapes:
        for method in options.methods:
            gone = set()
            for round_ in range(options.rounds):
                # Another one begins each round, so that none always follows the same neighbour.
                order = [PEFT, *options.devices]
                order = order[round_ % len(order) :] + order[: round_ % len(order)]
                for implementation in order:
                    if implementation in gone:
                        continue
                    what = f"{shape} {method} {implementation}"
                    arguments = ["--shape", shape, "--method", method, "--steps", str(options.steps)]
                    try:
                        run = start(implementation, arguments, options, executable)
                    except Failed as error:
                        gone.add(implementation)
                        failures.append(f"{what} failed: {error}")
                        say(failures[-1])
                        continue
                    runs.setdefault((shape, method, implementation), []).append(run)
                    say(
                        f"{what}, round {round_ + 1} of {options.rounds}: {run['median_ms']:.0f} ms/step, "
                        f"others took {run['others_cpu_share']:.0%} of the CPU"
                    )
    return runs, failures


def start(implementation, arguments, options, executable):
    """Runs one measuring process and returns what it printed."""
    if implementation == PEFT:
        command = [options.python, str(HERE / "peft_step.py")]
    else:
        command = [executable, "--device", implementation]
    command += [*arguments, "--threads", str(options.threads)]
    began, others = time.perf_counter(), others_cpu_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    elapsed, others = time.perf_counter() - began, others_cpu_seconds() - others
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        # Rust ends a panic with a note about backtraces.
        said = [line for line in done.stderr.strip().splitlines() if not line.startswith("note:")]
        raise Failed(f"status {done.returncode}: {' / '.join(said[-2:]) or 'it printed nothing'}")
    return json.loads(lines[-1]) | {"others_cpu_share": others / (elapsed * os.cpu_count())}


def others_cpu_seconds():
    """CPU time of everything on the machine but the processes that this one has run, stolen time included."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    own = os.times()
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - own.user - own.system - own.children_user - own.children_system


def measure_floors(options, executable):
    """Rates of single large products in GFLOP/s, the best that PyTorch and flex reach by themselves."""
    floors = {}
    for name, implementation, argument in [("PyTorch", PEFT, "--product"), ("flex", "flex", "--floor")]:
        if implementation == PEFT or implementation in options.devices:
            try:
                rates = start(implementation, [argument], options, executable)["gflops_per_second"]
            except Failed as error:
                say(f"the rate of {name} was not measured: {error}")
                continue
            floors[name] = {"products": rates, "best": max(rates.values())}
    return floors


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- Memory ----


def beyond_weights(run):
    """Memory that the steps take beyond the loaded model: the highest resident memory during the steps, less that right
    before the first, when the process holds its libraries, the model, the adapters and the batch, but no optimizer state."""
    return run["step_peak_bytes"] - run["loaded_rss_bytes"]


def beyond_libraries(run):
    """The highest resident memory less that of the process with its libraries loaded and no model yet."""
    return run["peak_rss_bytes"] - run["start_rss_bytes"]


def median_of(rounds):
    """The median over the rounds of each figure by itself."""
    median = lambda figure: statistics.median(figure(run) for run in rounds)
    return {
        "ms": median(lambda run: run["median_ms"]),
        "rate": median(lambda run: run["tokens_per_second"]),
        "peak": median(lambda run: run["peak_rss_bytes"]),
        "beyond_libraries": median(beyond_libraries),
        "beyond_weights": median(beyond_weights),
    }


# ---- Tables ----


def header(machine, versions, command, options):
    lines = [
        f"- {machine['cpu']}, {machine['cores']} cores, AVX-512 {'yes' if machine['avx512'] else 'no'}, "
        f"{machine['memory_gib']} GiB, {machine['system']}; {machine['date']}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"- {options.threads} threads, {options.rounds} rounds of {options.steps} steps, the second half of which counts",
        f"- `{command}`",
    ]
    return "\n".join(lines) + "\n"


def steps_table(medians, options):
    header = [
        "shape", "method", "implementation", "ms/step", "tokens/s", "of PEFT's tokens/s",
        "peak MiB", "of PEFT's peak", "MiB beyond libraries", "of PEFT's", "MiB beyond weights",
    ]  # fmt: skip
    rows = []
    for shape in options.shapes:
        for method in options.methods:
            base = medians.get((shape, method, PEFT))
            for implementation in [PEFT, *options.devices]:
                own = medians.get((shape, method, implementation))
                # Without adapters it is PyTorch alone.
                name = "PyTorch" + (" + PEFT" if method == "lora" else "") if implementation == PEFT else implementation
                if own is None:
                    rows.append([shape, method, name] + ["failed"] + [""] * 7)
                    continue
                of = lambda figure: ratio(own[figure], base and base[figure])
                rows.append([
                    shape, method, name, f"{own['ms']:.0f}", f"{own['rate']:,.0f}", of("rate"),
                    mib(own["peak"]), of("peak"), mib(own["beyond_libraries"]), of("beyond_libraries"),
                    mib(own["beyond_weights"]),
                ])  # fmt: skip
    return table("One training step", header, rows)


def method_table(medians, options):
    header = ["shape", "device", "LoRA ms/step", "full ms/step", "LoRA's speed", "MiB beyond weights", "full", "LoRA's share"]
    rows = []
    for shape in options.shapes:
        for device in options.devices:
            lora, full = (medians.get((shape, method, device)) for method in ("lora", "full"))
            if lora and full:
                rows.append([
                    shape, device, f"{lora['ms']:.0f}", f"{full['ms']:.0f}", ratio(full["ms"], lora["ms"]),
                    mib(lora["beyond_weights"]), mib(full["beyond_weights"]),
                    ratio(lora["beyond_weights"], full["beyond_weights"]),
                ])  # fmt: skip
    return table("LoRA beside full fine-tuning, both ours", header, rows)


def floor_table(medians, floors, options):
    columns = [PEFT, *options.devices]
    header = ["shape", "GFLOP/step"]
    header += [f"floor at {name}'s {floor['best']:.0f} GFLOP/s" for name, floor in floors.items()]
    header += [f"{'PyTorch + PEFT' if column == PEFT else column} GFLOP/s" for column in columns]
    rows = []
    for shape in options.shapes:
        gflop = lora_step_flops(SHAPES[shape]) / 1e9
        row = [shape, f"{gflop:.1f}"] + [f"{gflop / floor['best'] * 1e3:.0f} ms" for floor in floors.values()]
        for column in columns:
            own = medians.get((shape, "lora", column))
            row.append(f"{gflop / own['ms'] * 1e3:.0f}" if own else "")
        rows.append(row)
    return table("The matrix products of a LoRA step, and what they take at the rate of one large product", header, rows)


def table(title, header, rows):
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def ratio(own, base):
    return f"{own / base:.2f}" if base and base > 0 else ""


def mib(number):
    return f"{number / MIB:,.0f}"


# ---- Circumstances ----


def doubts(runs, versions):
    """What makes the comparison less than equal."""
    found = []
    disturbed = {key: max(run["others_cpu_share"] for run in rounds) for key, rounds in runs.items()}
    disturbed = {key: share for key, share in disturbed.items() if share > QUIET}
    if disturbed:
        worst = max(disturbed, key=disturbed.get)
        found.append(
            f"Other processes took more than {QUIET:.0%} of the machine's CPU time during {len(disturbed)} of the {len(runs)} "
            f"rows, at worst {disturbed[worst]:.0%} ({', '.join(worst)}). PyTorch suffers from it most: run this again."
        )
    if "+cu" in versions.get("torch", ""):
        found.append(
            f"torch {versions['torch']} is a CUDA build, whose libraries take more memory than the CPU wheel's: "
            "compare peaks beyond libraries, or install the CPU wheel."
        )
    for (shape, method, implementation), rounds in runs.items():
        base = runs.get((shape, method, PEFT))
        if not base or implementation == PEFT:
            continue
        for field in ("trainable_params", "total_params"):
            if rounds[0][field] != base[0][field]:
                found.append(f"{shape} {method}: {field} is {rounds[0][field]:,} on {implementation}, {base[0][field]:,} in PEFT.")
        ours, theirs = rounds[0]["first_loss"], base[0]["first_loss"]
        # Random weights differ, but the loss begins near that of a guess in both.
        if not abs(ours - theirs) < 0.05 * theirs:
            found.append(f"{shape} {method}: the first loss is {ours:.3f} on {implementation}, {theirs:.3f} in PEFT.")
    return found


def describe_machine():
    cpu = Path("/proc/cpuinfo").read_text()
    field = lambda name: (re.search(rf"^{name}\s*: (.*)$", cpu, re.M) or ["", "unknown"])[1]
    memory_kib = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return {
        "cpu": f"{field('model name')} (family {field('cpu family')}, model {field('model')})",
        "cores": len(os.sched_getaffinity(0)),
        "avx512": "avx512f" in field("flags").split(),
        "memory_gib": round(memory_kib / MIB),
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_versions(runs):
    versions = {}
    for rounds in runs.values():
        versions |= rounds[0]["versions"]
    lock = (ROOT / "Cargo.lock").read_text()
    found = re.search(r'name = "burn"\nversion = "(.*)"', lock)
    commit = output(["git", "describe", "--always", "--dirty"])
    if "burn-lora" in versions and commit:
        versions["burn-lora"] += f" ({commit})"
    return versions | {
        "burn": found[1] if found else "unknown",
        "rustc": output(["rustc", "--version"]).removeprefix("rustc "),
        "python": platform.python_version(),
    }


def output(command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
