"""What there is to run: papers, data sets, models, methods and entries, read from `conf/` and `papers/`.

Before Hydra composes, `register` puts into its ConfigStore what follows from data rather than from a
file: the recipe of each data set that a paper accepts by kind, the paper's budgets by scale, and the
entries that the command line asks for (only those: Hydra copies the whole store at each composition).
"""

import fnmatch
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from common.base.errors import UserError
from common.tables.tables import ROOT, SCALES, Entry, load_tables, papers, runnable, unknown

CONF = ROOT / "conf"
GROUPS = ("paper", "dataset", "model", "method", "schedule", "scale", "trainer", "logger")


@cache
def names(group: str) -> list[str]:
    """The choices of a config group, `optimizer/yogi` where it has kinds."""
    return sorted(path.relative_to(CONF / group).with_suffix("").as_posix() for path in _files(group))


def _files(group: str) -> list[Path]:
    return list((CONF / group).rglob("*.yaml"))


@cache
def describe(group: str, name: str) -> str:
    """The first comment line of a config file that says what it is."""
    for line in (CONF / group / f"{name}.yaml").read_text().splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    return ""


@cache
def read(group: str, name: str) -> dict[str, Any]:
    """A config file as plain data (interpolations stay text)."""
    path = CONF / group / f"{name}.yaml"
    if not path.exists():
        raise UserError(unknown(group, name, names(group)))
    return yaml.safe_load(path.read_text())


def check_choices(words: Iterable[str]) -> None:
    """Refuse unknown choices of config groups, those too that a later word overrides: Hydra reads all.

    Args:
        words: of a command line.

    Raises:
        UserError: the choice, with the nearest names and the valid ones.
    """
    for word in words:
        place, _, value = word.lstrip("+").partition("=")
        group = place.partition("@")[0]
        if group not in GROUPS:
            continue
        valid = list(SCALES) if group == "scale" else names(group)
        for name in _chosen(word, value):
            if name.strip().strip("'\"") not in valid:
                raise UserError(unknown(place, name, valid))


def _chosen(word: str, value: str) -> list[str]:
    """The names that a word gives a group; none of a glob or of what cannot be parsed: Hydra sees to it."""
    if "(" not in value:
        return value.split(",")
    try:
        parsed = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return []
    if isinstance(parsed, ChoiceSweep):
        return [str(getattr(one, "text", one)) for one in parsed.list]
    # a range or an interval gives numbers
    return [value] if isinstance(parsed, RangeSweep | IntervalSweep) else []


def accepted_datasets(paper: str) -> list[str]:
    """The data sets that a paper accepts: by kind, or by a recipe of its own."""
    kinds = read("paper", paper)["accepts"]["datasets"]
    own = {path.stem for path in (CONF / "recipe" / paper).glob("*.yaml")}
    return [name for name in names("dataset") if read("dataset", name)["kind"] in kinds or name in own]


def refuse_dataset(paper: str, dataset: str) -> UserError:
    """The error for a data set that a paper does not take, with those that it takes."""
    kind = read("dataset", dataset)["kind"]
    valid = ", ".join(accepted_datasets(paper))
    return UserError(f"paper={paper} does not take dataset={dataset} (kind {kind}; valid: {valid})")


def refuse_method(paper: str, method: str, place: str = "method") -> UserError:
    """The error for a method of a kind that a paper does not take, with those that it takes."""
    kinds = read("paper", paper)["accepts"]["methods"]
    valid = ", ".join(name for name in names("method") if name.split("/")[0] in kinds)
    return UserError(f"paper={paper} does not take {place}={method} (valid: {valid})")


def all_entries() -> dict[str, Entry]:
    """Every entry of every paper by its name."""
    return {entry.name: entry for paper in papers() for entry in runnable(paper)}


