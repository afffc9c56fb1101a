"""`replay.py`: makes recorded results again, by the code as it is and on this machine, and compares them."""

import math
import queue
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.runs.code import stale
from common.runs.coverage import chosen
from common.runs.environment import cpu, versions
from common.runs.evidence import Evidence, results_folder
from common.runs.result import number
from common.runs.worker import INTERRUPTED
from common.runs.worker_process import Answer, Worker

HELP = """Make results that are recorded in results/ again, by the code as it is and on this machine, and say
which of their numbers come out. Nothing is replaced: the runs are made in a folder that is deleted.

  python replay.py                                  a result of each paper, drawn at random
  python replay.py 'spider.*' 'yogi.ae_small.*'     of these entries, one of each paper
  python replay.py 'spider.*' sample=20 seed=1      twenty of them, drawn otherwise
  python replay.py within=600                       drawn among those that took at most so many seconds

A number is the same where it is to five digits (or to 1e-9); times, rates and lists are not compared.
Another processor rounds otherwise, and a training carries that on from step to step: it may end elsewhere, as
another seed would. The exit code is 1 where a run fails, where a number differs though code, processor and
versions do not, or where it was stopped before all were made."""
OWN = {"sample": 1, "seed": 0, "within": 60}
# of numbers that are the same, relative and, near 0, absolute
TOLERANCE = (1e-5, 1e-9)
# differing numbers that a line shows
SHOWN = 3
# the largest setting
MOST = 10**9 - 1


@dataclass(frozen=True)
class Replayed:
    """What came of one result.

    Attributes:
        count: numbers that were compared.
        differing: the others by name, as they were and as they are.
        excuses: what is not as it was when the result was made; nothing where the numbers should be the same.
        failed: what the run said that failed.
    """

    count: int
    differing: Mapping[str, tuple[Any, Any]]
    excuses: Sequence[str]
    failed: str = ""

    @property
    def wrong(self) -> bool:
        """Whether this needs a look."""
        return bool(self.failed or (self.differing and not self.excuses))

    def __str__(self) -> str:
        if self.failed:
            return f"failed: {self.failed}"
        if not self.differing:
            return "the same number" if self.count == 1 else f"the same {self.count} numbers"
        shown = [f"{name} {_pair(a, b)}" for name, (a, b) in self.differing.items()]
        more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        excuse = f" ({', '.join(self.excuses)})" if self.excuses else ""
        return f"{len(shown)} of {self.count} differ{excuse}: {', '.join(shown[:SHOWN])}{more}"


def main() -> int:
    """Run the command line; 1 for a wrong word, a run that failed, or a number that is another today."""
    return run_or_help(HELP, _replay)


def _replay(words: list[str]) -> int:
    settings, patterns = read_words(words)
    evidence = Evidence.read(results_folder("no_outputs"), results_folder("results"))
    drawn = draw(evidence, patterns, **settings)
    found: list[Replayed] = []
    try:
        for position, result in enumerate(drawn, 1):
            found.append(compared(result, made_again(result)))
            print(f"[{position}/{len(drawn)}] {' '.join(result['overrides'])}: {found[-1]}", flush=True)
    except KeyboardInterrupt:
        print(f"stopped; {len(drawn) - len(found)} were not made again")
    print(summary(found))
    return 1 if len(found) < len(drawn) or any(one.wrong for one in found) else 0


def summary(found: Sequence[Replayed]) -> str:
    """How many came out, and how many did not for which reason."""
    same = sum(not (one.failed or one.differing) for one in found)
    failed = sum(bool(one.failed) for one in found)
    excused = sum(bool(one.differing and one.excuses) for one in found)
    return (
        f"{len(found)} made again: {same} the same; {excused} differ as code, processor or versions do, "
        f"{len(found) - same - failed - excused} though nothing does; {failed} failed"
    )


