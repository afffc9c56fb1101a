"""Results of runs as `run.py` writes them, made up for tests of comparisons."""

from typing import Any

from common.report.selection import Chosen, Selection
from common.runs.evidence import asked

Result = dict[str, Any]


def result(seed: int = 0, *words: str, **metrics: Any) -> Result:
    """A run of `words`, such as `method=optimizer/adam` and `method.lr=0.1`, with these metrics."""
    typed = ["paper=yogi", *words, f"seed={seed}"]
    choices = {"dataset": "digits", "model": "lenet", "method": "optimizer/yogi", "schedule": "constant"}
    config: Result = {
        "seed": seed,
        "dataset": {"seed": seed, "limit": None},
        "method": {"lr": 0.01},
        "paper": {},
    }
    scale = "paper"
    for word in typed:
        key, _, value = word.partition("=")
        if key in choices:
            choices[key] = value
        elif "." in key:
            group, name = key.split(".", 1)
            config.setdefault(group, {})[name] = float(value) if value[:1].isdigit() else value
        elif key == "scale":
            scale = value
    return {
        "entries": [],
        "overrides": typed,
        "asked": [list(asked(typed))],
        "paper": "yogi",
        "choices": choices,
        "scale": scale,
        "seed": seed,
        "metrics": metrics or {"test_error": 0.1},
        "reported": {},
        "history": {"step": [1.0, 2.0, 4.0], "running_loss": [4.0, 2.0, 1.0]},
        "config": config,
        "code": "0",
        "device": "cpu",
        "wall_seconds": 8.0,
        "peak_memory_mb": 100.0,
        "finished": "2026-11-29T00:00:00Z",
    }


def runs(*results: Result) -> Selection:
    """A selection of results, in this order."""
    return Selection([Chosen(f"yogi/{i:012x}", one) for i, one in enumerate(results)], ordered=True)


def over_seeds(values: list[float], *words: str, metric: str = "test_error") -> list[Result]:
    """Runs with seeds 0, 1, ... of the same words."""
    return [result(seed, *words, **{metric: value}) for seed, value in enumerate(values)]
