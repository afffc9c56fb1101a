"""Results of earlier runs as what is known before a search: the hook of all that learns from other tasks."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.base.errors import UserError
from common.base.objective import Earlier
from common.runs.evidence import Evidence, asked, asked_forms, key_of
from common.runs.matching import has, same, value_at, without_seed
from common.runs.words import quoted
from common.search.cube import cube
from common.search.settings import Setting


def recorded(
    words: Sequence[str],
    found: Sequence[Setting],
    metric: str,
    sign: float,
    own: Sequence[str],
    folders: tuple[Path, Path],
) -> list[Earlier]:
    """Earlier runs as functions on the cube of the settings that are searched.

    This is the hook of whatever learns from other tasks (`Task.earlier`). A run counts if its config has what
    `words` say, a value within the range of each setting (where that one exists there), and the metric. Runs
    that differ in nothing but these settings and the seed are one function: a task.

    Args:
        words: such as `paper=yogi`, `dataset=digits`, `paper.epochs=3`.
        found: the settings; keys as in the config, or those of a group.
        metric, sign: f is `sign` times the metric.
        own: the words of the runs that are searched: a function of the same ones is the very same.
        folders: of outputs, and of committed results.

    Returns:
        A task each, those of most different points first.

    Raises:
        UserError: no run counts.
    """
    matching = [one for one in Evidence.read(*folders).all() if all(has(one, word) for word in words)]
    space = cube(found)
    tasks: list[_Task] = []
    for result in matching:
        value, units = result["metrics"].get(metric), _units(result, found)
        if units is None or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        point = space.snapped(torch.tensor(units, dtype=torch.float64)).tolist()
        signs = {_rest(result, found), *(_essence(form, found) for form in asked_forms(result))}
        task = _Task(_name(result), signs, [point], [sign * float(value)])
        for other in [other for other in tasks if other.signs & signs]:
            tasks.remove(other)
            task = other.joined(task)
        tasks.append(task)
    if not tasks:
        count = len(matching)
        said = f"{count} are recorded, none with these keys and {metric}" if count else "none is recorded"
        raise UserError(
            f"warm_start={' '.join(words)}: of such runs {said} (valid: words of runs that were made, as "
            "'paper=yogi dataset=digits', or null)"
        )
    tasks.sort(key=lambda task: -len({tuple(point) for point in task.x}))
    searched = _essence(asked(quoted(own)), found)
    return [task.known(searched) for task in tasks]


@dataclass(frozen=True)
class _Task:
    """Runs of one function.

    Attributes:
        signs: by which others are known to be of it: what else decides the result, and the words that asked
            for it without those of settings and seed. The former alone would not do: keys of the config may
            refer to one that is searched.
        x, y: points and values.
    """

    name: str
    signs: set[str]
    x: list[list[float]]
    y: list[float]

    def joined(self, other: "_Task") -> "_Task":
        return _Task(self.name, self.signs | other.signs, self.x + other.x, self.y + other.y)

    def known(self, searched: str) -> Earlier:
        x, y = torch.tensor(self.x, dtype=torch.float64), torch.tensor(self.y, dtype=torch.float64)
        return Earlier(self.name, x, y, searched in self.signs)


def _units(result: dict[str, Any], found: Sequence[Setting]) -> list[float] | None:
    """Where a run lies in the cube; None where it does not."""
    units: list[float] = []
    chosen: dict[str, str] = {}
    for one in found:
        if one.only_if is not None and chosen.get(one.only_if[0]) != one.only_if[1]:
            units.append(0.5)
            continue
        there = value_at(result, one.key)
        if one.form == "choice":
            text = next((choice for choice in one.choices if same(there, choice)), None)
        else:
            text = None if isinstance(there, bool) or not isinstance(there, int | float) else repr(there)
        unit = None if text is None else one.unit(text)
        if text is None or unit is None:
            return None
        chosen[one.key] = text
        units.append(unit)
    return units


def _rest(result: dict[str, Any], found: Sequence[Setting]) -> str:
    """What else decides a run's result: equal for runs that differ in the settings and the seed alone.

    The scale is no part of it: what it sets stands in the config.
    """
    config = without_seed(json.loads(json.dumps(result["config"])), result["seed"])
    searched = {one.key for one in found}
    for key in searched:
        if key in result["choices"]:
            # another choice of a group brings keys of its own
            config.pop(key.split("/")[0], None)
            continue
        node, *parts = config, *re.split(r"[./@]", key)
        for part in parts[:-1]:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node.pop(parts[-1], None)
    choices = {group: name for group, name in result["choices"].items() if group not in searched}
    return json.dumps([result["paper"], choices, config], sort_keys=True, default=str)


def _name(result: dict[str, Any]) -> str:
    groups = ("dataset", "model", "method")
    return " ".join([f"paper={result['paper']}", *(f"{g}={result['choices'][g]}" for g in groups)])


def _essence(words: Sequence[str], found: Sequence[Setting]) -> str:
    """The words that asked for a run, without those of the settings and the seed."""
    left_out = {*(one.key for one in found), "seed"}
    return json.dumps(sorted(word for word in words if key_of(word) not in left_out))
