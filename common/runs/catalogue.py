"""What there is to run: papers, data sets, models, methods and entries, read from `conf/` and `papers/`.

Before Hydra composes, `register` puts into its ConfigStore what follows from data rather than from a
file: the recipe of each data set that a paper accepts by kind, the paper's budgets by scale, and the
entries that the command line asks for (only those: Hydra copies the whole store at each composition).
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.errors import UserError
from common.base.files import read_yaml
from common.tables.tables import ROOT, SCALES, Entry, in_roots, load_tables, papers, roots, runnable, unknown

if TYPE_CHECKING:
    from hydra.core.config_store import ConfigStore

CONF = ROOT / "conf"
# the config groups of a run, papers first
GROUPS = ("paper", "dataset", "model", "method", "schedule", "stop", "scale", "trainer", "logger", "debug")


@cache
def names(group: str) -> list[str]:
    """The choices of a config group, `optimizer/yogi` where it has kinds."""
    folders = [root / "conf" / group for root in roots()]
    return sorted(
        {path.relative_to(at).with_suffix("").as_posix() for at in folders for path in at.rglob("*.yaml")}
    )


def searched() -> list[str]:
    """The word by which Hydra finds the config files of the current folder, if it has any beside ours."""
    own = Path.cwd() / "conf"
    return [f"hydra.searchpath=['file://{own}']"] if own.is_dir() and own.resolve() != CONF else []


def _file(group: str, name: str) -> Path:
    return in_roots(f"conf/{group}/{name}.yaml")


@cache
def describe(group: str, name: str) -> str:
    """The first comment line of a config file that says what it is."""
    for line in _file(group, name).read_text().splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    return ""


@cache
def read(group: str, name: str) -> dict[str, Any]:
    """A config file as plain data (interpolations stay text)."""
    path = _file(group, name)
    if not path.exists():
        raise UserError(unknown(group, name, names(group)))
    found: dict[str, Any] = read_yaml(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: valid: keys with values, as in {CONF / 'paper' / 'yogi.yaml'}")
    if group == "paper" and not _accepts(found.get("accepts")):
        raise UserError(
            f"{path}: accepts must say which methods and data sets the paper takes (valid: accepts: "
            "{methods: [optimizer], datasets: {image_classification: mlp}})"
        )
    return found


def _accepts(said: Any) -> bool:
    """Whether a paper says what it takes: a list of kinds of methods, and a model for each kind of data."""
    kinds = said if isinstance(said, dict) else {}
    return isinstance(kinds.get("methods"), list) and isinstance(kinds.get("datasets"), dict)


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
    # a command line without functions needs no grammar, and so no Hydra before it is refused
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
    from hydra.errors import HydraException

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
    own = {path.stem for root in roots() for path in root.glob(f"conf/recipe/{paper}/*.yaml")}
    return [name for name in names("dataset") if read("dataset", name)["kind"] in kinds or name in own]


def check_accepted(paper: str, choices: Mapping[str, str], kinds: Iterable[str]) -> None:
    """Refuse a data set or a method that a paper does not take.

    Args:
        paper: its name.
        choices: of the config groups.
        kinds: of methods that it takes.

    Raises:
        UserError: see above, with those that it takes.
    """
    dataset, method = choices["dataset"], choices["method"]
    if dataset not in accepted_datasets(paper):
        kind = read("dataset", dataset)["kind"]
        valid = ", ".join(accepted_datasets(paper))
        raise UserError(f"paper={paper} does not take dataset={dataset} (kind {kind}; valid: {valid})")
    if method.split("/")[0] not in kinds:
        valid = ", ".join(name for name in names("method") if name.split("/")[0] in kinds)
        raise UserError(f"paper={paper} does not take method={method} (valid: {valid})")


def all_entries() -> dict[str, Entry]:
    """Every entry of every paper by its name."""
    return {entry.name: entry for paper in papers() for entry in runnable(paper)}


def find_entry(name: str) -> Entry:
    """An entry by its name; only the tables of its paper are read.

    Raises:
        UserError: there is none of this name.
    """
    paper = name.split(".")[0]
    found = {entry.name: entry for entry in runnable(paper)} if paper in papers() else all_entries()
    if name not in found:
        table = f"{name.rstrip('.*')}."
        if any(entry.startswith(table) for entry in found):
            raise UserError(
                f"entry={name} names several rows (valid: all of them by -m 'entry=glob({table}*)', or one, "
                f"as entry={next(entry for entry in found if entry.startswith(table))})"
            )
        raise UserError(unknown("entry", name, list(found)))
    return found[name]


def wanted_entries(words: list[str]) -> list[Entry]:
    """The entries that `entry=` on the command line names, each glob resolved.

    Raises:
        UserError: an unknown name, or a glob that matches nothing.
    """
    asked = [word.removeprefix("entry=") for word in words if word.startswith("entry=")]
    patterns = [part for text in asked for part in _parts(text) if part not in ("null", "")]
    if not patterns:
        return []
    found = [entry for pattern in patterns for entry in _matching(pattern)]
    return list({entry.name: entry for entry in found}.values())


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


def _matching(pattern: str) -> list[Entry]:
    if not pattern.startswith("glob:"):
        return [find_entry(pattern)]
    known = all_entries()
    matched = fnmatch.filter(known, pattern.removeprefix("glob:"))
    if not matched:
        raise UserError(f"entry=glob({pattern[5:]}) matches no entry; make -s entries lists all {len(known)}")
    return [known[name] for name in matched]


def register(words: list[str]) -> None:
    """Put recipes, budgets and entries, those that the words may choose, into Hydra's ConfigStore.

    Args:
        words: the overrides of the command line.

    Raises:
        UserError: an unknown paper or entry.
    """
    from hydra.core.config_store import ConfigStore

    wanted = wanted_entries(words)
    store = ConfigStore.instance()
    for group in ("recipe", "paper_at", "entry", "entry_at"):
        store.repo.pop(group, None)
    store.store(group="paper_at", name="none", package="_global_", node={})
    # a sweep over papers or entries first composes without any: these stand in then
    blanks = [("entry_at/None", scale) for scale in SCALES] + [("paper_at/None", scale) for scale in SCALES]
    datasets = _wanted_datasets(words, wanted)
    for group, name in [*blanks, *(("recipe/None", name) for name in datasets)]:
        store.store(group=group, name=name, package="_global_", node={})
    for paper in _wanted_papers(words, wanted):
        _register_paper(store, paper, datasets)
    for entry in wanted:
        _register_entry(store, entry)


def _wanted_papers(words: list[str], wanted: list[Entry]) -> set[str]:
    texts = [word.removeprefix("paper=") for word in words if word.startswith("paper=")]
    named = {name for text in texts for name in re.findall(r"\w+", text) if name in papers()}
    return named | {entry.paper for entry in wanted}


def _wanted_datasets(words: list[str], wanted: list[Entry]) -> list[str]:
    """The data sets that a command line may choose: those of its words and entries, and the defaults."""
    texts = [word.split("=", 1)[1] for word in words if word.lstrip("+").startswith("dataset=")]
    if any("(" in text for text in texts):
        return names("dataset")
    files = [
        CONF / "config.yaml",
        *(_file("paper", paper) for paper in _wanted_papers(words, wanted)),
    ]
    chosen = {_default_dataset(path) for path in files} | {entry.choose.get("dataset") for entry in wanted}
    chosen |= {name for text in texts for name in re.findall(r"[^,\s'\"]+", text)}
    return [name for name in names("dataset") if name in chosen]


@cache
def _default_dataset(path: Path) -> str | None:
    """The data set that the defaults of a config file choose, if they choose one."""
    for item in read_yaml(path).get("defaults", []):
        for key, choice in item.items() if isinstance(item, dict) else ():
            if key in ("dataset", "override /dataset"):
                return str(choice)
    return None


def _register_paper(store: "ConfigStore", paper: str, datasets: list[str]) -> None:
    accepts = read("paper", paper)["accepts"]["datasets"]
    for name in datasets:
        if _file(f"recipe/{paper}", name).exists():
            continue
        # a set that the paper does not take composes all the same (with any model): the job refuses it,
        # and the others of its sweep go on
        model = accepts.get(read("dataset", name)["kind"], "mlp")
        node = {"defaults": [{"/model": model}]}
        store.store(group=f"recipe/{paper}", name=name, package="_global_", node=node)
    scales = {"paper": {}} | load_tables(paper).get("scales", {})
    for scale, values in scales.items():
        store.store(group=f"paper_at/{paper}", name=scale, package="_global_", node=nested(values))


def _register_entry(store: "ConfigStore", entry: Entry) -> None:
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
