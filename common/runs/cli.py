"""`run.py`: the command line around Hydra: help, one-line errors, exit codes, sweeps."""

import errno
import gc
import math
import multiprocessing
import os
import re
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

os.environ["HYDRA_FULL_ERROR"] = "1"

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.base.command import missing_line, os_line
from common.base.errors import UserError
from common.runs import catalogue, hydra_speed, keys, own, sweep
from common.runs.batch import Batch
from common.runs.finished import finished
from common.runs.help import help_text
from common.runs.objective import objective_value
from common.runs.orphans import job_of
from common.runs.plugins import check_plugins, choices_of, load_plugins
from common.runs.refusal import check_words
from common.runs.request import Outcome, Request
from common.runs.result import made_at, number
from common.runs.table_kind import with_table_kind
from common.runs.words import MULTIRUN, quoted
from common.tables.tables import SCALES, SOURCES, metric_keys, papers, unknown

CONFIG_PATH = str(catalogue.CONF)
# trials of a search that are shown, from the best on
LISTED = 10
# launchers whose jobs run on this machine, and so end with the sweep
LOCAL = ("joblib", "submitit_local", "ray")
_failure: list[Exception] = []


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    words = quoted(sys.argv[1:])
    try:
        if {"-h", "--help"} & set(words):
            print(help_text(words))
            return 0
        words = sys.argv[1:] = in_order(with_table_kind(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not set(MULTIRUN) & set(words):
        return guarded(lambda: _launch(words, None))
    folder = sweep.new_sweep(words)
    return _summed_up(guarded(lambda: _launch(words, folder)), folder)


def in_order(words: list[str]) -> list[str]:
    """The overrides, then the options: Hydra takes no options between overrides.

    Raises:
        UserError: an option that is none of Hydra's, or has a wrong value.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message} (valid: overrides as key=value, -m, --help, --cfg job, --info)")

    parser.error = refuse  # type: ignore[method-assign]
    overrides = list(parser.parse_intermixed_args(words).overrides)
    options = list(words)
    for word in overrides:
        options.remove(word)
    return [*overrides, *options]


def run_list(jobs: list[list[str]], words: list[str], folder: Path | None = None) -> int:
    """Make a list of runs as one sweep; the exit code is 1 if one failed.

    Args:
        jobs: the overrides of each run.
        words: what they share: the launcher, the logger, ...
        folder: of the sweep's status files; None: a new one.
    """
    folder = folder or sweep.new_sweep(words)
    return _summed_up(guarded(lambda: _launch_list(jobs, words, folder)), folder)


def _summed_up(code: int, folder: Path) -> int:
    """End a sweep with its table; 1 if it broke off or one of its jobs failed."""
    return max(sweep.summarise(folder), code) if sweep.read_statuses(folder) else code


def _launch(words: list[str], folder: Path | None) -> None:
    check_words(words)
    catalogue.register(words)
    load_plugins(words)
    if folder is None and is_plain(words):
        run_once(words)
    else:
        _launch_by_hydra(words, folder)
    if _failure:
        raise _failure.pop()


def is_plain(words: list[str]) -> bool:
    """Whether these are words of a single run, without an option or a mode."""
    return not any(word.startswith("-") or "hydra.mode=" in word for word in words)


def make_one(words: list[str]) -> Outcome:
    """Make a single run in a process that makes several, one after the other; nothing is printed.

    Raises:
        Exception: whatever it raises, such as Interrupted or Paused.
    """
    words = with_table_kind(quoted(words))
    check_words(words)
    catalogue.register(words)
    load_plugins(words)
    ended: list[Outcome | Exception] = []

    def keep(config: DictConfig) -> None:
        # not through Hydra, which would print lines of its own about it
        try:
            ended.append(_job(config))
        except Exception as error:
            ended.append(error)

    run_once(words, keep)
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0]


def run_once(words: list[str], function: Callable[[DictConfig], Any] | None = None) -> None:
    """Make a single run as `hydra.main` would, which composes first of all to read `hydra.mode`.

    Args:
        function: that is called with its config; by default `task`.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONFIG_PATH, job_name="run", version_base="1.3"):
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        engine.run("config", function or task, [*words, *catalogue.searched(), "hydra.mode=RUN"])


def _launch_by_hydra(words: list[str], folder: Path | None) -> None:
    if folder is not None:
        sweep.note_varying(folder, words)
        # before the options: Hydra takes no override after them
        sys.argv.insert(1, f"++hydra.job.env_set.{sweep.VARIABLE}={folder.resolve()}")
    sys.argv[1:1] = catalogue.searched()
    hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")(task)()


def _launch_list(jobs: list[list[str]], words: list[str], folder: Path) -> None:
    """Launch the jobs that compose; those that do not have failed already."""
    check_plugins(words)
    sweep.note_different(folder, jobs)
    mark = f"++hydra.job.env_set.{sweep.VARIABLE}={folder.resolve()}"
    batch = Batch([*words, mark], jobs)
    legal, refused = [], []
    composed: set[frozenset[str]] = set()
    for job in batch.jobs:
        but_for_seed = frozenset(word for word in job if not word.startswith("seed="))
        try:
            if but_for_seed not in composed:
                check_words(job)
                batch.compose(job)
            composed.add(but_for_seed)
            legal.append(job)
        except Exception as error:
            refused.append((job, one_line(error, job)))
    for i, (job, text) in enumerate(refused, start=len(legal)):
        label = " ".join(sweep.varying(folder, job))
        status = {"job": label, "overrides": job, "state": "failed", "text": text, "seconds": 0.0}
        sweep.leave_status(folder, i, status)
        print(f"error: [{label}] {text}", file=sys.stderr, flush=True)
    if legal:
        batch.launch(legal, task)


def guarded(function: Callable[[], int | None]) -> int:
    """The exit code of a function; whatever it raises becomes one line on stderr and exit code 1."""
    try:
        return function() or 0
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 1
    except Exception as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


def one_line(error: BaseException, words: list[str] | None = None) -> str:
    """What went wrong, in one line that a user can act on, and where in code of the user's own.

    Args:
        error: what was raised.
        words: the overrides that led to it; by default the command line's.
    """
    known, line = _find(error, UserError), own.line_of(error)
    if known is not None:
        said = " ".join(str(known).split())
        # of a module that cannot be imported it says so itself
        return f"{said} ({line})" if line and line not in said else said
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _hydra_line(error, sys.argv[1:] if words is None else words)
    if "No trials are completed" in str(error):
        # Optuna's words, where no trial has an objective
        return "no trial of the search has a result: each failed, as its own line says"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "while writing"
        return f"the disk is full ({where}): free some space; the same command goes on"
    if isinstance(error, OSError):
        return os_line(error)
    missing = missing_line(error)
    if missing is not None:
        return missing
    at, trace = f"{line}; " if line else "", _keep_trace(error, words)
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({at}trace: {trace})"


def _find(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The first exception of a kind in a chain of causes."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


def _keep_trace(error: BaseException, words: list[str] | None) -> Path:
    """Write the traceback of an unforeseen error to a file within the outputs."""
    outputs = sweep.outputs_of(sys.argv[1:] if words is None else words)
    path = outputs / "errors" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)))
    return path


