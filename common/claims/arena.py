"""Arenas: several methods on the same grounds with equal budgets, and who stands where.

An arena is a file `conf/arena/<name>.yaml`:

    title, says      what it is, what its budgets are
    fields           by name: grounds on which the same methods can play
      says           what is played there
      tuned          what is tuned, and on what: the same of every contestant
      measures       by metric of result.json: what it is, its unit, which is better (lower, higher), and the
                     least and the most that it can be, where intervals end; the first one orders the
                     contestants
      trade_off      measures of which one is had for the other, so that nobody is first by one alone;
                     optional
      needs          a file of the project without which nobody plays, as a table of trainings; optional
      words          the words that all runs of the field share, the budget among them; where one of them
                     holds {contestant}, the contestant's words stand there, and else behind them; {seed} in
                     any word is the run's seed
      seeds          one run for each; a run may hold several searches, see `values`
      grounds        by name: more words
      contestants    by name: more words, none of which may set a budget (paper, dataset, scale, seed);
                     {ground} in them is the ground's name, {others} those of the field's other grounds
      grids          by contestant: the settings that it may choose from, each more words, as many for all;
                     optional, as is
      choose         the measure, of no test set, whose mean over seeds decides which, on each ground
      left_out       by name: why a method is not defined here

Of a contestant whose method or paper is not there yet it is said so, and the others play without it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.base.errors import UserError
from common.base.files import read_yaml
from common.claims.judge import Interval, mean_interval
from common.runs.code import stale
from common.runs.evidence import Evidence, key_of, last_of_each_key
from common.tables.tables import in_roots, roots, unknown

# what decides the budget, and belongs to the field
BUDGETS = ("paper", "dataset", "scale", "seed")
EXAMPLE = "conf/arena/optimizers.yaml"
# where the words of a contestant stand within a word of the field
PLACE = "{contestant}"

# mean ranks that differ by less are level, and values that agree in so many digits are tied: that is rounding
LEVEL, DIGITS = 1e-9, 6

Words = tuple[str, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(_Strict):
    """A metric of result.json: what it is, its unit ("" for none), which values are better, its bounds."""

    says: str
    unit: str
    better: Literal["lower", "higher"]
    least: float = -math.inf
    most: float = math.inf

    @property
    def label(self) -> str:
        """What it is, with its unit."""
        return f"{self.says} ({self.unit})" if self.unit else self.says

    def interval(self, found: Sequence[float]) -> Interval:
        """The mean of values with its 95% interval over seeds, as far as there can be such values."""
        return _within(mean_interval(found), self.least, self.most)


class ArenaField(_Strict):
    """Grounds on which the same methods can play; see the module."""

    says: str
    tuned: str
    measures: Annotated[dict[str, Measure], Field(min_length=1)]
    trade_off: tuple[str, ...] = ()
    needs: str | None = None
    words: Words
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    grounds: dict[str, Words]
    contestants: dict[str, Words]
    grids: dict[str, tuple[Words, ...]] = {}
    choose: str | None = None
    left_out: dict[str, str] = {}

    @property
    def first(self) -> str:
        """The measure that orders the contestants."""
        return next(iter(self.measures))

    def options(self, contestant: str) -> tuple[Words, ...]:
        """The settings that a contestant may choose from; its own words alone where nothing is tuned."""
        return self.grids.get(contestant, ((),))

    def runs(self, ground: str, contestant: str, option: Words = ()) -> list[Words]:
        """The words of each run of a contestant on a ground, one a seed."""
        others = ",".join(name for name in self.grounds if name != ground)
        own = [
            word.replace("{ground}", ground).replace("{others}", others)
            for word in (*self.contestants[contestant], *option)
        ]
        shared = [*self.words, *self.grounds[ground]]
        if any(PLACE in word for word in shared):
            words = [word.replace(PLACE, " ".join(own)) for word in shared]
        else:
            words = [*shared, *own]
        return [
            last_of_each_key([*(word.replace("{seed}", str(seed)) for word in words), f"seed={seed}"])
            for seed in self.seeds
        ]

    def faults(self) -> Iterator[str]:
        """What would make the contest unequal, each in words."""
        for name, words in self.contestants.items():
            for word in (*words, *(word for option in self.options(name) for word in option)):
                if key_of(word).split(".")[0] in BUDGETS:
                    yield (
                        f"contestant {name} sets {word} (valid: in the field's words, so that all have one "
                        "budget)"
                    )
        strangers = sorted(set(self.grids) - set(self.contestants))
        if strangers:
            yield f"grids: {strangers[0]} does not play (valid: {', '.join(self.contestants)})"
        sizes = {name: len(self.options(name)) for name in self.contestants}
        if len(set(sizes.values())) > 1:
            yield f"grids of {sizes} settings (valid: as many for all)"
        if self.trade_off and (len(self.trade_off) < 2 or set(self.trade_off) - set(self.measures)):
            valid = f"at least two of {', '.join(self.measures)}"
            yield f"trade_off={list(self.trade_off)} (valid: {valid})"
        fitting = [name for name in self.measures if "test" not in name]
        if self.grids and self.choose not in fitting:
            yield f"choose={self.choose} (valid: a measure of no test set: {', '.join(fitting) or 'none'})"
        if self.choose is not None and not self.grids:
            yield f"choose={self.choose}: there are no grids (valid: leave it out)"


class Arena(_Strict):
    """What an arena's file says."""

    name: str
    title: str
    says: str
    fields: dict[str, ArenaField]


