"""The CUDA attention kernels beside PyTorch's, on a machine with an NVIDIA GPU: python benches/attention/attention.py

Compiles the text as burn-lora does (NVRTC, no options but the architecture; see crates/kernels/src/cube/attention/shape.rs for
the definitions), compares results and gradients with float64, looks that they are the same each time, and measures.
"""

import ctypes
import glob
import os
import struct
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

TEXT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../crates/kernels/src/cube/attention/")
KINDS = ("forward", "backward_queries", "backward_keys")
PADDED_ROWS = 448
NARROW = {
    "forward": {"KEYS": 64, "STAGES": 2, "RESIDENT": 4},
    "backward_queries": {"KEYS": 64, "RESIDENT": 3},
    "backward_keys": {"QUERIES": 64, "RESIDENT": 2},
}
WIDE = {
    "forward": {"KEYS": 64, "STAGES": 1, "RESIDENT": 2},
    "backward_queries": {"KEYS": 32, "RESIDENT": 2},
    "backward_keys": {"QUERIES": 32, "RESIDENT": 2},
}
# batch, heads, key heads, queries, keys, width, causal from, window, left padding, lengths, soft cap, dtype
CASES = [(2, 4, 2, n, n, 64, 0, None, None, None, None, torch.bfloat16) for n in (1, 7, 63, 65, 100, 1000)]
CASES += [(2, 4, 2, n, n, 128, 0, None, None, None, None, torch.bfloat16) for n in (1, 65, 300)]
CASES += [(2, 4, 2, 150, 150, d, 0, None, None, None, None, torch.bfloat16) for d in (16, 32, 80, 96, 112)]
CASES += [
    (2, 4, 4, 130, 130, 64, None, None, None, None, None, torch.bfloat16),
    (2, 8, 2, 100, 333, 64, 233, None, None, None, None, torch.bfloat16),
    (2, 8, 2, 100, 333, 64, None, None, None, None, None, torch.float16),
    (3, 4, 1, 200, 200, 64, 0, None, [0, 3, 150], None, None, torch.bfloat16),
    (3, 4, 1, 200, 200, 64, 0, None, [0, 3, 200], None, None, torch.bfloat16),
    (3, 4, 2, 200, 200, 64, None, None, None, [200, 65, 1], None, torch.bfloat16),
    (3, 4, 2, 200, 200, 64, None, None, None, [200, 0, 64], None, torch.float16),
    (2, 4, 2, 500, 500, 64, 0, 100, None, None, None, torch.bfloat16),
    (2, 4, 2, 500, 500, 64, 0, 1, None, None, None, torch.bfloat16),
    (2, 4, 2, 300, 500, 64, 200, 64, [0, 290], None, None, torch.bfloat16),
    (2, 4, 2, 300, 300, 64, 0, None, None, None, 5.0, torch.bfloat16),
    (2, 4, 2, 300, 300, 128, 0, 77, [0, 40], None, 5.0, torch.bfloat16),
    (2, 4, 2, 300, 300, 128, None, None, None, [300, 111], None, torch.float16),
    (2, 4, 2, 200, 200, 64, 0, None, None, None, None, torch.float16),
]


def library(name):
    for path in glob.glob(os.path.join(sys.prefix, f"lib/python3*/site-packages/nvidia/*/lib/lib{name}.so.*")):
        if ".alt." not in path and "builtins" not in path:
            return ctypes.CDLL(path)
    return ctypes.CDLL(f"lib{name}.so")


torch.zeros(1, device="cuda")
DRIVER = ctypes.CDLL("libcuda.so.1")
NVRTC = library("nvrtc")
MAJOR, MINOR = torch.cuda.get_device_capability()
ARCHITECTURE = os.environ.get("ARCHITECTURE", f"sm_{MAJOR}{MINOR}" + ("a" if MAJOR >= 9 else ""))


def checked(code):
    if code != 0:
        raise RuntimeError(f"CUDA error {code}")


def ptx(text):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    checked(NVRTC.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None))
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture={ARCHITECTURE}".encode(), b"-lineinfo")
    failed = NVRTC.nvrtcCompileProgram(program, 2, options)
    NVRTC.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    NVRTC.nvrtcGetProgramLog(program, log)
    if failed or log.value.strip():
        print(log.value.decode())
    checked(failed)
    NVRTC.nvrtcGetPTXSize(program, ctypes.byref(size))
    out = ctypes.create_string_buffer(size.value)
    NVRTC.nvrtcGetPTX(program, out)
    return out


