"""The figures of the benchmarks: how one is given, kept in results.json, and shown in docs/benchmarks.md.

A benchmark is a module of this folder with a function `main(tiny=False, ...) -> dict[str, Figure]`. With
`tiny` it goes through the same code on sizes that take a second or two; its figures mean nothing then.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from common.base.errors import UserError
from common.base.marked import marked
from common.runs.environment import cpu

FOLDER = Path(__file__).parent
RESULTS, PAGE = FOLDER / "results.json", FOLDER.parent / "docs" / "benchmarks.md"
MARKS = ("<!-- figures of benchmarks/results.json, by make bench -->", "<!-- end of the figures -->")
# what stands in this folder and measures nothing
OTHERS = {"__init__", "__main__", "figures", "tune", "tune_table"}

Main = Callable[..., dict[str, "Figure"]]


@dataclass(frozen=True)
class Figure:
    """A number that was measured.

    Args:
        value: the number.
        unit: what follows it: `x its time` (ours over the peer's), `x as fast` (the
            peer's time over ours), `s`.
        what: what was measured.
        peer: what it was measured against, "" for nothing.
        at_most, at_least: the goal, None for none.
    """

    value: float
    unit: str
    what: str
    peer: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the goal is met; NaN meets none."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    def line(self) -> str:
        """The figure, its goal, and whether it is met."""
        against = f", against {self.peer}" if self.peer else ""
        goals = [f"<= {self.at_most}"] if self.at_most is not None else []
        goals += [f">= {self.at_least}"] if self.at_least is not None else []
        verdict = f" ({', '.join(goals)}): {'pass' if self.passed else 'FAIL'}" if goals else ""
        return f"{self.what}{against}: {number(self.value)} {self.unit}{verdict}"


def seconds(
    calls: dict[str, Callable[[], object]], cuda: bool, rounds: int, discarded: int = 1
) -> dict[str, list[float]]:
    """The time of each call in each round, in turn, after some rounds that are not counted.

    On the CPU it is the processor's time, which other programs do not change.

    Args:
        calls: by name.
        cuda: whether they run on a GPU, which is waited for.
        rounds: how many are counted.
        discarded: how many are not.
    """
    clock = time.perf_counter if cuda else time.process_time
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + discarded):
        for name, call in calls.items():
            start = clock()
            call()
            if cuda:
                torch.cuda.synchronize()
            found[name].append(clock() - start)
    return {name: times[discarded:] for name, times in found.items()}


def elapsed(work: Callable[[], object]) -> float:
    """How long it takes by the clock, for work of several threads or processes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def number(value: float) -> str:
    """Three digits, and whole thousands: `0.945`, `13.6`, `1,080`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def names() -> list[str]:
    """Every benchmark."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in OTHERS)


def command(main: Main) -> NoReturn:
    """Call a benchmark as the command line says, print its figures, and end: with 1 if one misses its goal.

    The words are `--tiny`, and `name=value` for the other parameters of `main`.
    """
    try:
        given = options(main, sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    figures = main(**given)
    for figure in figures.values():
        print(figure.line())
    sys.exit(0 if all(figure.passed for figure in figures.values()) else 1)


def options(main: Main, words: list[str]) -> dict[str, Any]:
    """The arguments that the words of a command line name, each of the type of its default.

    Raises:
        UserError: `main` has no such parameter, or takes no such value.
    """
    defaults = {name: each.default for name, each in inspect.signature(main).parameters.items()}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = ("tiny", "", "") if word == "--tiny" else word.partition("=")
        if name not in defaults or (name == "tiny") == bool(equals):
            others = [f"{other}=..." for other in defaults if other != "tiny"]
            raise UserError(f"{word}; valid: {', '.join(['--tiny', *others])}")
        try:
            found[name] = True if name == "tiny" else type(defaults[name])(text)
        except ValueError:
            raise UserError(f"{word}: not a {type(defaults[name]).__name__}") from None
    return found


def measure(name: str, tiny: bool) -> tuple[dict[str, Figure], int] | str:
    """The figures of a benchmark and the threads of their process, or the module that it lacks."""
    try:
        module = import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        return str(error.name)
    return module.main(tiny=tiny), torch.get_num_threads()


def records(
    benchmark: str, figures: dict[str, Figure], code: str | None, threads: int
) -> dict[str, dict[str, Any]]:
    """The figures by `benchmark.figure`, each with the commit of the code, where and when it was measured."""
    circumstances = {
        "commit": code,
        "processor": cpu(),
        "threads": threads,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return {f"{benchmark}.{name}": asdict(figure) | circumstances for name, figure in figures.items()}


def read() -> dict[str, dict[str, Any]]:
    """All that results.json holds."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def merge(benchmark: str, found: dict[str, dict[str, Any]]) -> None:
    """Put the records of a benchmark in the place of its old ones, and write the table of the page anew."""
    kept = {name: record for name, record in read().items() if name.split(".")[0] != benchmark}
    RESULTS.write_text(json.dumps(dict(sorted((kept | found).items())), indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), read()))


def table(kept: dict[str, dict[str, Any]]) -> str:
    """The records as a table in Markdown, a row for each."""
    rows = ["| what | against | figure | measured |", "|---|---|---|---|"]
    for record in kept.values():
        threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
        code = (record["commit"] or "no commit")[:7]
        cells = [record["what"], record["peer"], f"{number(record['value'])} {record['unit']}"]
        rows.append(f"| {' | '.join(cells)} | {record['date']}, {code}, {threads} |")
    return "\n".join(rows)


def with_table(text: str, kept: dict[str, dict[str, Any]]) -> str:
    """A text with the table between its two marks."""
    return marked(text, MARKS, table(kept))
