"""`arena.py`: makes the runs that an arena lacks, and prints who stands where."""

import sys

from rich.table import Table

from common.base.command import refuse_options, run_or_help
from common.base.terminal import console
from common.claims.arena import (
    Arena,
    ArenaField,
    FieldStandings,
    all_standings,
    load_arena,
    playing,
    runs_of,
    standings,
)
from common.claims.cli import RENEW, WIDE_PIPE, made_anew, make_missing, read_evidence
from common.runs.evidence import Evidence
from common.runs.refusal import check_passed_on

HELP = """Let methods play on the same grounds with equal budgets; runs that are missing are made first.

  python arena.py                                   all arenas, and who is first
  python arena.py architectures                     make what is missing, and print the ranks
  python arena.py pruners hydra/launcher=joblib record=true

Words with = pass on to run.py, as in claims.py. With --renew, runs that earlier code made are made anew.
Arenas stand in conf/arena; their pages are in the report."""


def main() -> int:
    """Run the command line; 1 for a failed run or an unknown name."""
    return run_or_help(HELP, _arena)


def _arena(words: list[str]) -> int:
    refuse_options(words, [RENEW])
    names = [word for word in words if "=" not in word and word != RENEW]
    passed_on = [word for word in words if "=" in word]
    _check(passed_on)
    if not names:
        return _list(read_evidence(passed_on))
    found = [load_arena(name) for name in names]
    runs = list(dict.fromkeys(words for arena in found for words in runs_of(arena)))
    code = make_missing(runs, read_evidence(passed_on), passed_on, made_anew(words))
    evidence = read_evidence(passed_on)
    evidence.say_replaced()
    for arena in found:
        _print(arena, standings(arena, evidence))
    return code


def _check(words: list[str]) -> None:
    valid = "hydra/launcher=joblib, record=true, force=true, trainer=cpu"
    fixed = "an arena fixes its runs in conf/arena"
    check_passed_on(words, fixed, f"words that change no result, as {valid}", ("hydra/sweeper",))


def _list(evidence: Evidence) -> int:
    """Print all arenas; 1 where one cannot be shown, which a line on stderr says in its place."""
    found, refused = all_standings(evidence)
    for arena, fields in found:
        runs = runs_of(arena)
        there = sum(evidence.find(words) is not None for words in runs)
        print(f"{arena.name}  {there} of {len(runs)} runs  {arena.title}")
        for one in fields:
            print(f"  {one.name}: {ahead(one, arena.fields[one.name])}")
    for fault in refused.values():
        print(f"error: {fault}", file=sys.stderr)
    return 1 if refused else 0


def ahead(one: FieldStandings, field: ArenaField) -> str:
    """Who is first in a field, and against whom that is open; of a trade-off, whom none clearly beats."""
    if not one.rank:
        return "not run"
    first = one.leaders
    if one.trade_off:
        traded = " is traded for ".join(field.measures[name].says for name in one.trade_off)
        return f"nobody, as {traded}; clearly beaten by none: {', '.join(first)}"
    others = dict.fromkeys(name for leader in first for name in one.open_against(leader))
    rest = [name for name in others if name not in first]
    level = f"{' and '.join(first)}, level" if len(first) > 1 else first[0]
    return f"{level}, open against {', '.join(rest)}" if rest else level


def how_sure(one: FieldStandings, field: ArenaField) -> str:
    """What the ranks of a field are means over, and what their intervals say, in sentences."""
    played, grounds = len(one.by_ground), len(field.grounds)
    where = "" if grounds == 1 else f", and means over {played} of {grounds} grounds"
    said = f"Ranks, 1 the best, are among results of the same seed{where}"
    if one.seeds == 1:
        return f"{said}. Of one seed they have no interval, and who is ahead is open."
    over = f"{said}; numbers are means over {one.seeds} seeds with 95% intervals over seeds: what other seeds"
    found = f"{over} would give here, not what other grounds would. Where two intervals of the rank by "
    found += f"{field.measures[field.first].says} overlap, it is open which of the two is ahead."
    # of two that are alike, one is ahead with all seeds, whichever it is
    chance = 2 * 0.5**one.seeds
    if chance > 0.05 and any(rank.bounded and rank.low == rank.high for rank in one.rank.values()):
        found += (
            f" A rank without any spread was the same with all {one.seeds} seeds: two that are alike come "
            f"out in one order with all of these with a probability of {chance:.2g}."
        )
    return found


def _print(arena: Arena, found: list[FieldStandings]) -> None:
    shown = console(WIDE_PIPE)
    for one in found:
        field = arena.fields[one.name]
        here, _ = playing(field)
        first = field.measures[field.first]
        ranked = [f"rank by {measure.says}" for measure in field.measures.values()]
        title = f"{arena.title}: {one.name}"
        table = Table("contestant", *ranked, *one.by_ground, "open against", title=title)
        for name in one.rank or here:
            ranks = [str(by_name[name]) for by_name in one.ranks.values()] or ["-"] * len(ranked)
            cells = [str(standing[name].measured[field.first]) for standing in one.by_ground.values()]
            table.add_row(name, *ranks, *cells, ", ".join(one.open_against(name)) if one.rank else "-")
        shown.print(table)
        print(f"on each ground: the {first.label}, {first.better} is better")
        if one.rank:
            print(f"first: {ahead(one, field)}")
            print(how_sure(one, field))
        print(field.says)
        print(f"tuned: {field.tuned}")
        if one.stale:
            print(f"{one.stale} of {len(one.results)} runs were made by earlier code")
        for ground, standing in one.by_ground.items():
            chosen = [f"{name} {' '.join(how.chosen)}" for name, how in standing.items() if how.chosen]
            if chosen:
                print(f"{ground}, chosen: {'; '.join(chosen)}")
        for name, reason in one.absent.items():
            print(f"{name}: {reason}")
        if one.missing:
            print(f"{len(one.missing)} runs are missing, the first: {' '.join(one.missing[0])}")