def read_words(words: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """The command's settings, and names of entries.

    Raises:
        UserError: a word that is neither, or a setting that is no whole number of its range.
    """
    refuse_options(words)
    settings, patterns = dict(OWN), []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            patterns.append(word)
            continue
        if key not in OWN:
            valid = ", ".join(f"{name}=" for name in OWN)
            raise UserError(f"{word}; valid: {valid}, and names of entries with * and ?")
        least = 0 if key == "seed" else 1
        if not value.isdecimal() or len(value) > len(str(MOST)) or int(value) < least:
            raise UserError(f"{word}; valid: a whole number from {least} to {MOST:,}")
        settings[key] = int(value)
    return settings, patterns


def draw(
    evidence: Evidence, patterns: Sequence[str], sample: int, seed: int, within: float
) -> list[dict[str, Any]]:
    """So many results of each paper, drawn at random among those of CPU that take at most `within` seconds.

    One that measured nothing but times is not drawn.

    Raises:
        UserError: a pattern that matches no entry, or no result that is as quick.
    """
    names = {entry.name for entry in chosen(patterns)}
    fitting: dict[str, list[dict[str, Any]]] = {}
    for _, one in sorted(evidence.by_key.items()):
        of_these = names & set(one["entries"]) if patterns else True
        if (
            of_these
            and any(_compares(*metric) for metric in one["metrics"].items())
            and one["device"] == "cpu"
            and seconds(one, evidence.by_key.get) <= within
        ):
            fitting.setdefault(one["paper"], []).append(one)
    if not fitting:
        asked = f"of {' '.join(patterns)} " if patterns else ""
        raise UserError(
            f"no recorded result {asked}took at most {within} s on a CPU (valid: a larger within=, or other "
            "entries; python cover.py --list counts the numbers of each paper)"
        )
    chance = random.Random(seed)
    return [one for _, all_ in sorted(fitting.items()) for one in chance.sample(all_, min(sample, len(all_)))]


def seconds(result: dict[str, Any], find: Callable[[str], dict[str, Any] | None]) -> float:
    """How long a run takes with all that it needs first; infinity where that is not recorded.

    Args:
        find: the recorded result of a run key.
    """
    total = float(result["wall_seconds"])
    for stage in result["stages"].values():
        there = find(stage["key"])
        total += math.inf if there is None else seconds(there, find)
    return total


def made_again(result: dict[str, Any]) -> Answer | None:
    """What the run of a result gives today; None where its process ended without a word."""
    answers: queue.Queue[tuple[Worker, Answer | None]] = queue.Queue()
    # what the run needs first is made anew, too
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        worker = Worker(1, answers, result["threads"])
        try:
            worker.make([*result["overrides"], f"output_dir={folder}", "trainer=cpu", "logger=none"])
            return answers.get()[1]
        finally:
            worker.stop()
            worker.end()


def compared(old: dict[str, Any], answer: Answer | None) -> Replayed:
    """A recorded result beside what its run gave today."""
    if answer is None or "metrics" not in answer:
        said = "its worker ended" if answer is None or INTERRUPTED in answer else answer["said"]
        return Replayed(0, {}, [], said)
    new = answer["metrics"]
    numbers = {name: value for name, value in old["metrics"].items() if _compares(name, value)}
    differing = {
        name: (value, new.get(name)) for name, value in numbers.items() if not close(value, new.get(name))
    }
    return Replayed(len(numbers), differing, excuses(old) if differing else [])


def _compares(name: str, value: Any) -> bool:
    return not timed(name) and (value is None or isinstance(value, int | float))


def timed(name: str) -> bool:
    """Whether a metric is a time, a rate or a use of memory, which no two runs have alike."""
    parts = {"seconds", "minutes", "hours", "memory"}
    return bool(parts & set(name.split("_"))) or name.startswith("speed_")


def _pair(old: Any, new: Any) -> str:
    """Two numbers that differ, by as many digits as show it."""
    texts = number(old), number(new)
    return " -> ".join(texts if texts[0] != texts[1] else (repr(old), repr(new)))


def close(old: Any, new: Any, tolerance: tuple[float, float] = TOLERANCE) -> bool:
    """Whether a number is the same; one that is not finite is like itself alone."""
    if isinstance(old, float) and isinstance(new, int | float):
        relative, least = tolerance
        return math.isclose(old, new, rel_tol=relative, abs_tol=least) or (
            math.isnan(old) and math.isnan(new)
        )
    return bool(old == new)


def excuses(result: dict[str, Any]) -> list[str]:
    """What is not as it was when a result was made."""
    found = ["earlier code"] if stale(result) else []
    found += ["another processor"] if result.get("cpu") != cpu() else []
    return found + (["other versions"] if result["versions"] != versions() else [])
