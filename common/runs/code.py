"""By which code and settings a result was made, and whether those have changed since."""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from common.base.files import read_yaml
from common.base.kinds import TASKS
from common.runs import own as own_modules
from common.runs.reach import Project
from common.tables.tables import ROOT, SCALES, in_roots, load_tables, papers, runnable

SCALE = " scale="


def code_hash(
    paper: str, choices: dict[str, str], config: dict[str, Any], places: tuple[Path, ...] = ()
) -> str:
    """A hash over what decides the result of a run beside its words.

    That is the definitions that the targets of its config and the tasks of its data's kind reach
    (`common.runs.reach`), and the values of the config files of its paper, of the paper's recipe for its data
    set and of its choices. The machinery
    that starts runs and writes their results is no part of it, as none of them reaches it.

    Args:
        paper: its name.
        choices: the choice of each config group, as `{"dataset": "digits"}`.
        config: the resolved config, as in `result.json`.
        places: folders where modules of the user's own lie that this process has not imported.
    """
    with own_modules.looking_in(places):
        project = _project(ROOT, (Path.cwd(), *places))
        targets = {*_targets(config), *filter(project.module, _tasks(config))}
        digest = hashlib.sha256(project.digest(sorted(targets)).encode())
    own = frozenset(choices)
    files = {"paper": paper, f"recipe/{paper}": str(choices.get("dataset")), **choices}
    for group, choice in sorted(files.items()):
        # a recipe is no choice, and may be absent
        said = _values_hash(ROOT / "conf", group, choice, own | {"paper", "recipe"})
        digest.update(f"{group.split('/')[0]}={choice}{said}".encode())
    return digest.hexdigest()[:12]


def served_settings(result: dict[str, Any]) -> dict[str, str]:
    """By the words and the scale that a result served (`settings_name`): the hash of what the tables set.

    Results of older versions name no scale there: theirs is the result's own.
    """
    found = result.get("settings", {})
    return {
        name if SCALE in name else settings_name(name, result["scale"]): said for name, said in found.items()
    }


def settings_name(asked_for: str, scale: str) -> str:
    """How a result names what it served; two scales whose budgets are alike are one run, and two names."""
    return f"{asked_for}{SCALE}{scale}"


def settings_hash(asked_for: str, scale: str) -> str:
    """A hash over what `tables.yaml` sets for words at a scale; nothing where it knows them no more.

    Args:
        asked_for: an entry's name; or `paper=NAME`, for the budgets of a paper without an entry.
    """
    paper = asked_for.removeprefix("paper=").split(".")[0]
    return _settings(paper).get((asked_for, scale), "")


@cache
def _settings(paper: str) -> dict[tuple[str, str], str]:
    if paper not in papers():
        return {}
    scales = load_tables(paper).get("scales", {})
    found = {(f"paper={paper}", scale): _hash_of(scales.get(scale, {})) for scale in SCALES}
    for row in runnable(paper):
        for scale in SCALES:
            found[row.name, scale] = _hash_of([row.choose, row.values, row.budget.get(scale, {})])
    return found


def _hash_of(node: Any) -> str:
    return hashlib.sha256(json.dumps(node, sort_keys=True, default=str).encode()).hexdigest()[:12]


@cache
def _project(root: Path, folders: tuple[Path, ...]) -> Project:
    """The project, and the user's own modules in the current folder and others."""
    return Project(root)


@cache
def _values_hash(conf: Path, group: str, choice: str, chosen: frozenset[str]) -> str:
    """Of what a config file says, without its comments, and of the files that its defaults name.

    Args:
        conf: the folder of the groups.
        chosen: groups whose choice was made elsewhere, whatever a default says.
    """
    path = conf / group / f"{choice}.yaml"
    path = path if path.exists() else in_roots(f"conf/{group}/{choice}.yaml")
    if not path.exists():
        return ""
    node = read_yaml(path) or {}
    said = [_hash_of(node)]
    for item in node.get("defaults", []):
        for key, name in item.items() if isinstance(item, dict) else ():
            other = key.removeprefix("override ").strip().split("@")[0].removeprefix("/")
            if other not in chosen:
                said.append(_values_hash(conf, other, str(name), chosen))
    return _hash_of(said)


def _targets(node: Any) -> Iterator[str]:
    """What a config names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _tasks(config: dict[str, Any]) -> Iterator[str]:
    """The modules that tasks would have which the run's data can serve, see `common.training.task_of`."""
    kind = config.get("dataset", {}).get("kind")
    for task in TASKS.get(kind, ()):
        yield f"common.training.{task}"


def stale(result: dict[str, Any], places: tuple[Path, ...] = ()) -> bool:
    """Whether the code or the settings that made a result, or a run that it needed, have changed since.

    A run that went on with other code than it began with was made by no code that there is. Modules of the
    user's own are read, and not imported, where the result's `import=` says, or that of the run whose stage
    it is (`places`).
    """
    places = own_modules.places_of(result.get("overrides", [])) or places
    if len(result.get("codes", [])) > 1:
        return True
    if any(found != settings_hash(*name.split(SCALE)) for name, found in served_settings(result).items()):
        return True
    changed = result["code"] != code_hash(result["paper"], result["choices"], result["config"], places)
    return changed or any(stale(stage, places) for stage in result.get("stages", {}).values())


def code_changes(result: dict[str, Any]) -> list[str]:
    """What has changed in the code since a result was made, in words; nothing where it is as it was."""
    if len(result.get("codes", [])) > 1:
        return ["two codes made it, one before it was stopped and one after"]
    return ["the code has changed since"] if stale(result) else []