def _hydra_line(error: Exception, words: list[str]) -> str:
    """Hydra's first line, with the valid keys where a key is unknown."""
    text = str(error).strip()
    match = re.match(r"Could not override '([\w.@/]+)'", text)
    if match:
        return _unknown_key(match.group(1), words)
    if text.startswith("Error parsing override"):
        return (
            f"{text.splitlines()[0]}: values with other signs than . / - _ need two quotes: 'key=\"value\"'"
        )
    match = re.search(r"Could not find '(hydra/(?:launcher|sweeper))/([\w.-]+)'", text)
    if match:
        return unknown(match[1], match[2], choices_of(match[1]))
    match = re.match(r"In '([\w/.-]+)': Could not find '(\w+)/([\w./-]+)'", text)
    if match:
        return _not_there(*match.groups())
    unread = _unread(words)
    if unread is not None:
        return unread
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0]}: several values are a sweep (-m), or a list (key=[a,b])"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _not_there(by: str, group: str, name: str) -> str:
    """A choice that no file is of, made by an entry or a config, as a word's own is refused before."""
    if group == "paper_at":
        paper, _, scale = name.partition("/")
        if paper not in papers():
            return f"paper={paper}: it has no papers/{paper}/tables.yaml (valid: paper, scales and tables)"
        return f"papers/{paper}/tables.yaml: scales has no {scale} (valid: {', '.join(SCALES)})"
    if group not in catalogue.GROUPS:
        return f"{by} chooses {group}/{name}, which is not there"
    paper = by.split("/")[1] if by.startswith("recipe/") else ""
    said = f"accepts of conf/paper/{paper}.yaml" if paper else "an entry's choose or a paper's defaults"
    return f"{said}: {unknown(group, name, catalogue.names(group))}"


def _unread(words: list[str]) -> str | None:
    """The first word that Hydra's grammar cannot read, and how it is written; None where it reads all."""
    parser = OverridesParser.create()
    for word in words:
        if word.startswith("-"):
            continue
        try:
            parser.parse_override(word)
        except HydraException:
            return (
                f"{word} cannot be read (valid: key=value; key=[a,b] for a list, key=a,b with -m for a "
                "sweep; values with other signs than . / - _ need two quotes: 'key=\"value\"')"
            )
    return None


