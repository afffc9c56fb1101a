"""Searches over runs as pages: what stands in them, and where."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report_site import Parsed

from common.report.model import Report
from common.report.searches import HEIGHT, search, searches
from common.report.site import write
from common.runs.evidence import Evidence

TRIALS: list[dict[str, Any]] = [
    {"settings": {"method.lr": "0.001", "method": "<adam>"}, "loss": 0.5, "share": 1.0},
    {"settings": {"method.lr": "1", "method": "sgd", "method.momentum": "0.9"}, "loss": 0.25, "share": 1.0},
    {"settings": {"method.lr": "0.1", "method": "sgd", "method.momentum": "0.5"}, "loss": 0.1, "share": 0.5},
    {"settings": {"method.lr": "0.01", "method": "<adam>"}, "loss": None, "share": 1.0, "said": "it burns"},
]
WORDS = "paper=yogi dataset=digits 'model.hidden=[3, 4]'"


def result(trials: list[dict[str, Any]] = TRIALS, **given: Any) -> dict[str, Any]:
    """Of a search with these trials."""
    numbered = [{"number": i, "replicate": 0, **trial} for i, trial in enumerate(trials)]
    conclusion: dict[str, Any] = {"metric": "loss", "goal": "minimize", "trials": numbered}
    if any(trial["loss"] is not None for trial in trials):
        words = ["paper=yogi", "method.lr=1", "seed=3"]
        conclusion |= {"words": words, "value": 0.25, "number": 1, "replicates": [0.25]}
    made = {
        "overrides": ["paper=maxacq", "dataset=runs", f"dataset.words={WORDS}"], "finished": "2026-01-01",
        "config": {"dataset": {"words": WORDS}}, "seed": 3, "conclusion": conclusion, "entries": [],
        "history": {"step": [0.5, 1.5, 2.5], "best_loss": [None, 0.5, 0.25]},
    }  # fmt: skip
    return made | given


def test_a_page_has_the_answer_its_spread_and_all_trials_with_their_commands() -> None:
    page = search("maxacq/abc", result())
    assert (page.value, page.failed, page.stopped, page.better) == ("0.25", 1, 1, "lower")
    assert page.answer == "python run.py paper=yogi method.lr=1 seed=3"
    assert page.keys == ["method.lr", "method", "method.momentum"]
    assert [row.state for row in page.rows] == ["in full", "in full", "stopped at 50%", "failed: it burns"]
    assert [row.best for row in page.rows] == [False, True, False, False]
    assert page.rows[0].command.endswith("'model.hidden=[3, 4]' method.lr=0.001 'method=<adam>' seed=3")
    # a key that a trial does not have
    assert page.rows[0].cells[2] == ("–", "–") and page.rows[3].cells[3] == ("-", "")


def test_trials_of_full_length_are_ranked_first_and_the_best_line_is_drawn_last() -> None:
    page = search("maxacq/abc", result())
    assert [line.best for line in page.lines] == [False, False, True]
    assert page.lines[-1].says.startswith("trial 2:") and page.lines[0].says.startswith("trial 3:")
    heights = {line.says[:7]: [float(p.split(",")[1]) for p in line.points.split()] for line in page.lines}
    # learning rates are in logarithms: 0.001, 0.1 and 1 lie at 0, 2/3 and 1
    low, middle, high = (heights[f"trial {i}"][0] for i in (1, 3, 2))
    assert (low - middle) / (low - high) == pytest.approx(2 / 3, abs=0.01)
    # without the key the line passes below its axis
    assert heights["trial 1"][2] == HEIGHT - 8 > heights["trial 3"][2]


def test_each_key_has_a_plot_of_the_trials_that_have_it_and_the_best_so_far_is_a_staircase() -> None:
    page = search("maxacq/abc", result())
    assert {key: len(plot.dots) for key, plot in page.plots} == {
        "method.lr": 3,
        "method": 3,
        "method.momentum": 2,
    }
    assert page.plots[0][1].labels == ["in full", "stopped early"]
    assert page.curve is not None and len(page.curve.paths[0][1].split()) == 3


def test_a_search_of_which_all_failed_and_one_of_a_single_trial_are_pages_too(tmp_path: Path) -> None:
    failed = search("maxacq/abc", result([TRIALS[3]]))
    assert failed.answer is None and not failed.lines and failed.curve is not None
    single = search("maxacq/def", result(TRIALS[:2][1:], history={"step": [], "best_loss": []}))
    assert single.curve is None and len(single.lines) == 1


def test_pages_are_whole_escaped_sortable_and_linked_from_the_front(tmp_path: Path) -> None:
    evidence = replace(Evidence.of({"maxacq/abc": result(asked=[["a"]])}), recorded=frozenset())
    found = searches(evidence)
    write(Report([], 1, searches=tuple(found)), tmp_path, [])
    text = (tmp_path / "search-maxacq-abc.html").read_text()
    assert not Parsed(text).faults and "<adam>" not in text and "&lt;adam&gt;" in text
    assert "data-sortable" in text and text.count("<polyline") == 4
    values = re.findall(r'<td class="value" data-value="([^"]*)">', text)
    assert values[3] == "0.5" and values[-1] == ""
    assert 'href="search-maxacq-abc.html"' in (tmp_path / "index.html").read_text()
    other = result()
    del other["conclusion"]
    assert searches(Evidence.of({"maxacq/abc": other | {"asked": [["a"]]}})) == []
