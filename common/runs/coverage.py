"""Which entries have measured numbers, which of these are of earlier code, and what the others would cost."""

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from common.base.errors import UserError
from common.runs.catalogue import all_entries
from common.runs.code import stale
from common.runs.evidence import Evidence
from common.tables.tables import Entry, unknown

State = Literal["fresh", "earlier code", "not measured"]
Scale = Literal["laptop", "paper"]
SCALES: tuple[Scale, ...] = ("laptop", "paper")


@dataclass(frozen=True)
class Cost:
    """What is known of the seconds that a run takes.

    Attributes:
        seconds: that it took, or an estimate.
        made: whether it took them; else it was stopped on its way, or follows from another scale.
    """

    seconds: float
    made: bool


@dataclass(frozen=True)
class Item:
    """An entry at a scale.

    Attributes:
        entry: its name.
        scale: laptop, or paper where that costs as little.
        state: of its evidence.
        finished: when the newest result was made, as ISO 8601; "" where there is none.
        cost: None where nobody has tried.
    """

    entry: str
    scale: Scale
    state: State
    finished: str
    cost: Cost | None

    @property
    def words(self) -> list[str]:
        """That ask for it; those of evidence that is of earlier code make it anew."""
        anew = ["force=true"] if self.state == "earlier code" else []
        return [f"entry={self.entry}", *([] if self.scale == "paper" else [f"scale={self.scale}"]), *anew]

    @property
    def name(self) -> str:
        return key_of(self.entry, self.scale)


def key_of(entry: str, scale: str) -> str:
    """How costs name an entry at a scale."""
    return f"{entry} scale={scale}"


def chosen(patterns: Iterable[str]) -> list[Entry]:
    """The entries that names and globs name, all of them where there are none.

    Raises:
        UserError: one that matches no entry.
    """
    known = all_entries()
    wanted: dict[str, Entry] = {}
    for pattern in list(patterns) or ["*"]:
        matched = fnmatch.filter(known, pattern)
        if not matched:
            raise UserError(unknown("entry", pattern, list(known)).replace("entry=", "entry ", 1))
        wanted |= {name: known[name] for name in matched}
    return list(wanted.values())


def items_of(
    entries: Iterable[Entry], evidence: Evidence, costs: Mapping[str, Cost], within: float
) -> list[Item]:
    """What there is to measure: each entry at laptop scale, and at paper scale where that is as cheap.

    One that has been measured at paper scale alone is not asked for at laptop scale too.

    Args:
        costs: by `key_of`.
        within: seconds that count as cheap.

    Returns:
        Those that nobody has measured first, the cheapest of them first and the untried last; then those of
        earlier code, the oldest first; then the fresh ones.
    """
    order: dict[State, int] = {"not measured": 0, "earlier code": 1, "fresh": 2}
    items = []
    for entry in entries:
        found = {scale: _item(entry, scale, evidence, costs) for scale in SCALES}
        paper = None if alike(entry) else paper_cost(entry, costs)
        if found["paper"].state != "not measured":
            items.append(found["paper"])
        elif paper is not None and paper.seconds <= within:
            items.append(replace(found["paper"], cost=paper))
        if found["laptop"].state != "not measured" or found["paper"].state == "not measured":
            items.append(found["laptop"])

    def rank(item: Item) -> tuple[int, str, float]:
        return order[item.state], item.finished, math.inf if item.cost is None else item.cost.seconds

    return sorted(items, key=rank)


def _item(entry: Entry, scale: Scale, evidence: Evidence, costs: Mapping[str, Cost]) -> Item:
    found = [result for result in evidence.of_entry(entry.name) if result["scale"] == scale]
    if not found:
        return Item(entry.name, scale, "not measured", "", costs.get(key_of(entry.name, scale)))
    state: State = "fresh" if any(not stale(result) for result in found) else "earlier code"
    newest = found[-1]
    return Item(entry.name, scale, state, newest["finished"], Cost(newest["wall_seconds"], True))


def alike(entry: Entry) -> bool:
    """Whether the laptop's budget is the paper's own."""
    return entry.budget.get("laptop", {}) == entry.budget.get("paper", {})


def paper_cost(entry: Entry, costs: Mapping[str, Cost]) -> Cost | None:
    """What an entry costs at paper scale; estimated from the laptop's, as the budgets are to each other.

    None where a budget is no number (`null`: all examples), or nothing is known of the laptop's cost.
    """
    known = costs.get(key_of(entry.name, "paper"))
    laptop = costs.get(key_of(entry.name, "laptop"))
    if known is not None or laptop is None:
        return known
    ratio = 1.0
    for name, value in entry.budget.get("paper", {}).items():
        ratio *= _ratio(value, entry.budget["laptop"][name])
    return Cost(laptop.seconds * ratio, False) if math.isfinite(ratio) else None


def _ratio(paper: Any, laptop: Any) -> float:
    """How much more a budget is; NaN where that cannot be told."""
    if paper == laptop:
        return 1.0
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (paper, laptop))
    return paper / laptop if numbers and laptop > 0 and paper > 0 else math.nan


def cheap(items: Iterable[Item], within: float) -> list[Item]:
    """Those that are still to be measured, and are not known to cost more than that many seconds."""
    return [
        item for item in items if item.state != "fresh" and (item.cost is None or item.cost.seconds <= within)
    ]