FUNCTIONS = {}


def function(kind, defines):
    key = (kind, tuple(defines.items()))
    if key not in FUNCTIONS:
        text = "".join(f"#define {name} {value}\n" for name, value in defines.items())
        for name in ("tile", kind):
            with open(TEXT + name + ".cu", encoding="utf-8") as file:
                text += file.read()
        module, entry = ctypes.c_void_p(), ctypes.c_void_p()
        checked(DRIVER.cuModuleLoadData(ctypes.byref(module), ptx(text)))
        checked(DRIVER.cuModuleGetFunction(ctypes.byref(entry), module, f"attention_{kind}".encode()))
        FUNCTIONS[key] = entry
    return FUNCTIONS[key]


class Attention:
    def __init__(self, q, k, v, start=None, window=None, left=None, lengths=None, cap=None):
        self.q, self.k, self.v = q, k, v
        self.batch, self.heads, self.queries, self.d = q.shape
        self.kv_heads, self.keys = k.shape[1:3]
        padded = left is not None or lengths is not None
        flags = {
            "D": self.d,
            "HALF": int(q.dtype == torch.float16),
            "THREADS": 128,
            "CAUSAL": int(start is not None),
            "WINDOW": int(window is not None),
            "PADDED": PADDED_ROWS * padded,
            "SOFTCAP": int(cap is not None),
        }
        tiles = WIDE if self.d > 64 else NARROW
        self.functions = {kind: function(kind, {**flags, **tiles[kind]}) for kind in KINDS}
        self.row = -(-self.queries // 64) * 64
        self.masks = (start or 0, window or 0, self.row)
        self.cap = cap or 0.0
        self.bounds = b""
        if padded:
            left, lengths = left or [0] * self.batch, lengths or [self.keys] * self.batch
            rows = [end << 32 | first for first, end in zip(left, lengths)]
            self.bounds = struct.pack(f"<{PADDED_ROWS}Q", *rows, *[0] * (PADDED_ROWS - self.batch))

        # What is not written shows.
        def nan(*shape, dtype=q.dtype):
            return torch.full(shape, float("nan"), dtype=dtype, device="cuda")

        self.y, self.dq = (nan(self.batch, self.queries, self.heads, self.d) for _ in range(2))
        self.dk, self.dv = (nan(self.batch, self.keys, self.kv_heads, self.d) for _ in range(2))
        self.stats, self.deltas = (nan(self.batch, self.heads, self.row, dtype=torch.float32) for _ in range(2))

    def launch(self, kind, blocks, tensors, dy):
        strides = [stride for x in (self.q, self.k, self.v, dy) for stride in x.stride()[:3]]
        sizes = (self.batch, self.heads, self.kv_heads, self.queries, self.keys, *self.masks, *strides)
        numbers = struct.pack("<20q2d", *sizes, self.d**-0.5, self.cap) + self.bounds
        values = [ctypes.c_void_p(x.data_ptr()) for x in tensors] + [ctypes.create_string_buffer(numbers, len(numbers))]
        arguments = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        checked(DRIVER.cuLaunchKernel(self.functions[kind], *blocks, 1, 128, 1, 1, 0, stream, arguments, None))

    def forward(self):
        blocks = (self.batch * self.heads, -(-self.queries // 64))
        self.launch("forward", blocks, (self.q, self.k, self.v, self.y, self.stats), self.q)

    def backward_queries(self, dy):
        tensors = (self.q, self.k, self.v, self.y, dy, self.stats, self.deltas, self.dq)
        self.launch("backward_queries", (self.batch * self.heads, -(-self.queries // 64)), tensors, dy)

    def backward_keys(self, dy):
        tensors = (self.q, self.k, self.v, dy, self.stats, self.deltas, self.dk, self.dv)
        self.launch("backward_keys", (self.batch * self.kv_heads, -(-self.keys // 64)), tensors, dy)

    def all(self, dy):
        self.forward()
        self.backward_queries(dy)
        self.backward_keys(dy)
        return [x.transpose(1, 2).clone() for x in (self.y, self.dq, self.dk, self.dv)]


def reference(q, k, v, dy, start, window, left, lengths, cap):
    """In float64, by hand: rows that see nothing have a result and gradients of 0."""
    q, k, v, dy = (x.double() for x in (q, k, v, dy))
    batch, heads, queries, d = q.shape
    kv_heads, keys = k.shape[1:3]
    k_all, v_all = (x.repeat_interleave(heads // kv_heads, 1) for x in (k, v))
    scores = q @ k_all.transpose(2, 3) * d**-0.5
    if cap:
        scores = cap * torch.tanh(scores / cap)
    i = torch.arange(queries, device="cuda")[:, None]
    j = torch.arange(keys, device="cuda")[None]
    seen = torch.ones(batch, 1, queries, keys, dtype=torch.bool, device="cuda")
    if start is not None:
        seen = seen & (j <= start + i)
    if window is not None:
        seen = seen & (j > start + i - window)
    for row in range(batch):
        seen[row] &= j >= (left[row] if left else 0)
        seen[row] &= j < (lengths[row] if lengths else keys)
    p = torch.softmax(scores.masked_fill(~seen, float("-inf")), -1).nan_to_num(0.0)
    y = p @ v_all
    ds = p * (dy @ v_all.transpose(2, 3) - (dy * y).sum(-1, keepdim=True))
    if cap:
        ds = ds * (1 - (scores / cap) ** 2)

    def of_group(x):
        return x.view(batch, kv_heads, -1, keys, d).sum(2)

    dk, dv = of_group(ds.transpose(2, 3) @ q) * d**-0.5, of_group(p.transpose(2, 3) @ dy)
    return y, ds @ k_all * d**-0.5, dk, dv


def view(batch, heads, tokens, d, dtype):
    """As models have it: heads behind tokens, seen the other way round."""
    return torch.randn(batch, tokens, heads, d, device="cuda").to(dtype).transpose(1, 2)


def check():
    wrong = 0
    for case in CASES:
        batch, heads, kv_heads, queries, keys, d, *masks, dtype = case
        q, dy = (view(batch, heads, queries, d, dtype) for _ in range(2))
        k, v = (view(batch, 2 * kv_heads, keys, d, dtype)[:, at :: 2] for at in range(2))
        expected = reference(q, k, v, dy, *masks)
        ours = Attention(q, k, v, *masks)
        got, again = ours.all(dy), ours.all(dy)
        same = all(torch.equal(a, b) for a, b in zip(got, again))
        errors = [((a.double() - b).norm() / b.norm().clamp(min=0.1)).item() for a, b in zip(got, expected)]
        good = same and all(error < (1e-2 if dtype == torch.bfloat16 else 2e-3) for error in errors)
        wrong += not good
        if not good:
            print("WRONG", case, " ".join(f"{error:.1e}" for error in errors), "" if same else "and not the same each time")
    print(f"{len(CASES) - wrong} of {len(CASES)} cases agree with float64")


def median(run, count):
    for _ in range(2 * count):
        run()
    times = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / count)
    return sorted(times)[2]


def measure(batch, tokens, d, heads=32, kv_heads=8):
    q, dy = (view(batch, heads, tokens, d, torch.bfloat16) for _ in range(2))
    k, v = (view(batch, kv_heads, tokens, d, torch.bfloat16) for _ in range(2))
    flops = 2 * batch * heads * tokens**2 * d
    count = 20 if tokens < 4096 else 6
    print(f"{batch} x {tokens}, {heads}/{kv_heads} heads of {d}, causal, bf16; {flops / 1e9:.1f} GFLOP forward")

    def line(name, forward, backward, parts=""):
        rates = [flops / forward / 1e9, 2.5 * flops / backward / 1e9]
        print(f"  {name:26} {forward:.4f} ms ({rates[0]:.0f} TFLOP/s)   {backward:.4f} ms ({rates[1]:.0f} TFLOP/s){parts}")

    ours = Attention(q, k, v, 0)
    ours.all(dy)
    queries, keys = median(lambda: ours.backward_queries(dy), count), median(lambda: ours.backward_keys(dy), count)
    line("ours", median(ours.forward, count), queries + keys, f" = {queries:.4f} + {keys:.4f}")
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(backend):
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]

            def forward():
                return F.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)

            y = forward()
            with torch.no_grad():
                time = median(forward, count)
            line(backend.name.lower(), time, median(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), count))


if __name__ == "__main__":
    print(torch.cuda.get_device_name(), ARCHITECTURE, "torch", torch.__version__)
    check()
    if "--check" not in sys.argv:
        for d in (64, 128):
            measure(4, 1024, d)
            measure(1, 8192, d)