def _unknown_key(key: str, words: list[str]) -> str:
    """An unknown key, and those that its parent has; at the top also where else there is one of its name."""
    words = [word for word in words if word not in MULTIRUN and not word.startswith(("+", f"{key}="))]
    words = [re.sub(r"=([^,(\[{]+),.*", r"=\1", word) for word in words if not word.startswith("hydra")]
    parent, _, leaf = key.rpartition(".")
    try:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(CONFIG_PATH, version_base="1.3"):
            node: Any = hydra.compose(
                "config", [*(word for word in words if "glob(" not in word), *catalogue.searched()]
            )
        places = _places(node, key) if not parent else []
        for part in filter(None, parent.split(".")):
            # of debug=none nothing is there at all
            node = node.get(part) or {}
        valid = [str(name) for name in node if name != "accepts" and not str(name).startswith("_")]
    except Exception:
        return f"unknown key {key}"
    if not valid and parent in catalogue.GROUPS:
        given = [name for name in catalogue.names(parent) if name not in ("none", "constant")]
        return (
            f"unknown key {key}: the {parent} that is chosen has no keys (valid: {parent}={'|'.join(given)})"
        )
    if places:
        return f"unknown key {key}; did you mean {' or '.join(places[:3])}? (valid: keys by their full names)"
    return unknown("key", leaf, valid).replace(f"key={leaf}", f"key {key}", 1)


def _places(node: DictConfig, name: str) -> list[str]:
    """The dotted keys of a config that end with a name, those of the fewest parts first."""
    found, here = [], [("", node)]
    while here:
        path, one = here.pop(0)
        for key in map(str, one):
            full = f"{path}{key}"
            if key == name:
                found.append(full)
            if not OmegaConf.is_missing(one, key) and OmegaConf.is_dict(one._get_node(key)):
                here.append((f"{full}.", one[key]))
    return found


def task(config: DictConfig) -> float | None:
    """One job: alone it keeps its error for `_launch`; in a sweep it leaves its status behind.

    It never raises an error through Hydra, which would print lines of its own about it. It returns the
    `objective` of a search.
    """
    folder = sweep.current()
    if folder is not None:
        return _job_of_sweep(config, folder)
    try:
        _show(_job(config))
    except Exception as error:
        _failure.append(error)
    return None


def _job_of_sweep(config: DictConfig, folder: Path) -> float | None:
    """Make one job of a sweep, which ends with who launched it on this machine."""
    launcher = sweep.launched_by(folder)
    if launcher is None or HydraConfig.get().runtime.choices["hydra/launcher"] not in LOCAL:
        return _made_for_sweep(config, folder)
    with job_of(launcher):
        return _made_for_sweep(config, folder)


def _made_for_sweep(config: DictConfig, folder: Path) -> float | None:
    """Make one job of a sweep; whatever becomes of it, the others go on."""
    started = time.monotonic()
    job = int(HydraConfig.get().job.num)
    status: dict[str, Any] = {"job": _label(), "overrides": _overrides()}
    sweep.leave_status(folder, job, status | sweep.RUNNING)
    value = None
    try:
        outcome = _job(config)
        state = "skipped" if outcome.skipped else "passed"
        status |= {"state": state, "result": str(outcome.path)}
        status |= {"since": outcome.since} if outcome.since else {}
        value, found = (
            objective_value(outcome.result["metrics"], config.objective),
            metric_text(outcome.result),
        )
        if config.objective is not None:
            # a search looks at its objective alone, and so does who follows it
            found = f"{config.objective} {number(value)}"
            status |= {"objective": value, "direction": _direction(), "metric": config.objective}
        status["text"] = "; ".join([*outcome.result.get("remarks", []), *outcome.since, found])
        print(f"[{_label()}] result: {outcome.path}", flush=True)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            raise KeyboardInterrupt from error
        if type(error).__name__ == "Paused":
            paused = {"state": "skipped", "text": str(error), "paused": vars(error)}
            sweep.leave_status(folder, job, status | paused | {"seconds": time.monotonic() - started})
            return None
        status |= {"state": "failed", "text": one_line(error)}
        print(f"error: [{_label()}] {one_line(error)}", file=sys.stderr, flush=True)
    sweep.leave_status(folder, job, status | {"seconds": time.monotonic() - started})
    return value


def _direction() -> str:
    """Whether a search wants its objective small or large; "minimize" where nothing searches."""
    direction = HydraConfig.get().sweeper.get("direction", "minimize")
    return str(getattr(direction, "name", direction))


