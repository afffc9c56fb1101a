"""`claims.py`: makes the runs that claims lack, and judges the claims by what all their runs measured."""

import fnmatch
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.base.names import fitting
from common.base.terminal import console
from common.claims.claims import Claim, Run, all_claims
from common.runs.code import stale
from common.runs.evidence import Evidence, asked, folders_of, key_of, values_of
from common.runs.refusal import check_passed_on, is_asked
from common.runs.result import number
from common.tables.tables import SOURCES, unknown

if TYPE_CHECKING:
    from common.claims.judge import Verdict

HELP = """Judge what the papers say, by their runs; runs that are missing are made first, as one sweep.

  python claims.py                                    every claim of every paper
  python claims.py 'yogi.*' hydra/launcher=joblib     those of one paper, its runs in parallel
  python claims.py yogi.noise_floor_falls_with_batch  one claim: what it says, its runs, its verdict
  python claims.py yogi.noise_floor_falls_with_batch --show   the same, and nothing is run
  python claims.py --list                             their names; which have all their runs

Words with = pass on to run.py: a launcher, logger=wandb, record=true (keep the results in results/),
force=true (make all the runs anew). With --renew, runs that earlier code made are made anew, and no others.
The claims stand in papers/<paper>/claims.yaml.
Verdicts: supported, refuted, or inconclusive (the 95% interval of the effect straddles); the exit code is 1
only where a run failed."""
LIST, SHOW, RENEW = "--list", "--show", "--renew"
# which of the runs that are there are made once more
Anew = Literal["none", "earlier code", "all"]
# columns of a terminal that has room for a claim's kind, size and age
WIDE = 120
# and of a pipe or a file in its place
WIDE_PIPE = 200
# runs that are shown by their commands
MOST_RUNS = 12
COLOURS = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not run": "dim"}


def main() -> int:
    """Run the command line; 0 whatever the verdicts, 1 for a failed run or an unknown name."""
    return run_or_help(HELP, _claims)


def _claims(words: list[str]) -> int:
    options = [LIST, SHOW, RENEW]
    refuse_options(words, options)
    names = [word for word in words if "=" not in word and word not in options]
    passed_on = [word for word in words if "=" in word]
    _check_words(passed_on)
    claims = chosen(names)
    evidence = read_evidence(passed_on)
    if LIST in words:
        _list(claims, evidence)
        return 0
    anew = made_anew(words)
    # those that are named in full; of globs the runs alone would fill the terminal
    for claim in claims:
        if SHOW in words or claim.name in names:
            print("\n".join(shown(claim, evidence, anew)))
    if SHOW in words:
        return 0
    code = _make(claims, evidence, passed_on, anew)
    evidence = read_evidence(passed_on)
    evidence.say_replaced()
    return max(code, _judge(claims, evidence))


def _check_words(words: list[str]) -> None:
    """Refuse words that would change what a claim fixes, before anything is run.

    Raises:
        UserError: the word.
    """
    valid = "hydra/launcher=joblib, logger=wandb, record=true, force=true, trainer=cpu"
    fixed = "a claim fixes its runs in claims.yaml"
    check_passed_on(words, fixed, f"words that change no result, as {valid}", ("hydra/sweeper",))


def chosen(names: list[str]) -> list[Claim]:
    """The claims that names and globs name, all of them by default, in the order of their files.

    Raises:
        UserError: a name that is no claim, or a glob that matches none.
    """
    claims = all_claims()
    wanted: set[str] = set()
    for name in names or ["*"]:
        matched = fnmatch.filter(claims, name)
        if not matched:
            raise UserError(unknown("claim", name, list(claims)).replace("claim=", "claim ", 1))
        wanted |= set(matched)
    return [claim for name, claim in claims.items() if name in wanted]


def read_evidence(words: list[str]) -> Evidence:
    """The evidence in the folders that run.py is to use with these words."""
    return Evidence.read(*folders_of(values_of(words)))


def _list(claims: list[Claim], evidence: Evidence) -> None:
    """Print name, kind, runs that are there, and what each claim says, one line a claim."""
    longest = max(len(claim.name) for claim in claims)
    wide = os.get_terminal_size().columns if os.isatty(1) else None
    for claim in claims:
        runs = claim.all_runs()
        there = sum(evidence.find(run.words) is not None for run in runs)
        counts = f"{there} of {len(runs)} runs"
        print(f"{claim.name:<{longest}}  {claim.kind:<8}  {counts:<14}  {claim.says}"[:wide])


def made_anew(words: list[str]) -> Anew:
    """Which of the runs that are there the words of a command ask to make once more."""
    passed_on = [word for word in words if "=" in word]
    if is_asked("force", passed_on):
        return "all"
    return "earlier code" if RENEW in words else "none"


def _is_wanted(words: Sequence[str], evidence: Evidence, anew: Anew) -> bool:
    """Whether a run is to be made: nothing is there of it, or what is there is to be made anew."""
    found = evidence.find(words)
    if found is None or anew == "all":
        return True
    return anew == "earlier code" and stale(found)


