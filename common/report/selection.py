"""Which runs a command line means: by words, globs of entries, and folders of runs or sweeps."""

import difflib
import fnmatch
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.base.errors import UserError
from common.base.files import names_beside
from common.runs.evidence import Evidence, read_all
from common.runs.matching import NOTHING, has, value_at
from common.runs.result import read_result
from common.runs.sweep import RUNNING, read_statuses
from common.runs.words import quoted, texts_of

Result = dict[str, Any]

DONE = ("passed", "skipped")
# the name of a run's folder
RUN_KEY = re.compile(r"[0-9a-f]{12}")
# `Ours: method=optimizer/yogi`: a name for the rows of some runs, and the words of these
NAMED = re.compile(r"(?P<name>[^=:]+):\s*(?P<words>\S.*)", re.DOTALL)
FILTER = re.compile(r"(?P<key>[^=!\s]+)(?P<sign>!?=)(?P<value>.*)", re.DOTALL)
# a result named for this, as "entry" is no key of its config
ENTRY = "entry"


@dataclass(frozen=True)
class Chosen:
    """A run that is compared.

    Attributes:
        key: its run key, or where it lies.
        label: the name that its row was given; empty for none.
        recorded: whether it is committed evidence.
    """

    key: str
    result: Result
    label: str = ""
    recorded: bool = False


@dataclass(frozen=True)
class Unfinished:
    """A job that came to no result, by the words that asked for it, and why."""

    words: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Selection:
    """Runs in the order in which they were named, and jobs of their sweeps without a result.

    Attributes:
        ordered: whether that order means something, as that of a sweep's jobs does.
    """

    runs: list[Chosen]
    unfinished: list[Unfinished] = field(default_factory=list)
    ordered: bool = False


@dataclass(frozen=True)
class _There:
    """All results that there are, and the folder of outputs whose sweeps may have left jobs open."""

    evidence: Evidence
    outputs: Path

    @cached_property
    def left_open(self) -> list[Unfinished]:
        """Jobs of any sweep that came to no result, and have none by now; read once for all words."""
        found = []
        for sweep in sorted((self.outputs / "sweeps").glob("*/")):
            for status in read_statuses(sweep):
                if status["state"] not in DONE and self.evidence.find(status.get("overrides", [])) is None:
                    found.append(_unfinished(status))
        return found

    def of(self, keys: Iterable[str]) -> Selection:
        """The runs of some keys, and what is left open."""
        known = self.evidence
        runs = [Chosen(key, known.by_key[key], recorded=key in known.recorded) for key in keys]
        return Selection(runs, self.left_open)

    def everything(self) -> Selection:
        """All runs."""
        return self.of(self.evidence.by_key)


def select(words: Sequence[str], evidence: Evidence, outputs: Path) -> Selection:
    """The runs that words mean.

    A word that is a path means the runs there; one that is several words in one (`'paper=yogi seed=0'`) the
    runs that have all of them; a word without `=` the runs of the entries that it names as a glob. A `NAME: `
    in front names their rows. Runs of any of these count, if they have what all single words (`paper=yogi`,
    `seed=0,1`, `method!=optimizer/sgd`) say; without any of these all runs do. No words: the newest sweep.

    Args:
        words: those that name runs.
        evidence: all results here, and the recorded ones.
        outputs: the folder of outputs, whose sweeps are looked at too.

    Raises:
        UserError: nothing matches, or a path leads nowhere.
    """
    filters = [word for word in words if _is_filter(word)]
    named = [word for word in words if not _is_filter(word)]
    if not words:
        named = [str(_newest_sweep(outputs))]
    there = _There(evidence, outputs)
    parts = [_part(word, there) for word in named] or [there.everything()]
    kept = {
        (run.label, run.key, run.result["finished"]): run for part in parts[::-1] for run in part.runs[::-1]
    }
    if not kept:
        raise UserError(f"no run has a result yet in {', '.join(named)} (valid: folders of finished runs)")
    runs = _filtered(list(kept.values())[::-1], filters)
    unfinished = list(dict.fromkeys(one for part in parts for one in part.unfinished))
    return Selection(runs, unfinished, all(part.ordered for part in parts))


def _is_filter(word: str) -> bool:
    return _named(word) is None and len(_split(word)) == 1 and FILTER.fullmatch(word) is not None


def _named(word: str) -> re.Match[str] | None:
    """The name and the words of `NAME: WORDS`; a path may have a colon, too."""
    return None if Path(word).expanduser().exists() else NAMED.fullmatch(word)


