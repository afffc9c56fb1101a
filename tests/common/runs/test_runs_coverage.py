from typing import Any

import pytest

from common.base.errors import UserError
from common.runs import coverage
from common.runs.coverage import Cost, alike, cheap, chosen, items_of, key_of, paper_cost
from common.runs.evidence import Evidence
from common.tables.tables import Entry


def entry(row: str, paper: dict[str, Any], laptop: dict[str, Any]) -> Entry:
    budget = {"paper": paper, "laptop": laptop, "smoke": laptop}
    return Entry("yogi", "table", row, {}, {}, budget, {}, {}, False, None, {})


def result(name: str, scale: str, finished: str, seconds: float = 3.0) -> dict[str, Any]:
    asked = [[f"entry={name}", f"scale={scale}"]]
    return {"entries": [name], "scale": scale, "finished": finished, "wall_seconds": seconds, "asked": asked}


LONG = entry("long", {"paper.epochs": 100, "dataset.limit": None}, {"paper.epochs": 1, "dataset.limit": 50})
SHORT = entry("short", {"paper.epochs": 4, "paper.repeats": 3}, {"paper.epochs": 2, "paper.repeats": 1})
SAME = entry("same", {"paper.epochs": 2}, {"paper.epochs": 2})


@pytest.fixture(autouse=True)
def by_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code as of 2026: what is older is stale."""
    monkeypatch.setattr(coverage, "stale", lambda result: result["finished"] < "2026")


def test_what_nobody_has_measured_comes_first_then_earlier_code_from_the_oldest_on_then_the_fresh() -> None:
    entries = [entry(row, {"e": 2}, {"e": 1}) for row in ("fresh", "older", "oldest", "none")]
    dates = {"fresh": "2026-02", "older": "2025-05", "oldest": "2025-01"}
    evidence = Evidence.of({row: result(f"yogi.table.{row}", "laptop", date) for row, date in dates.items()})
    items = items_of(entries, evidence, {}, 60.0)
    assert [item.entry.split(".")[2] for item in items] == ["none", "oldest", "older", "fresh"]
    assert [item.words for item in items] == [
        ["entry=yogi.table.none", "scale=laptop"],
        ["entry=yogi.table.oldest", "scale=laptop", "force=true"],
        ["entry=yogi.table.older", "scale=laptop", "force=true"],
        ["entry=yogi.table.fresh", "scale=laptop"],
    ]
    assert [item.entry.split(".")[2] for item in cheap(items, 60.0)] == ["none", "oldest", "older"]


def test_a_paper_scale_costs_as_much_more_as_its_budgets_are_larger() -> None:
    laptop = {key_of(one.name, "laptop"): Cost(5.0, True) for one in (LONG, SHORT, SAME)}
    assert paper_cost(SHORT, laptop) == Cost(30.0, False)
    assert paper_cost(LONG, laptop) is None
    assert paper_cost(SHORT, {}) is None
    known = {key_of(SHORT.name, "paper"): Cost(70.0, True)}
    assert paper_cost(SHORT, laptop | known) == Cost(70.0, True)


def test_an_entry_runs_at_paper_scale_too_where_that_is_cheap_and_once_where_the_scales_are_alike() -> None:
    laptop = {key_of(one.name, "laptop"): Cost(5.0, True) for one in (LONG, SHORT, SAME)}

    def scales(within: float) -> list[str]:
        return [item.name for item in items_of([LONG, SHORT, SAME], Evidence.of({}), laptop, within)]

    assert alike(SAME)
    names = ["yogi.table.long", "yogi.table.short", "yogi.table.same"]
    assert scales(29.0) == [f"{name} scale=laptop" for name in names]
    assert set(scales(31.0)) - set(scales(29.0)) == {"yogi.table.short scale=paper"}


def test_what_is_measured_at_paper_scale_alone_is_not_asked_for_at_laptop_scale() -> None:
    evidence = Evidence.of({"a": result("yogi.table.long", "paper", "2025-05", 9.0)})
    (item,) = items_of([LONG], evidence, {}, 60.0)
    assert (item.scale, item.state, item.cost) == ("paper", "earlier code", Cost(9.0, True))
    assert item.words == ["entry=yogi.table.long", "force=true"]


def test_what_is_known_to_be_dear_is_not_cheap_and_what_nobody_has_tried_may_be() -> None:
    dear = {key_of(LONG.name, "laptop"): Cost(500.0, False)}
    items = items_of([LONG, SHORT], Evidence.of({}), dear, 60.0)
    assert [item.entry for item in cheap(items, 60.0)] == ["yogi.table.short"]
    assert len(cheap(items, 600.0)) == 2


def test_of_what_nobody_has_measured_the_cheapest_comes_first_and_the_untried_last() -> None:
    entries = [entry(row, {"e": None}, {"e": 1}) for row in ("untried", "dear", "low")]
    costs = {key_of("yogi.table.dear", "laptop"): Cost(50.0, True)}
    costs[key_of("yogi.table.low", "laptop")] = Cost(4.0, False)
    items = items_of(entries, Evidence.of({}), costs, 60.0)
    assert [item.entry.split(".")[2] for item in items] == ["low", "dear", "untried"]


def test_an_unknown_entry_is_named_with_near_ones() -> None:
    with pytest.raises(UserError, match=r"unknown entry yogi\.ae_smal\.\*; did you mean yogi\.ae_small"):
        chosen(["yogi.ae_smal.*"])