@dataclass(frozen=True)
class Standing:
    """How a contestant did on one ground.

    Attributes:
        measured: by measure the mean over seeds with its 95% interval.
        chosen: the setting of its grid that it chose; empty where nothing is tuned.
    """

    measured: dict[str, Interval]
    chosen: Words


@dataclass(frozen=True)
class FieldStandings:
    """Who stands where on the grounds of a field.

    Attributes:
        name: of the field.
        seeds: how many searches or trainings each mean is over; 0 where nothing is complete.
        by_ground: by ground and contestant; only grounds of which all runs are there.
        ranks: by measure and contestant the mean over those grounds of its ranks among results of the same
            seed, 1 the best, ties share the mean; contestants are in the order of the first measure. The
            interval is over seeds: it says what other seeds would give on these grounds, not on others.
        trade_off: measures of which one is had for the other.
        results: those that are there, also of grounds that lack some.
        missing: runs that are not there, by their words.
        absent: contestants that are not there yet, or not defined here, with the reason.
    """

    name: str
    seeds: int
    by_ground: dict[str, dict[str, Standing]]
    ranks: dict[str, dict[str, Interval]]
    trade_off: tuple[str, ...]
    results: list[dict[str, Any]]
    missing: list[Words]
    absent: dict[str, str]

    @property
    def rank(self) -> dict[str, Interval]:
        """By contestant, the best first: its rank by the first measure; empty where nothing is complete."""
        return next(iter(self.ranks.values()), {})

    @cached_property
    def stale(self) -> int:
        """How many of the results earlier code has made: seconds of work, done where it is shown."""
        return sum(map(stale, self.results))

    @property
    def leaders(self) -> list[str]:
        """Those of the best mean rank, several where they are level; of a trade-off those whom nobody beats.

        Another beats a contestant whose mean ranks are no better than its own by any of the traded
        measures, and whose interval lies wholly behind its own by one.
        """
        if self.trade_off:
            return [name for name in self.rank if not any(self._beats(other, name) for other in self.rank)]
        best = min((one.mean for one in self.rank.values()), default=0.0)
        return [name for name, one in self.rank.items() if one.mean <= best + LEVEL]

    def _beats(self, one: str, other: str) -> bool:
        pairs = [(self.ranks[name][one], self.ranks[name][other]) for name in self.trade_off]
        return all(a.mean <= b.mean + LEVEL for a, b in pairs) and any(a.high < b.low for a, b in pairs)

    def open_against(self, contestant: str) -> list[str]:
        """Those whose rank's interval overlaps with a contestant's: who of them is ahead is open."""
        own = self.rank[contestant]
        return [
            name
            for name, other in self.rank.items()
            if name != contestant and other.low <= own.high and own.low <= other.high
        ]