def _split(word: str) -> list[str]:
    """The words in one; of a path, or of a word whose value has spaces, that one alone."""
    if Path(word).expanduser().exists():
        return [word]
    try:
        words = shlex.split(word)
    except ValueError:
        return [word]
    return words if words and all(FILTER.fullmatch(one) for one in words) else [word]


def _part(word: str, there: "_There") -> Selection:
    match = _named(word)
    name, rest = (match["name"].strip(), match["words"].strip()) if match else ("", word)
    found = _unnamed(rest, there)
    runs = [Chosen(run.key, run.result, name, run.recorded) for run in found.runs]
    return Selection(runs, found.unfinished, found.ordered)


def _unnamed(word: str, there: "_There") -> Selection:
    path, evidence = Path(word).expanduser(), there.evidence
    if path.exists():
        return _of_path(path, evidence)
    words = _split(word)
    if all(FILTER.fullmatch(one) for one in words):
        every = there.everything()
        return Selection(_filtered(every.runs, words), every.unfinished)
    found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    parts = [_of_path(one, evidence) for one in found]
    if parts:
        runs, jobs = (
            [run for part in parts for run in part.runs],
            [j for part in parts for j in part.unfinished],
        )
        return Selection(runs, jobs, True)
    entries = fnmatch.filter(evidence.by_entry, word)
    if not entries:
        raise UserError(_leads_nowhere(word, path, evidence))
    keys = list(dict.fromkeys(key for entry in entries for key in evidence.by_entry[entry]))
    return there.of(keys)


def _leads_nowhere(word: str, path: Path, evidence: Evidence) -> str:
    if "/" in word or word.startswith((".", "~")):
        return f"{word} does not exist (there is {names_beside(path, ())})"
    near = difflib.get_close_matches(word, [*evidence.by_entry], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"no run matches {word}: it is no path, and no entry that was run{hint} (valid: words as paper=yogi, "
        "globs of entries as 'yogi.table_ae.*', folders of runs or sweeps)"
    )


# paths


def _of_path(path: Path, evidence: Evidence) -> Selection:
    """The runs of a result, of a run's folder, of a sweep's, or of any folder that holds runs at some depth.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return _read({_key(path): path}, path)
    if (path / "varying.json").exists() or any(path.glob("[0-9][0-9][0-9][0-9][0-9][0-9].json")):
        return _of_sweep(path, evidence)
    found = sorted(path.rglob("result.json"))
    if not found and RUN_KEY.fullmatch(path.resolve().name):
        return Selection([], [Unfinished((), f"no result yet in {path}")], True)
    if not found:
        found = [one for one in sorted(path.rglob("*.json")) if "sweeps" not in one.parts]
    return _read({_key(one): one for one in found}, path)


def _key(path: Path) -> str:
    """`yogi/0123456789ab`, as in outputs; the path of what lies elsewhere."""
    folder = path.parent if path.name == "result.json" else path.with_suffix("")
    return "/".join(folder.parts[-2:]) if RUN_KEY.fullmatch(folder.name) else str(path)


def _read(paths: dict[str, Path], where: Path) -> Selection:
    results = read_all(paths)
    if (
        not results
        and paths
        and all("debug" in (read_result(path) or {}).get("config", {}) for path in paths.values())
    ):
        return Selection([], [Unfinished((), f"a debug run, which is no result: {where}")], True)
    if not results:
        below = sorted(one.name for one in where.iterdir()) if where.is_dir() else []
        shown = f"; it holds {', '.join(below[:8])}" + (", ..." if len(below) > 8 else "") if below else ""
        raise UserError(
            f"no result of a run in {where}{shown} (valid: folders with a result.json, or sweeps)"
        )
    # a file of results_dir stands for committed evidence
    chosen = [Chosen(key, one, recorded=paths[key].name != "result.json") for key, one in results.items()]
    return Selection(chosen, ordered=False)


def _of_sweep(folder: Path, evidence: Evidence) -> Selection:
    """The runs of a sweep's jobs; of one that failed there, the run by which it was made later."""
    runs: dict[str, Path] = {}
    later: dict[str, Result] = {}
    unfinished = []
    for status in read_statuses(folder):
        if "result" in status:
            path = _still_at(Path(status["result"]), folder)
            runs[_key(path)] = path
        elif (key := evidence.key(status.get("overrides", []))) is not None:
            later[key] = evidence.by_key[key]
        else:
            unfinished.append(_unfinished(status))
    results = read_all({key: path for key, path in runs.items() if path.exists()}) | later
    if not results:
        states = [status["state"] for status in read_statuses(folder)]
        raise UserError(
            f"no finished job in {folder}: {len(states)} jobs, {states.count(RUNNING['state'])} running or "
            f"killed, {states.count('failed')} failed"
        )
    return Selection([Chosen(key, one) for key, one in results.items()], unfinished, True)


