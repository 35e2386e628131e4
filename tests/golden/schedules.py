"""Writes schedules.json: the learning rates of transformers' schedules, with a peak of 1, 2 steps of warmup and 12 in all."""

import json
from pathlib import Path

import torch
from transformers.optimization import get_scheduler

WARMUP, TOTAL, DECAY = 2, 12, 4
SCHEDULES = {
    "constant": ("constant_with_warmup", {}),
    "linear": ("linear", {}),
    "cosine": ("cosine", {}),
    "cosine_with_restarts": ("cosine_with_restarts", {"num_cycles": 3}),
    "polynomial": ("polynomial", {"power": 2.0, "lr_end": 0.0}),
    "wsd": ("warmup_stable_decay", {"num_decay_steps": DECAY, "decay_type": "linear"}),
}


def rates(name: str, options: dict) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=WARMUP, num_training_steps=TOTAL, scheduler_specific_kwargs=options
    )
    found = []
    for _ in range(TOTAL + 1):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


if __name__ == "__main__":
    golden = {ours: rates(*theirs) for ours, theirs in SCHEDULES.items()}
    file = Path(__file__).with_suffix(".json")
    file.write_text(json.dumps(golden, indent=1) + "\n")
    print(file.read_text())
