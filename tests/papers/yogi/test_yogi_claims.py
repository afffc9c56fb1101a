"""The claims: their runs are entries, their metrics are those of their tables; the smallest are run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.claims.claims import load_claims
from common.runs.catalogue import all_entries
from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import metric_keys
from papers.yogi.yogi import Yogi

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def test_every_run_of_a_claim_is_an_entry_and_its_metric_one_of_the_tables() -> None:
    known = all_entries()
    claims = load_claims("yogi")
    assert len(claims) >= 10
    for claim in claims:
        for run in claim.all_runs():
            words = dict(word.split("=", 1) for word in run.words)
            entry = known[words["entry"]]
            assert set(words) == {"scale", "entry", "seed"}
            assert claim.rule.metric in metric_keys("yogi", entry.table).values()


def test_the_two_sides_of_a_pair_differ_in_the_method_alone() -> None:
    for claim in load_claims("yogi"):
        if claim.kind != "paired":
            continue
        words = [dict(w.split("=", 1) for w in run.words) for run in claim.all_runs() if run.seed == 0]
        first, second = (compose([f"entry={w['entry']}", "scale=laptop"])[0] for w in words)
        differing = {str(key) for key in first if first[key] != second[key]}
        assert differing == {"method"}


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


def plain_loop(optimizer_of: type[torch.optim.Optimizer], steps: int) -> tuple[float, float]:
    """The last point and the average regret of the counter-example, as Reddi et al. write it."""
    x = nn.Parameter(torch.zeros(1))
    options: dict[str, Any] = {"lr": 0.1, "betas": (0.0, 0.1), "eps": 1e-8}
    optimizer = optimizer_of([x], **options)
    regret = 0.0
    for t in range(1, steps + 1):
        c = 3.0 if t % 3 == 1 else -1.0
        regret += c * (x.item() + 1) / steps
        x.grad = torch.full_like(x, c)
        optimizer.param_groups[0]["lr"] = 0.1 / math.sqrt(t)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
    return x.item(), regret


@pytest.mark.parametrize(("name", "optimizer"), [("adam", torch.optim.Adam), ("yogi", Yogi)])
def test_the_counterexample_as_an_entry_equals_a_plain_loop(
    name: str, optimizer: type[torch.optim.Optimizer], tmp_path: Path
) -> None:
    entry = f"entry=yogi.counterexample.{name}"
    metrics = outcome(tmp_path, entry, "scale=laptop", "dataset.limit=300")["metrics"]
    x, regret = plain_loop(optimizer, 300)
    assert metrics["x"] == pytest.approx(x, abs=1e-5)
    assert metrics["average_regret"] == pytest.approx(regret, abs=1e-5)
    assert metrics["train_loss"] == pytest.approx(x / 3, abs=1e-5)


def test_the_noise_floor_is_the_mean_over_the_last_half(tmp_path: Path) -> None:
    result = outcome(tmp_path, "entry=yogi.noise_floor.adam_b4", "scale=smoke")
    metrics, history = result["metrics"], result["history"]
    assert metrics["steps"] == 60
    assert history["step"] == [30, 60]
    assert metrics["mean_grad_norm_sq"] == history["mean_grad_norm_sq"][1] < history["mean_grad_norm_sq"][0]