def _still_at(path: Path, sweep: Path) -> Path:
    """Where a job's result lies: seen from here, or in the outputs that the sweep lies in."""
    return path if path.exists() else sweep.resolve().parents[1].joinpath(*path.parts[-3:])


def _unfinished(status: dict[str, Any]) -> Unfinished:
    state = "running or killed" if status["state"] == RUNNING["state"] else str(status["state"])
    return Unfinished(tuple(quoted(status.get("overrides", []))), state)


def _newest_sweep(outputs: Path) -> Path:
    folders = sorted((outputs / "sweeps").glob("*/"))
    if not folders:
        raise UserError(
            f"no sweep in {outputs / 'sweeps'}: run.py -m makes one (valid: words of the runs that are "
            "meant, as paper=yogi, globs of entries, folders of runs)"
        )
    return folders[-1]


# words


def _filtered(runs: list[Chosen], words: Iterable[str]) -> list[Chosen]:
    """The runs that have what all words say.

    Raises:
        UserError: the first word that leaves none, or one of whose values no run has.
    """
    before: list[str] = []
    for word in words:
        left = [run for run in runs if _says(run.result, word)]
        lost = next((one for one in _each(word) if not any(_says(run.result, one) for run in runs)), None)
        if lost is not None or not left:
            raise UserError(_none_has(lost or word, runs, before))
        runs = left
        before.append(word)
    return runs


def _each(word: str) -> list[str]:
    """`seed=0` and `seed=1` of `seed=0,1`: each of several must be of some run, or it is mistyped."""
    match = FILTER.fullmatch(word)
    assert match is not None
    if match["sign"] == "!=" or match["key"].lstrip("+") == ENTRY:
        return [word]
    return [f"{match['key']}={one}" for one in texts_of(match["value"])] or [word]


def _says(result: Result, word: str) -> bool:
    match = FILTER.fullmatch(word)
    assert match is not None
    key, value = match["key"].lstrip("+"), match["value"]
    if key == ENTRY:
        globs = texts_of(value.removeprefix("glob(").removesuffix(")"))
        found = any(fnmatch.fnmatch(entry, one) for entry in result["entries"] for one in globs)
    else:
        found = any(has(result, f"{key}={one}") for one in texts_of(value) or [value])
    return found != (match["sign"] == "!=")


def _none_has(word: str, runs: list[Chosen], before: list[str]) -> str:
    match = FILTER.fullmatch(word)
    assert match is not None
    key = match["key"].lstrip("+")
    count = f"of {len(runs)} runs" + (f" with {' '.join(before)}" if before else "")
    if not runs:
        return f"no run matches {word}: there is none yet (run.py makes one)"
    if key == ENTRY:
        there = sorted({entry for run in runs for entry in run.result["entries"]})
    else:
        values = [value_at(run.result, key) for run in runs]
        there = sorted({text(value) for value in values if value is not NOTHING})
        if not there:
            keys = sorted({one for run in runs for one in keys_of(run.result)})
            near = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            return f"no run matches {word}: {count} none has a key {key}{hint}"
    if match["sign"] == "!=":
        return f"no run matches {word}: {count} all have it"
    # optimizer/adam is near to adm, and optimizer/sgd is not near to optimizer/adm
    ends = {one.split("/")[-1]: one for one in there}
    near = [ends[end] for end in difflib.get_close_matches(match["value"].split("/")[-1], ends, n=3)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    return f"no run matches {word}: {count} none has it{hint} (there: {shown or 'none'})"


def text(value: Any) -> str:
    """A value of a config as a word has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # as run keys have it: 3.0 epochs are 3
    whole_number = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value) if whole_number else value)


def keys_of(result: Result) -> list[str]:
    """All keys by which a run can be asked for: its choices, and the dotted keys of its config."""
    return ["paper", "scale", *result["choices"], *flat(result["config"])]


def flat(node: Any, before: str = "") -> dict[str, Any]:
    """The leaves of a config by their dotted keys."""
    if not isinstance(node, dict):
        return {before: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{before}.{key}" if before else str(key))
    return found