def arenas() -> list[str]:
    """The names of all arenas."""
    return sorted({path.stem for root in roots() for path in root.glob("conf/arena/*.yaml")})


def load_arena(name: str) -> Arena:
    """An arena by its name.

    Raises:
        UserError: there is none, or its file is not as the module says.
    """
    if name not in arenas():
        raise UserError(unknown("arena", name, arenas()).replace("arena=", "arena ", 1))
    path = in_roots(f"conf/arena/{name}.yaml")
    try:
        said = read_yaml(path)
        if not isinstance(said, dict) or "name" in said or not all(isinstance(key, str) for key in said):
            raise UserError(
                f"{path}: valid: title, says and fields, as in {EXAMPLE}; the file's name is its own"
            )
        arena = Arena(name=name, **said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg'].lower()} (valid: as in {EXAMPLE})") from error
    for title, field in arena.fields.items():
        for fault in field.faults():
            raise UserError(f"{path}: {title}: {fault}")
    return arena


def playing(field: ArenaField) -> tuple[list[str], dict[str, str]]:
    """The contestants of a field that are there, and the reasons why others are not."""
    here, absent = [], dict(field.left_out)
    if field.needs is not None and not in_roots(field.needs).exists():
        return [], absent | dict.fromkeys(field.contestants, f"not here yet ({field.needs})")
    for name, words in field.contestants.items():
        chosen = {key_of(word): word.partition("=")[2] for word in (*field.words, *words)}
        paths = [
            f"papers/{chosen['paper']}/module.py" if "paper" in chosen else "",
            f"conf/method/{chosen['method']}.yaml" if "method" in chosen else "",
        ]
        lacking = [path for path in paths if path and not in_roots(path).exists()]
        if lacking:
            absent[name] = f"not here yet ({lacking[0]})"
        else:
            here.append(name)
    return here, absent


def runs_of(arena: Arena) -> list[Words]:
    """The words of every run that an arena needs, each once.

    All of one seed come before those of the next: a play that is broken off has whole seeds, and what is
    timed is timed side by side.
    """
    numbered = [
        (number, words)
        for field in arena.fields.values()
        for here in [playing(field)[0]]
        for ground in field.grounds
        for contestant in here
        for option in field.options(contestant)
        for number, words in enumerate(field.runs(ground, contestant, option))
    ]
    return list(dict.fromkeys(words for _, words in sorted(numbered, key=lambda pair: pair[0])))


def values(results: Sequence[dict[str, Any]], metric: str) -> list[float]:
    """A metric of every search: of a run that holds several, `<metric>_by_seed`.

    Raises:
        UserError: a run that has neither, or no number.
    """
    found: list[float] = []
    for result in results:
        measured = result["metrics"]
        many = measured.get(f"{metric}_by_seed", [measured.get(metric)])
        if any(not isinstance(value, int | float) for value in many):
            raise UserError(
                f"a run of paper={result['paper']} measured no {metric} (valid: a metric of result.json)"
            )
        found += [float(value) for value in many]
    return found


def standings(arena: Arena, evidence: Evidence) -> list[FieldStandings]:
    """Who stands where, by the results that are there.

    Raises:
        UserError: contestants with other numbers of searches, or a run without a measure of the field.
    """
    return [_of_field(arena, name, field, evidence) for name, field in arena.fields.items()]


def all_standings(evidence: Evidence) -> tuple[list[tuple[Arena, list[FieldStandings]]], dict[str, str]]:
    """All arenas with who stands where; and by name those that cannot be shown, with what is wrong.

    An arena in whose file something is wrong, or whose runs lack what it measures, takes no other one along.
    """
    found, refused = [], {}
    for name in arenas():
        try:
            arena = load_arena(name)
            found.append((arena, standings(arena, evidence)))
        except UserError as error:
            refused[name] = str(error)
    return found, refused


# by measure the values of all seeds
Values = dict[str, list[float]]


def _of_field(arena: Arena, name: str, field: ArenaField, evidence: Evidence) -> FieldStandings:
    here, absent = playing(field)
    by_ground: dict[str, dict[str, Standing]] = {}
    ranks: dict[str, list[np.ndarray]] = {measure: [] for measure in field.measures}
    missing: list[Words] = []
    there: list[dict[str, Any]] = []
    counts: set[int] = set()
    for ground in field.grounds:
        runs = [
            words
            for one in here
            for option in field.options(one)
            for words in field.runs(ground, one, option)
        ]
        lacking = [words for words in runs if evidence.find(words) is None]
        there += [result for result in map(evidence.find, runs) if result is not None]
        missing += lacking
        if lacking or not here:
            continue
        scores = {one: _chosen(field, ground, one, evidence) for one in here}
        counts |= {len(part) for found, _ in scores.values() for part in found.values()}
        if len(counts) > 1:
            raise UserError(
                f"arena {arena.name}: contestants have {sorted(counts)} searches (valid: equal numbers)"
            )
        for measure, spec in field.measures.items():
            ranks[measure].append(_ranks([found[measure] for found, _ in scores.values()], spec))
        by_ground[ground] = {
            one: Standing(
                {measure: field.measures[measure].interval(part) for measure, part in found.items()}, chosen
            )
            for one, (found, chosen) in scores.items()
        }
    return FieldStandings(
        name=name,
        seeds=counts.pop() if counts else 0,
        by_ground=by_ground,
        ranks=_in_order(here, ranks, field.first),
        trade_off=field.trade_off,
        results=there,
        missing=missing,
        absent=absent,
    )


def _chosen(field: ArenaField, ground: str, contestant: str, evidence: Evidence) -> tuple[Values, Words]:
    """What a contestant measured on a ground whose runs are all there, and the setting that it chose."""
    candidates = []
    for option in field.options(contestant):
        found = [evidence.find(words) for words in field.runs(ground, contestant, option)]
        results = [result for result in found if result is not None]
        candidates.append(({measure: values(results, measure) for measure in field.measures}, option))
    choose = field.choose
    if choose is None:
        return candidates[0]
    sign = 1 if field.measures[choose].better == "lower" else -1
    return min(candidates, key=lambda one: sign * float(np.mean(one[0][choose])))


def _ranks(scores: list[list[float]], measure: Measure) -> np.ndarray:
    """Of contestants [C][S] the ranks of each seed, 1 the best, ties share the mean: [C, S].

    What differs by rounding alone is tied.
    """
    from scipy.stats import rankdata

    sign = 1 if measure.better == "lower" else -1
    rounded = [[sign * float(f"{value:.{DIGITS}g}") for value in row] for row in scores]
    found: np.ndarray = rankdata(rounded, method="average", axis=0)
    return found


def _in_order(
    names: list[str], ranks: dict[str, list[np.ndarray]], first: str
) -> dict[str, dict[str, Interval]]:
    """Of ranks [C, S] by measure on each ground the means over grounds, with intervals over seeds."""
    if not ranks[first]:
        return {}
    found = {
        measure: {
            # as far as there are ranks
            name: _within(mean_interval(row.tolist()), 1.0, float(len(names)))
            for name, row in zip(names, np.mean(each, axis=0), strict=True)
        }
        for measure, each in ranks.items()
    }
    order = sorted(names, key=lambda name: found[first][name].mean)
    return {measure: {name: found[measure][name] for name in order} for measure in found}


def _within(found: Interval, least: float, most: float) -> Interval:
    """An interval as far as there are values, and its mean; one that nothing bounds stays as it is."""
    if not found.bounded:
        return found
    low, high = max(found.low, least), min(found.high, most)
    return replace(found, low=min(low, found.mean), high=max(high, found.mean))
