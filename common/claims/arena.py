"""Arenas: several methods on the same grounds with equal budgets, and who stands where.

An arena is a file `conf/arena/<name>.yaml`:

    title, says      what it is
    unit             of what is measured
    fields           by name: grounds on which the same methods can play
      validation     the metric of result.json that decides, larger is better
      test           the metric that is shown beside it
      needs          a file of the project without which nobody plays, as a table of trainings; optional
      words          the words that all runs of the field share, the budget among them
      seeds          one run for each; a run may hold several searches, see `values`
      grounds        by name: more words
      contestants    by name: more words, none of which may begin with `paper.`, so that budgets stay equal;
                     {ground} in them is the ground's name, {others} those of the field's other grounds
      left_out       by name: why a method is not defined here

Of a contestant whose method or paper is not there yet it is said so, and the others play without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.base.errors import UserError
from common.base.files import read_yaml
from common.claims.judge import Interval, mean_interval
from common.runs.evidence import Evidence, key_of, last_of_each_key
from common.tables.tables import in_roots, roots, unknown

Words = tuple[str, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArenaField(_Strict):
    """Grounds on which the same methods can play; see the module."""

    validation: str
    test: str
    needs: str | None = None
    words: Words
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    grounds: dict[str, Words]
    contestants: dict[str, Words]
    left_out: dict[str, str] = {}

    def runs(self, ground: str, contestant: str) -> list[Words]:
        """The words of each run of a contestant on a ground, one a seed."""
        others = ",".join(name for name in self.grounds if name != ground)
        own = [
            word.replace("{ground}", ground).replace("{others}", others)
            for word in self.contestants[contestant]
        ]
        shared = [*self.words, *self.grounds[ground]]
        return [last_of_each_key([*shared, *own, f"seed={seed}"]) for seed in self.seeds]


class Arena(_Strict):
    """What an arena's file says."""

    name: str
    title: str
    says: str
    unit: str
    fields: dict[str, ArenaField]


@dataclass(frozen=True)
class Standing:
    """How a contestant did on one ground.

    Attributes:
        validation, test: means over seeds with their 95% intervals.
        rank: the mean over seeds of its rank by validation, 1 the best.
    """

    validation: Interval
    test: Interval
    rank: Interval


@dataclass(frozen=True)
class FieldStandings:
    """Who stands where on the grounds of a field.

    Attributes:
        name: of the field.
        seeds: how many searches each mean is over; 0 where nothing is complete.
        by_ground: by ground and contestant; only grounds of which all runs are there.
        rank, test_rank: by contestant, the best first, the mean over those grounds of its ranks by
            validation and by test; the interval is over seeds: it says what other seeds would give on these
            grounds, not on others.
        missing: runs that are not there, by their words.
        absent: contestants that are not there yet, or not defined here, with the reason.
    """

    name: str
    seeds: int
    by_ground: dict[str, dict[str, Standing]]
    rank: dict[str, Interval]
    test_rank: dict[str, Interval]
    missing: list[Words]
    absent: dict[str, str]


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
        arena = Arena(name=name, **read_yaml(path))
    except (ValidationError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    for field in arena.fields.values():
        for contestant, words in field.contestants.items():
            unequal = [word for word in words if key_of(word).startswith("paper")]
            if unequal:
                raise UserError(
                    f"{path}: contestant {contestant} sets {unequal[0]} (valid: in the field's words, so "
                    "that all have one budget)"
                )
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
    """The words of every run that an arena needs, each once."""
    return list(
        dict.fromkeys(
            words
            for field in arena.fields.values()
            for ground in field.grounds
            for contestant in playing(field)[0]
            for words in field.runs(ground, contestant)
        )
    )


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
    """Who stands where, by the results that are there."""
    return [_of_field(arena, name, field, evidence) for name, field in arena.fields.items()]


def _of_field(arena: Arena, name: str, field: ArenaField, evidence: Evidence) -> FieldStandings:
    here, absent = playing(field)
    scores: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    missing: list[Words] = []
    for ground in field.grounds:
        found = {one: [evidence.find(words) for words in field.runs(ground, one)] for one in here}
        lacking = [
            words
            for one in here
            for words, result in zip(field.runs(ground, one), found[one], strict=True)
            if result is None
        ]
        missing += lacking
        if not lacking and here:
            there = {
                one: [result for result in results if result is not None] for one, results in found.items()
            }
            scores[ground] = {
                one: (values(results, field.validation), values(results, field.test))
                for one, results in there.items()
            }
    _check_equal(arena, scores)
    by_ground, ranks, test_ranks = {}, [], []
    for ground, table in scores.items():
        rank, test_rank = (_ranks([pair[k] for pair in table.values()]) for k in (0, 1))
        ranks.append(rank)
        test_ranks.append(test_rank)
        by_ground[ground] = {
            one: Standing(mean_interval(validation), mean_interval(test), mean_interval(rank[k].tolist()))
            for k, (one, (validation, test)) in enumerate(table.items())
        }
    return FieldStandings(
        name,
        len(next(iter(next(iter(scores.values())).values()))[0]) if scores else 0,
        by_ground,
        _means(here, ranks),
        _means(here, test_ranks),
        missing,
        absent,
    )


def _check_equal(arena: Arena, scores: dict[str, dict[str, tuple[list[float], list[float]]]]) -> None:
    counts = {len(part) for table in scores.values() for pair in table.values() for part in pair}
    if len(counts) > 1:
        raise UserError(
            f"arena {arena.name}: contestants have {sorted(counts)} searches (valid: equal numbers)"
        )


def _ranks(scores: list[list[float]]) -> np.ndarray:
    """Of contestants [C][S] the ranks of each seed, 1 the largest score, ties share the mean: [C, S]."""
    from scipy.stats import rankdata

    found: np.ndarray = rankdata(-np.array(scores), method="average", axis=0)
    return found


def _means(names: list[str], ranks: list[np.ndarray]) -> dict[str, Interval]:
    """Of ranks [C, S] on each ground the mean over grounds, with an interval over seeds."""
    if not ranks:
        return {}
    mean = np.mean(ranks, axis=0)
    found = {name: mean_interval(row.tolist()) for name, row in zip(names, mean, strict=True)}
    return dict(sorted(found.items(), key=lambda item: item[1].mean))
