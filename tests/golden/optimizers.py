"""Writes optimizers.json: a matrix and a vector through some steps of each optimizer, by PyTorch, by transformers (Adafactor) and by
the published code of Lion.

The gradients are fixed numbers, so that the steps compare the optimizers alone.
"""

import json
from pathlib import Path

import torch
from torch.optim import _muon
from transformers.optimization import Adafactor

STEPS, RATE, DECAY = 4, 0.01, 0.1


def values(seed: int) -> list[torch.Tensor]:
    """A matrix and a vector."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in [(5, 3), (4,)]]


class Lion(torch.optim.Optimizer):
    """Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675, program 1; as in google/automl's lion_pytorch.py."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                exp_avg, (beta1, beta2) = state["exp_avg"], group["betas"]
                update = exp_avg * beta1 + p.grad * (1 - beta1)
                p.add_(update.sign_(), alpha=-group["lr"])
                exp_avg.mul_(beta2).add_(p.grad, alpha=1 - beta2)


def newton_schulz(grad, ns_coefficients, ns_steps, eps):
    """PyTorch's own, but in f32: it rounds to bf16, which no comparison survives."""
    a, b, c = ns_coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad.clone()
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


def check_newton_schulz():
    """That it is PyTorch's but for the rounding."""
    arguments = (values(7)[0], (3.4445, -4.775, 2.0315), 5, 1e-7)
    theirs = _muon._zeropower_via_newtonschulz(*arguments).float()
    assert (theirs - newton_schulz(*arguments)).abs().max() < 0.05


def adafactor(params, **options):
    return Adafactor(params, lr=RATE, relative_step=False, warmup_init=False, **options)


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=RATE, betas=(0.8, 0.95), eps=1e-6, weight_decay=DECAY),
    "adafactor": lambda p: adafactor(p, scale_parameter=False, weight_decay=DECAY),
    "adafactor_scaled": lambda p: adafactor(p, scale_parameter=True, clip_threshold=0.5, decay_rate=-0.7),
    "lion": lambda p: Lion(p, lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY),
    "sgd": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, weight_decay=DECAY),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.8, nesterov=True),
    "muon": lambda p: torch.optim.Muon(p[:1], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
}


def steps(make) -> list[list[list[float]]]:
    parameters = [torch.nn.Parameter(value) for value in values(0)]
    optimizer = make(parameters)
    found = []
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, values(1 + step)):
            parameter.grad = gradient
        optimizer.step()
        found.append([p.detach().flatten().tolist() for p in parameters])
    return found


if __name__ == "__main__":
    check_newton_schulz()
    _muon._zeropower_via_newtonschulz = newton_schulz
    golden = {
        "start": [value.flatten().tolist() for value in values(0)],
        "gradients": [[value.flatten().tolist() for value in values(1 + step)] for step in range(STEPS)],
        "steps": {name: steps(make) for name, make in OPTIMIZERS.items()},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