def _job(config: DictConfig) -> Outcome:
    """Make the run; heavy imports wait until here, so that a wrong word is refused at once."""
    choices = dict(HydraConfig.get().runtime.choices)
    from_first_folder(config, Path(HydraConfig.get().runtime.cwd))
    own.opt_in(config["import"])
    terminal = sys.stderr.isatty() and multiprocessing.current_process().name == "MainProcess"
    request = Request(choices, _overrides(), _label(), terminal)
    outcome = finished(config, request)
    if outcome is not None:
        return outcome
    if terminal and "torch" not in sys.modules:
        print(f"[{request.label}] importing torch", file=sys.stderr)
    with _nothing_collected():
        from common.runs.runner import execute

    return execute(config, request)


def from_first_folder(config: DictConfig, first: Path) -> None:
    """Let folders be seen from where the command was called, also where Hydra has changed into another.

    Args:
        config: `data_dir`, `output_dir` and `results_dir` are changed where need be.
        first: the working folder of the command.
    """
    if first == Path.cwd():
        return
    for key in ("data_dir", "output_dir", "results_dir"):
        config[key] = str(first / Path(config[key]).expanduser())


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Let what is imported first stay out of all garbage collections.

    The collector would go through the million objects of torch and Lightning again and again, while they
    are made and afterwards: a fifth of the seconds that their import takes.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _overrides() -> list[str]:
    return [word for word in HydraConfig.get().overrides.task if not word.startswith("hydra")]


def _label() -> str:
    """A job of a sweep by the words that vary in it, a single run by its paper."""
    folder = sweep.current()
    words = sweep.varying(folder, _overrides()) if folder is not None else []
    return " ".join(words) or str(HydraConfig.get().runtime.choices["paper"])


def metric_text(result: dict[str, Any]) -> str:
    """The main numbers of a result on one line; an entry's own metrics first."""
    metrics = result["metrics"]
    wanted: list[str] = []
    for entry in result["entries"]:
        wanted += metric_keys(*entry.split(".", 2)).values()
    shown = dict.fromkeys([*wanted, *metrics])
    numbers = {k: metrics.get(k) for k in shown if not isinstance(metrics.get(k), list | dict)}
    return ", ".join(f"{k} {number(v)}" for k, v in list(numbers.items())[:6])


def _show(outcome: Outcome) -> None:
    """Print a run's metrics, beside what was reported, and where its result lies."""
    result = outcome.result
    if outcome.skipped:
        print(f"already done ({made_at(result)}{outcome.changed}): force=true runs it anew")
    for name, value in result["metrics"].items():
        if not isinstance(value, list | dict):
            print(f"  {name:<24} {number(value)}")
    for line in result.get("remarks", []):
        print(f"  {line}")
    for line in _concluded(result.get("conclusion", {})):
        print(line)
    for entry, reported in result["reported"].items():
        for line in reported_line(entry, reported):
            print(line)
    print(f"result: {outcome.path}")


def reported_line(entry: str, reported: dict[str, Any]) -> list[str]:
    """What the paper reports for an entry, and where that stands; no line where it reports nothing."""
    numbers = [f"{name} {number(v)}" for name, v in reported.items() if name != "source" and v is not None]
    source = SOURCES.get(reported.get("source", {}).get("kind", ""), "no source")
    return [f"  reported for {entry}: {', '.join(numbers)} ({source})"] if numbers else []


def _concluded(conclusion: dict[str, Any]) -> list[str]:
    """What a search over runs found: its trials from the best on, and the command that makes the best."""
    if "trials" not in conclusion:
        return []
    trials, metric = conclusion["trials"], conclusion["metric"]
    done = [trial for trial in trials if trial[metric] is not None]
    stopped = sum(trial["share"] < 1.0 for trial in done)
    lines = [
        f"  {len(trials)} trials, {len(trials) - len(done)} of them failed"
        + (f", {stopped} stopped early" if stopped else "")
    ]
    if "words" not in conclusion:
        return lines
    sign = -1 if conclusion["goal"] == "maximize" else 1
    for trial in sorted(done, key=lambda trial: (-trial["share"], sign * trial[metric]))[:LISTED]:
        words = " ".join(f"{key}={value}" for key, value in trial["settings"].items())
        part = "" if trial["share"] >= 1.0 else f"  (at {trial['share']:.0%} of its length)"
        lines.append(f"  {metric} {number(trial[metric]):<12} {words}{part}")
    found = conclusion["replicates"]
    if len(found) > 1:
        lines.append(f"best {metric} of each replicate: {', '.join(map(number, found))}{_spread(found)}")
    lines.append(f"best {metric}: {number(conclusion['value'])}; the run that has it:")
    lines.append(f"  python run.py {shlex.join(conclusion['words'])}")
    return lines


def _spread(found: list[float]) -> str:
    """Mean and standard deviation of what the replicates found, as the end of a line."""
    if any(value is None or not math.isfinite(value) for value in found):
        return ""
    return f" (mean {number(statistics.mean(found))}, standard deviation {number(statistics.stdev(found))})"


__all__ = ["hydra_speed", "keys", "main", "run_list", "task"]
