"""The run key: a name for a run that follows from what decides its result.

Importing this module registers the OmegaConf resolver `run_key`, which `conf/config.yaml` uses for
the run directory.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from common.runs.neutral import NEUTRAL, NEUTRAL_IN

# off by default: a run without them has the key that it had before there were any
OPTIONAL = ("stop", "clip", "ema", "start", "test_limit")
# the same of keys that some files of a group have got since: null is what was before
OPTIONAL_IN: dict[str, set[str]] = {"dataset": {"crop", "rungs", "unreadable", "warm_start"}}
# groups whose nodes may name other runs
STAGED = ("method", "model")
# the key of a config, at its top, that names the run whose network a training starts from
START = "start"
# the key of a method that holds another one
INNER = "inner"


def identity(config: DictConfig) -> dict[str, Any]:
    """The part of a config that decides the result, as plain data."""
    plain = {str(key): _plain(value) for key, value in config.items() if key not in NEUTRAL}
    plain = {key: value for key, value in plain.items() if value or key not in OPTIONAL}
    for group, keys in NEUTRAL_IN.items():
        plain[group] = {key: value for key, value in plain[group].items() if key not in keys}
    for group, keys in OPTIONAL_IN.items():
        settings = plain[group].items()
        plain[group] = {key: value for key, value in settings if value is not None or key not in keys}
    if isinstance(plain.get("method"), dict):
        plain["method"] = _stepped_once(plain["method"])
    named = [value for group in STAGED for value in _settings(plain.get(group, {}))]
    if any(_names_a_run(value) for value in [*named, plain.get(START)]):
        # the budget of the run that it names
        plain["scale"] = config.get("scale")
    return plain


def _stepped_once(method: dict[str, Any]) -> dict[str, Any]:
    """A method whose inner ones have no optimizers, which their files bring: the outermost steps all."""
    inner = method.get(INNER)
    if not isinstance(inner, dict):
        return method
    return {**method, INNER: _stepped_once({key: v for key, v in inner.items() if key != "optimizer"})}


def _settings(node: dict[str, Any]) -> Iterator[Any]:
    """The values of a node and of the methods within it."""
    for key, value in node.items():
        if key == INNER and isinstance(value, dict):
            yield from _settings(value)
        else:
            yield value


def _names_a_run(value: Any) -> bool:
    return isinstance(value, str) and "=" in value


def _plain(node: Any) -> Any:
    """Plain data; unresolved where a method names keys that the paper lacks, which the job will refuse."""
    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True)
    except InterpolationKeyError:
        return OmegaConf.to_container(node, resolve=False)


def run_key(config: DictConfig) -> str:
    """`<paper>/<12 hex digits>`: equal for configs whose runs give equal results.

    Whole floats count as integers, so `paper.passes=30` and `paper.passes=30.0` are one run.
    """
    return key_of_identity(identity(config))


def key_of_identity(deciding: dict[str, Any]) -> str:
    """The run key of what `identity` gives, as it stands in a result's `config`.

    The paper's name is that of its folder: `spider` of `papers.spider.module.SpiderModule`.
    """
    paper = str(deciding["paper"]["_target_"]).split(".")[1]
    text = json.dumps(_canonical(deciding), sort_keys=True)
    return f"{paper}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _canonical(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _canonical(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_canonical(value) for value in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node


OmegaConf.register_new_resolver("run_key", lambda *, _root_: run_key(_root_), replace=True)
