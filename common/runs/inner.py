"""Whether a method may have the one that `inner=` puts into it: said by the words of the command line."""

import inspect
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from common.base.errors import UserError
from common.base.method import TrainingMethod
from common.runs import catalogue
from common.runs.check import accepted, load_target
from common.runs.keys import INNER


def check_inner(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Refuse a method within one that takes none, and one that cannot be within another.

    Args:
        config: of a run.
        choices: of its config groups.

    Raises:
        UserError: the outermost such method, with those that are valid in its place.
    """
    word, place, node = INNER, "method", config.method
    while OmegaConf.is_dict(node.get(INNER)):
        outer = choices.get(_group(place), str(node["_target_"]))
        place, within = f"{place}.{INNER}", node[INNER]
        chosen = choices.get(_group(place), str(within.get("_target_")))
        if not _takes_inner(str(node["_target_"])):
            valid = ", ".join(_takers(config)) or "no method of this paper does"
            raise UserError(f"{word}={chosen}: {outer} takes no inner method (valid: {valid})")
        if _group(place) in choices and chosen.split("/")[0] not in _kinds(config):
            valid = ", ".join(name for name in _methods(config) if name.split("/")[0] in _kinds(config))
            raise UserError(f"{word}={chosen}: cannot be within {outer} (valid: {valid})")
        word, node = f"{INNER}.{word}", within


def _group(place: str) -> str:
    """Hydra's name of the choice at a place of the config: `method@method.inner`, or `method` itself."""
    return place if place == "method" else f"method@{place}"


def _takes_inner(target: str) -> bool:
    found = load_target(target, "method")
    helps = inspect.isclass(found) and issubclass(found, TrainingMethod)
    return helps and INNER in accepted(found)


def _methods(config: DictConfig) -> list[str]:
    """Those that the paper takes."""
    return [name for name in catalogue.names("method") if name.split("/")[0] in config.accepts.methods]


def _takers(config: DictConfig) -> list[str]:
    """The paper's methods that take an inner one; of those whose class the user names, nothing is known."""
    targets = {name: str(catalogue.read("method", name)["_target_"]) for name in _methods(config)}
    return [name for name, target in targets.items() if target != "???" and _takes_inner(target)]


def _kinds(config: DictConfig) -> set[str]:
    """The kinds of methods that may be within others."""
    return {name.split("/")[0] for name in _takers(config)}