def shown(claim: Claim, evidence: Evidence, anew: Anew = "none") -> list[str]:
    """What a claim says, what its verdict is about, the entries that it needs, and what it would run."""
    runs = claim.all_runs()
    wanted = [run for run in runs if _is_wanted(run.words, evidence, anew)]
    entries = dict.fromkeys(w.partition("=")[2] for run in runs for w in run.words if w.startswith("entry="))
    own = " and runs of its own" if entries and not all(map(_of_entry, runs)) else ""
    lines = [
        f"{claim.name}: {claim.says}",
        f"  source: {SOURCES[claim.source.kind]}, {claim.source.where}",
        f"  judged: {claim.judged_by}",
        f"  entries: {', '.join(entries)}{own}" if entries else "  entries: none, its runs are its own",
        f"  runs: {len(runs)}, of which {_there(runs, evidence)}" + (", to run:" if wanted else ""),
    ]
    lines += [f"    python run.py {shlex.join(run.words)}" for run in wanted[:MOST_RUNS]]
    rest = len(wanted) - MOST_RUNS
    return lines + ([f"    and {rest} more"] if rest > 0 else [])


def _there(runs: Sequence[Run], evidence: Evidence) -> str:
    """How many of the runs are there, and how many of these earlier code made."""
    found = [result for run in runs if (result := evidence.find(run.words)) is not None]
    old = sum(map(stale, found))
    return f"{len(found)} are there" + (f" ({old} of earlier code)" if old else "")


def _of_entry(run: Run) -> bool:
    return any(word.startswith("entry=") for word in run.words)


def _make(claims: list[Claim], evidence: Evidence, words: list[str], anew: Anew) -> int:
    """Make the runs of claims that are wanted; arguments and what comes back as of `make_missing`."""
    runs = list({asked(run.words): run.words for claim in claims for run in claim.all_runs()}.values())
    return make_missing(runs, evidence, words, anew)


def make_missing(
    runs: Sequence[tuple[str, ...]], evidence: Evidence, words: list[str], anew: Anew = "none"
) -> int:
    """Make the runs that are missing or wanted anew, and record those that are there, if asked to.

    Args:
        runs: the words of each.
        evidence: what is there.
        words: that all runs get.
        anew: which of those that are there to make once more.

    Returns:
        1 if a run failed.
    """
    wanted = [run for run in runs if _is_wanted(run, evidence, anew)]
    if is_asked("record", words) and anew != "all":
        kept = set(runs) - set(wanted)
        _record({key for run in kept if (key := evidence.key(run)) is not None}, evidence, words)
    if not wanted:
        return 0
    from common.runs.cli import run_list

    print(f"{len(wanted)} of {len(runs)} runs to make", flush=True)
    force = ["force=true"] if anew == "earlier code" else []
    return run_list([list(run) for run in wanted], _with_defaults([*words, *force]))


def _record(keys: set[str], evidence: Evidence, words: list[str]) -> None:
    """Record results that are there and had not been recorded when they were made."""
    from common.runs.record import record

    _, folder = folders_of(values_of(words))
    for key in sorted(keys - evidence.recorded):
        record(key, evidence.by_key[key], folder)


def _with_defaults(words: list[str]) -> list[str]:
    """No logger unless one is asked for; jobs side by side have one thread each unless the user says more."""
    extra = [] if "logger" in {key_of(word) for word in words} else ["logger=none"]
    if "hydra/launcher=joblib" in words and "OMP_NUM_THREADS" not in os.environ:
        extra.append("++hydra.job.env_set.OMP_NUM_THREADS='1'")
    return [*words, *extra]


def _judge(claims: list[Claim], evidence: Evidence) -> int:
    """Print every verdict; 1 if a run is missing."""
    from common.claims.judge import judge

    verdicts = {claim.name: judge(claim, evidence) for claim in claims}
    shown = console(WIDE_PIPE)
    shown.print(_table(claims, verdicts, shown.width))
    for name, verdict in verdicts.items():
        shown.print(f"{name}: [{COLOURS[verdict.state]}]{verdict.state}[/]", highlight=False)
        print(f"  {verdict.text}")
    counts = [verdict.state for verdict in verdicts.values()]
    print("claims: " + ", ".join(f"{counts.count(state)} {state}" for state in COLOURS if state in counts))
    return 1 if "not run" in counts else 0


def _table(claims: list[Claim], verdicts: dict[str, "Verdict"], width: int) -> Table:
    """One line a claim; in a narrow terminal without kind, size and age."""
    common, names = fitting([claim.name for claim in claims], max(width * 2 // 5, 12))
    table = Table(title=f"{common}…" if common else None, title_justify="left")
    table.add_column("claim", min_width=max(map(len, names)), no_wrap=True)
    wide = width >= WIDE
    for column in (
        "verdict",
        "n",
        "effect",
        "95% interval",
        *(("kind", "size", "older code") if wide else ()),
    ):
        table.add_column(column)
    for claim, name in zip(claims, names, strict=True):
        verdict = verdicts[claim.name]
        interval = f"[{number(verdict.low)}, {number(verdict.high)}]" if verdict.low is not None else "-"
        more = [claim.kind, _sizes(claim, verdict) or "-", str(verdict.stale or "-")]
        table.add_row(
            Text(name),
            f"[{COLOURS[verdict.state]}]{verdict.state}[/]",
            str(verdict.n),
            number(verdict.effect),
            escape(interval),
            *(more if wide else []),
        )
    return table


def _sizes(claim: Claim, verdict: "Verdict") -> str:
    """The scales of a claim's runs; `own` for those that are no entries, which no scale makes smaller."""
    entries = all(any(word.startswith("entry=") for word in run.words) for run in claim.all_runs())
    return ", ".join(sorted({scale if entries or scale != "paper" else "own" for scale in verdict.scale}))
