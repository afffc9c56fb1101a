"""Check the rows of every `tables.yaml`.

`check_row` needs no Hydra: the groups exist and every key fits what it sets. `main` composes each entry
at each scale, holds it against the code that it names, and builds its model without memory.
"""

import sys
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from common.base.errors import UserError
from common.models.weightless import weightless
from common.runs.catalogue import read, runnable, wanted_entries
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.inheritance import stage_keys, stage_words
from common.tables.tables import SCALES, Entry, papers

TOP_LEVEL = {"seed", "teacher", "start", "clip", "ema"}


def check_row(entry: Entry) -> None:
    """The row's groups exist, and each of its keys is one that the chosen file sets.

    Raises:
        UserError: names the entry and the key.
    """
    chosen: dict[str, str] = {"paper": entry.paper, **entry.choose}
    for key in _keys(entry):
        group, _, rest = key.partition(".")
        if not rest and key in TOP_LEVEL:
            continue
        if group not in chosen:
            raise UserError(f"{entry.name}: {key} is set, but the row chooses no {group}")
        if not _has(_file(group, chosen[group], chosen), rest):
            raise UserError(f"{entry.name}: {key} is not a key of conf/{group}/{chosen[group]}.yaml")
    for group, name in entry.choose.items():
        read(group, name)


def _file(group: str, name: str, chosen: dict[str, str]) -> dict[str, Any]:
    """A file's keys, and those that its defaults put into it, as `/method/optimizer@optimizer: sgd` does."""
    content = read(group, name)
    content = content.get(group, content)
    parts: dict[str, Any] = {}
    for default in content.get("defaults", []):
        for path, choice in default.items() if isinstance(default, dict) else ():
            part, _, place = str(path).removeprefix("/").partition("@")
            if place == "_here_":
                parts = _joined(parts, _file(part, str(choice), chosen))
            elif place:
                # a network within a network (model@backbone) is not the one that the row chooses
                name = str(choice) if part == group else chosen.get(part, str(choice))
                parts = _joined(parts, {place: _file(part, name, chosen)})
    return _joined(parts, content)


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, nodes within nodes too; where both have a value it is the second's."""
    both = {key: first[key] for key in first.keys() & second.keys() if isinstance(first[key], dict)}
    nodes = {k: _joined(node, second[k]) for k, node in both.items() if isinstance(second[k], dict)}
    return first | second | nodes


def _keys(entry: Entry) -> set[str]:
    return set(entry.values).union(*(entry.budget.get(scale, {}) for scale in SCALES))


def _has(node: Any, dotted: str) -> bool:
    for part in dotted.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def compose_and_build(words: list[str]) -> tuple[DictConfig, Any]:
    """Compose a command line, check it and what it learns from, and build its model on the meta device.

    Returns:
        The config and the model.
    """
    config, _ = compose(words)
    check_config(config)
    stages = stage_keys(config)
    for key, group in stages.items():
        wanted_entries(str(stage_words(config, group, key)).split())
    data = instantiate(config.dataset, _convert_="all")
    # what a model is built upon is not there yet
    waiting = "model" in {
        group for key, group in stages.items() if stage_words(config, group, key) is not None
    }
    if waiting:
        return config, torch.nn.Identity()
    with weightless():
        return config, instantiate(config.model, shape=data.shape, classes=data.classes, _convert_="all")


def main() -> int:
    """Check every entry at every scale; print the faults."""
    faults = checked = 0
    for paper in papers():
        for entry in runnable(paper):
            for scale in SCALES:
                try:
                    check_row(entry)
                    compose_and_build([f"entry={entry.name}", f"scale={scale}"])
                except Exception as error:
                    faults += 1
                    print(f"{entry.name} scale={scale}: {error}", file=sys.stderr)
                checked += 1
    print(f"{checked} entries composed and built, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
