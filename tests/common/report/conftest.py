"""A small site from made-up results and claims, built once for all tests of its pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_site import made_up
from common.claims import claims
from common.report.model import Report, build
from common.report.site import write
from common.runs.evidence import Evidence, asked
from common.tables.tables import papers, runnable

HOSTILE = "<img src=x onerror=alert(1)>"

CLAIMS = """
yogi_is_better:
  says: "Yogi ends lower than Adam. <script>alert(1)</script>"
  source: {kind: paper_text, where: abstract}
  pilot: it does
  seeds: [0, 1, 2]
  runs: [paper=yogi]
  paired: {metric: loss, a: [method=yogi], b: [method=adam], better: lower}
adam_is_better:
  says: Adam ends lower than Yogi.
  source: {kind: recalled, where: memory}
  seeds: [0, 1, 2]
  runs: [paper=yogi]
  paired: {metric: loss, a: [method=adam], b: [method=yogi], better: lower}
loss_is_small:
  says: The loss is at most 2.
  source: {kind: ours, where: here}
  seeds: [0, 1, 2]
  runs: [paper=yogi, method=yogi]
  bound: {metric: loss, at_most: 2.0}
nobody_ran_this:
  says: The noise falls with the batch.
  source: {kind: paper_text, where: Theorem 1}
  seeds: [0, 1]
  runs: [paper=yogi]
  trend: {metric: noise, over: batch, values: [1, 10, 100], slope: [-1.2, -0.8]}
"""


def of_claims() -> dict[str, dict[str, Any]]:
    """Runs of the claims: Yogi's loss is 1, Adam's 3, with a little spread."""
    results = {}
    for method, loss in (("yogi", 1.0), ("adam", 3.0)):
        for seed in range(3):
            result = made_up(next(iter(runnable("yogi"))), "laptop", seed)
            words = ["paper=yogi", f"method={method}", f"seed={seed}"]
            result |= {"entries": [], "overrides": words, "asked": [list(asked(words))]}
            results[f"yogi/{method}{seed}"] = result | {"metrics": {"loss": loss + 0.01 * seed}}
    return results


def of_entries() -> dict[str, dict[str, Any]]:
    """Three seeds of two tables of yogi at laptop scale, one row at the paper's too; one table of spider."""
    results = {}
    for entry in runnable("yogi"):
        if entry.table in ("table_ae", "fig_batch"):
            for seed in range(3):
                results[f"{entry.name}/{seed}"] = made_up(entry, "laptop", seed)
    first = next(entry for entry in runnable("yogi") if entry.row == "mnist_yogi")
    results["paper"] = made_up(first, "paper", 0) | {"device": HOSTILE}
    for entry in runnable("spider"):
        if entry.table == "saddle_escape":
            results[entry.name] = made_up(entry, "laptop", 0)
    return results


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Report, Path]]:
    """A report over the results above, and the folder of its site."""
    folder = tmp_path_factory.mktemp("papers")
    (folder / "yogi").mkdir()
    (folder / "yogi" / "claims.yaml").write_text(CLAIMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "papers_folder", lambda: folder)
        report = build(Evidence.of(of_claims() | of_entries()))
    site = tmp_path_factory.mktemp("site")
    write(report, site, papers())
    yield report, site


@pytest.fixture(scope="session")
def report(built: tuple[Report, Path]) -> Report:
    return built[0]


@pytest.fixture
def hostile() -> str:
    """The device that one of the results says it was made on."""
    return HOSTILE


@pytest.fixture(scope="session")
def site(built: tuple[Report, Path]) -> Path:
    return built[1]
