"""Writes losses.json: label smoothing and z-loss by PyTorch, with their gradients, of logits that are products of hidden states with
a weight, under a soft cap or not."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

N, D, VOCAB = 6, 5, 11
CASES = {
    "plain": (0.0, 0.0, None),
    "smoothing": (0.1, 0.0, None),
    "z_loss": (0.0, 1e-2, None),
    "both": (0.2, 1e-2, None),
    "capped_z_loss": (0.0, 1e-2, 2.0),
    "capped_both": (0.1, 1e-2, 2.0),
}


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.detach().flatten().tolist()


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(shape, generator=generator) for shape in [(N, D), (D, VOCAB)])
    targets = torch.randint(VOCAB, (N,), generator=generator)
    weights = torch.rand(N, generator=generator)
    weights[2] = 0
    golden = {
        "hidden": flat(hidden),
        "weight": flat(weight),
        "targets": targets.tolist(),
        "weights": flat(weights),
        "cases": {},
    }
    for name, (label_smoothing, z_loss, softcap) in CASES.items():
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logits = h @ w
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        smoothed = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
        loss = (weights * (smoothed + z_loss * torch.logsumexp(logits, 1) ** 2)).sum()
        loss.backward()
        alone = (weights * F.cross_entropy(logits, targets, reduction="none")).sum()
        golden["cases"][name] = {
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "softcap": softcap,
            "loss": flat(loss),
            "alone": flat(alone),
            "d_hidden": flat(h.grad),
            "d_weight": flat(w.grad),
        }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
