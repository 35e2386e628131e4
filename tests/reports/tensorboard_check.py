"""Reads the events of a run by TensorBoard's own reader and compares them with facts.jsonl.

    pip install tensorboard
    python3 tests/reports/tensorboard_check.py output/logs
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(logs):
    expected = {}
    for line in (logs / "facts.jsonl").read_text().splitlines():
        fact = json.loads(line)
        for name, value in fact["metrics"].items():
            if value is not None:
                expected.setdefault(f"{fact['kind']}/{name}", {})[fact["step"]] = value
    events = EventAccumulator(str(logs / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags == set(expected), tags ^ set(expected)
    for tag, steps in expected.items():
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert found.keys() == steps.keys(), (tag, found.keys() ^ steps.keys())
        for step, value in steps.items():
            assert math.isclose(found[step], value, rel_tol=1e-6, abs_tol=1e-30), (tag, step, found[step], value)
    print(f"{len(expected)} curves are the same in {sum(map(len, expected.values()))} points")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
