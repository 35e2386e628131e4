"""PyTorch (oneDNN or MKL) and numpy (OpenBLAS) on the shapes of src/main.rs, in turn, as a table like its own.

Each has a process of its own, since the threads of both wait actively for more work and would halve the other's rate.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SHAPES = [
    (1024, 384, 384),
    (1024, 384, 1536),
    (1024, 1536, 384),
    (512, 768, 2304),
    (512, 768, 3072),
    (2048, 384, 1536),
    (2048, 2048, 2048),
    (1024, 384, 8),
]
ROUNDS = 9
WARM_UP_SECONDS = 0.4  # OpenMP threads that waited spread over the cores only after some 100 ms
FLOPS_PER_FIGURE = 1_000_000_000


def torch(m, k, n, transposed):
    import torch

    a, out = torch.randn(m, k), torch.empty(m, n)
    b = torch.randn(n, k).T if transposed else torch.randn(k, n)
    return lambda: torch.mm(a, b, out=out)


def numpy(m, k, n, transposed):
    import numpy

    random = numpy.random.default_rng(0)
    a, out = random.random((m, k), "f4"), numpy.empty((m, n), "f4")
    b = random.random((n, k), "f4").T if transposed else random.random((k, n), "f4")
    return lambda: numpy.matmul(a, b, out=out)


def rate(library, m, k, n, transposed):
    """In GFLOP/s."""
    flops = 2 * m * k * n
    repeats = -(-FLOPS_PER_FIGURE // flops)
    run = library(m, k, n, transposed)
    started = time.perf_counter()
    while time.perf_counter() - started < WARM_UP_SECONDS:
        run()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return flops * repeats / (time.perf_counter() - started) / 1e9


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    libraries = [torch, numpy]
    processes = [ProcessPoolExecutor(1, get_context("spawn")) for _ in libraries]

    def cell(rates):
        return f"{max(rates):.0f}/{statistics.median(rates):.0f}"

    print(f"GFLOP/s, best/median of {ROUNDS} rounds; `t`: the right side is transposed.\n")
    print("| m x k x n | PyTorch | numpy |\n|---|---|---|")
    for shape in SHAPES:
        for transposed in (False, True):
            rounds = [
                [process.submit(rate, library, *shape, transposed).result() for library, process in zip(libraries, processes)]
                for _ in range(ROUNDS)
            ]
            name = " x ".join(map(str, shape)) + (" t" if transposed else "")
            print(f"| {name} | {' | '.join(map(cell, zip(*rounds)))} |", flush=True)


if __name__ == "__main__":
    main()