def wanted_entries(words: list[str]) -> list[Entry]:
    """The entries that `entry=` on the command line names, each glob resolved.

    Raises:
        UserError: an unknown name, or a glob that matches nothing.
    """
    asked = [word.removeprefix("entry=") for word in words if word.startswith("entry=")]
    patterns = [part for text in asked for part in _parts(text) if part not in ("null", "")]
    if not patterns:
        return []
    known = all_entries()
    found: dict[str, Entry] = {}
    for pattern in patterns:
        found |= {name: known[name] for name in _matching(pattern, list(known))}
    return list(found.values())


def _parts(text: str) -> list[str]:
    """Split `a,b,glob([c*,d*])` into names and glob patterns (the latter as `glob:pattern`)."""
    parts: list[str] = []
    for match in re.finditer(r"glob\(\[?([^)\]]*)\]?(?:\s*,\s*exclude=[^)]*)?\)|[^,]+", text):
        inside = match.group(1)
        if inside is None:
            parts.append(match.group(0).strip().strip("'\""))
        else:
            parts += [f"glob:{piece.strip()}" for piece in inside.split(",") if "exclude" not in piece]
    return parts


def _matching(pattern: str, known: list[str]) -> list[str]:
    if not pattern.startswith("glob:"):
        if pattern not in known:
            raise UserError(unknown("entry", pattern, known))
        return [pattern]
    matched = fnmatch.filter(known, pattern.removeprefix("glob:"))
    if not matched:
        raise UserError(f"entry=glob({pattern[5:]}) matches no entry; make -s entries lists all {len(known)}")
    return matched


def register(words: list[str]) -> None:
    """Put recipes, budgets and the wanted entries into Hydra's ConfigStore.

    Args:
        words: the overrides of the command line.

    Raises:
        UserError: an unknown paper or entry.
    """
    wanted = wanted_entries(words)
    store = ConfigStore.instance()
    for group in ("recipe", "paper_at", "entry", "entry_at"):
        store.repo.pop(group, None)
    store.store(group="paper_at", name="none", package="_global_", node={})
    # a sweep over papers or entries first composes without any: these stand in then
    blanks = [("entry_at/None", scale) for scale in SCALES] + [("paper_at/None", scale) for scale in SCALES]
    for group, name in [*blanks, *(("recipe/None", name) for name in names("dataset"))]:
        store.store(group=group, name=name, package="_global_", node={})
    for paper in _wanted_papers(words) | {entry.paper for entry in wanted}:
        _register_paper(store, paper)
    for entry in wanted:
        _register_entry(store, entry)


def _wanted_papers(words: list[str]) -> set[str]:
    texts = [word.removeprefix("paper=") for word in words if word.startswith("paper=")]
    return {name for text in texts for name in re.findall(r"\w+", text) if name in papers()}


def _register_paper(store: ConfigStore, paper: str) -> None:
    accepts = read("paper", paper)["accepts"]["datasets"]
    for name in names("dataset"):
        if (CONF / "recipe" / paper / f"{name}.yaml").exists():
            continue
        # a set that the paper does not take composes all the same (with any model): the job refuses it,
        # and the others of its sweep go on
        model = accepts.get(read("dataset", name)["kind"], "mlp")
        node = {"defaults": [{"/model": model}]}
        store.store(group=f"recipe/{paper}", name=name, package="_global_", node=node)
    scales = {"paper": {}} | load_tables(paper)["scales"]
    for scale, values in scales.items():
        store.store(group=f"paper_at/{paper}", name=scale, package="_global_", node=nested(values))


def _register_entry(store: ConfigStore, entry: Entry) -> None:
    chosen = {"paper": entry.paper, "paper_at": "none"} | entry.choose
    overrides: list[Any] = [{f"override /{group}": choice} for group, choice in chosen.items()]
    node = {"defaults": ["_self_", *overrides], **nested(entry.values)}
    store.store(group="entry", name=entry.name, package="_global_", node=node)
    for scale in SCALES:
        values = nested(entry.budget[scale]) if entry.budget else {}
        store.store(group=f"entry_at/{entry.name}", name=scale, package="_global_", node=values)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Turn `{"paper.eps": 1}` into `{"paper": {"eps": 1}}`."""
    tree: dict[str, Any] = {}
    for dotted, value in values.items():
        *path, leaf = dotted.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree
