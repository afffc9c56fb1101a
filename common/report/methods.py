"""Runs grouped into methods, and what each is called: runs that differ in their seed alone are one method."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.report.selection import ENTRY, Chosen, flat, text
from common.runs.evidence import asked_forms, key_of, neutral
from common.runs.matching import NOTHING, value_at, without_seed
from common.runs.words import OPEN

# config groups in the order in which they stand in a name; other keys follow
GROUPS = (ENTRY, "paper", "dataset", "model", "method", "schedule")
# words that set no method apart by themselves
ASIDE = ("seed", "scale", ENTRY)
# a value that a name goes without
NULL = "null"
# keys that say on which data a run was made, which are columns and no names
DATA = ("dataset", "dataset.path")


@dataclass(frozen=True)
class Method:
    """A method: a row of a table.

    Attributes:
        name: the words in which it differs from the others, or what the user calls it.
        settings: its values of all keys in which methods differ.
        runs: by data set.
    """

    name: str
    settings: dict[str, str]
    runs: dict[str, list[Chosen]]

    @property
    def all_runs(self) -> list[Chosen]:
        return [run for runs in self.runs.values() for run in runs]


@dataclass(frozen=True)
class Methods:
    """All methods, the data sets that they were run on, the words that all share, and the other keys."""

    methods: list[Method]
    data: list[str]
    alike: tuple[str, ...]
    keys: tuple[str, ...]


def methods_of(runs: Sequence[Chosen]) -> Methods:
    """Group runs into methods, named by the words in which they differ.

    Keys that someone has typed are looked at first; other choices, and then other keys of the config, only
    where those do not tell two methods apart. Where all runs are of entries of one data set, the entry stands
    for all. What follows from the data set alone, as a paper's model for it, sets no methods apart.
    """
    groups = _groups(runs)
    places = _places([group.runs[0] for group in groups])
    keys = _differing(groups, places)
    names = _names(groups, places)
    found: dict[tuple[Any, ...], Method] = {}
    for index, (group, place, name) in enumerate(zip(groups, places, names, strict=True)):
        sign: tuple[Any, ...] = (group.label, name)
        if sign in found and place in found[sign].runs:
            # nothing that anyone can see tells them apart, as where a class has changed under its name
            sign, name = (*sign, index), f"{name} ({index + 1})"
        settings = {key: value for key in keys if (value := group.at(key)) is not None}
        found.setdefault(sign, Method(name, settings, {})).runs[place] = group.runs
    alike = {
        f"{key}={value}"
        for key in _order(groups)
        if key not in DATA and key not in keys and (value := groups[0].typed.get(key)) is not None
        if all(group.at(key) == value for group in groups)
    }
    order = [word for group in groups for word in (f"{key}={value}" for key, value in group.typed.items())]
    return Methods(
        methods=list(found.values()),
        data=list(dict.fromkeys(places)),
        alike=tuple(word for word in dict.fromkeys(order) if word in alike),
        keys=tuple(keys),
    )


@dataclass(frozen=True)
class _Group:
    """Runs that differ in their seed alone.

    Attributes:
        typed: the values of all keys that someone has typed for any of the runs.
        leaves: all that the config holds, the choices first.
    """

    label: str
    runs: list[Chosen]
    typed: dict[str, str]
    leaves: dict[str, str]

    def at(self, key: str) -> str | None:
        return self.typed.get(key, self.leaves.get(key))


def _groups(runs: Sequence[Chosen]) -> list[_Group]:
    found: dict[str, list[Chosen]] = {}
    for run in runs:
        result = run.result
        config = without_seed(result["config"], result["seed"])
        sign = [run.label, result["paper"], result["choices"], config]
        found.setdefault(json.dumps(sign, sort_keys=True, default=str), []).append(run)
    typed = _typed(runs)
    # entries of several data sets say these in their names, so that no two are called alike
    by_entry = all(run.result["entries"] for run in runs) and len(set(_places(runs))) == 1
    return [_group(same, typed, by_entry) for same in found.values()]


def _typed(runs: Iterable[Chosen]) -> list[str]:
    """The keys that someone has typed for any of the runs."""
    words = (word for run in runs for form in asked_forms(run.result) for word in form if not neutral(word))
    # a class is said by the choice that brings it, or in its place (`_group`)
    targets = [f"{group}._target_" for group in OPEN]
    return [key for key in dict.fromkeys(map(key_of, words)) if key not in (*ASIDE, *targets)]


def _group(runs: list[Chosen], typed: list[str], by_entry: bool) -> _Group:
    seed = runs[0].result["seed"]
    result = {**runs[0].result, "config": without_seed(runs[0].result["config"], seed)}
    forms = (word.partition("=") for form in asked_forms(result) for word in form)
    words = {key_of(key): without_seed(value.strip("'\""), seed) for key, equals, value in forms if equals}
    values: dict[str, str] = {}
    for key in [*[ENTRY] * by_entry, *typed]:
        there = value_at(result, key)
        if key == ENTRY:
            values[key] = result["entries"][0]
        elif there is not NOTHING and not isinstance(there, dict):
            values[key] = text(there)
        elif key in words and not (key.endswith(".seed") and words[key] == str(seed)):
            values[key] = words[key]
    leaves = flat(result["config"])
    choices = {key: result["choices"][key] for key in sorted(result["choices"], key=_place_in_name)}
    for group, open_ones in OPEN.items():
        # a class of the user's own, by its name: `any` and `own` are none
        if choices.get(group) in open_ones and f"{group}._target_" in leaves:
            choices[group] = leaves[f"{group}._target_"]
            values |= {group: text(choices[group])} if group in values else {}
    everything = {"paper": result["paper"], **choices, "scale": result["scale"], **leaves}
    return _Group(runs[0].label, runs, values, {key: text(value) for key, value in everything.items()})


def _place_in_name(key: str) -> int:
    return GROUPS.index(key) if key in GROUPS else len(GROUPS)


def _places(runs: Sequence[Chosen]) -> list[str]:
    """The data set of each: its name; where several have one, its file or folder, as short as tells them."""
    names = [str(run.result["choices"]["dataset"]) for run in runs]
    paths = [str(run.result["config"].get("dataset", {}).get("path", "")) for run in runs]
    both = set(zip(names, paths, strict=True))
    several = {name for name in names if sum(one == name for one, _ in both) > 1}
    short = _ends(sorted({path for name, path in both if name in several}), "/")
    return [short[path] if name in several else name for name, path in zip(names, paths, strict=True)]


# the keys that tell them apart


def _order(groups: Sequence[_Group]) -> list[str]:
    keys = list(dict.fromkeys(key for group in groups for key in group.typed))
    return sorted(keys, key=_place_in_name)


def _differing(groups: Sequence[_Group], places: Sequence[str]) -> list[str]:
    """The keys in which groups on the same data differ, and so many more that no two look alike."""
    keys = [key for key in _order(groups) if key not in DATA and _differs(groups, places, key)]
    every = dict.fromkeys(key for group in groups for key in group.leaves)
    # a class is said by its choice; its own name comes last
    rest = sorted((key for key in every if key not in DATA), key=lambda key: key.endswith("_target_"))
    if keys[:1] == [ENTRY]:
        # other words are its row's, or were typed by another who asked for the same
        keys, rest = keys[:1], [*keys[1:], *rest]
    while (clash := _clash(groups, places, keys)) is not None:
        more = next((key for key in rest if clash[0].at(key) != clash[1].at(key)), None)
        if more is None:
            break
        keys.append(more)
    return sorted(keys, key=_place_in_name)


def _differs(groups: Sequence[_Group], places: Sequence[str], key: str) -> bool:
    found: dict[str, set[str | None]] = {}
    for group, place in zip(groups, places, strict=True):
        found.setdefault(place, set()).add(group.at(key))
    return any(len(values) > 1 for values in found.values())


def _clash(
    groups: Sequence[_Group], places: Sequence[str], keys: Sequence[str]
) -> tuple[_Group, _Group] | None:
    """Two groups on the same data, and under one label, that these keys do not tell apart."""
    seen: dict[tuple[str | None, ...], _Group] = {}
    for group, place in zip(groups, places, strict=True):
        sign = (place, group.label, *map(group.at, keys))
        if sign in seen:
            return seen[sign], group
        seen[sign] = group
    return None


# names


def _names(groups: Sequence[_Group], places: Sequence[str]) -> list[str]:
    """What each is called: within those of one label by what differs there, behind the label."""
    names = [""] * len(groups)
    for label in dict.fromkeys(group.label for group in groups):
        inside = [i for i, group in enumerate(groups) if group.label == label]
        these, their = [groups[i] for i in inside], [places[i] for i in inside]
        say = _speller(these, _differing(these, their))
        for i in inside:
            names[i] = " ".join(filter(None, (label, say(groups[i])))) or _usual_name(groups[i])
    return names


def _usual_name(group: _Group) -> str:
    """That of a method which differs from no other."""
    return group.typed.get(ENTRY) or group.leaves["method"].split("/")[-1]


def _speller(groups: Sequence[_Group], keys: Sequence[str]) -> Callable[[_Group], str]:
    """Names as short as can be: of choices the value's end, of other keys the key's end and the value."""
    chosen = {key for key in keys if key in GROUPS or key in groups[0].runs[0].result["choices"]}
    tails = {key: key.split(".")[-1] for key in keys if key not in chosen}
    shown = {key: tail if list(tails.values()).count(tail) == 1 else key for key, tail in tails.items()}
    values = {key: {group.at(key) for group in groups} - {None} for key in chosen}
    short = {key: _ends([str(value) for value in found]) for key, found in values.items()}

    def say(group: _Group) -> str:
        parts = []
        for key in keys:
            value = group.at(key)
            if value not in (None, NULL):
                parts.append(short[key][value] if key in chosen else f"{shown[key]}={value}")
        return " ".join(parts)

    return say


def _ends(values: Sequence[str], signs: str = "/.") -> dict[str, str]:
    """`adam` of optimizer/adam and `mnist_adam` of yogi.table_ae.mnist_adam, where no other ends so."""
    ends = {value: re.split(f"[{signs}]", value.rstrip(signs))[-1] for value in values}
    return {value: end if list(ends.values()).count(end) == 1 else value for value, end in ends.items()}
