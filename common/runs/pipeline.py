"""The runs that a run needs first, made or found by their override strings."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from common.base.errors import UserError
from common.base.module import PaperModule
from common.base.stages import Stage
from common.base.weights import read_weights
from common.runs.code import code_hash
from common.runs.inheritance import (
    CHECKPOINT,
    is_path,
    result_beside,
    stage_keys,
    stage_run,
    stage_words,
    starts_from_others,
)
from common.runs.keys import START, identity, run_key
from common.runs.request import Outcome, Request
from common.runs.result import read_result

Execute = Callable[[DictConfig, Request], Outcome]
Build = Callable[[DictConfig, Request], PaperModule]
Network = Callable[[DictConfig], nn.Module]

_under_way: list[str] = []


@contextmanager
def under_way(key: str) -> Iterator[None]:
    """Note that a run is being made, so that it cannot come to need itself.

    Raises:
        UserError: it does.
    """
    if key in _under_way:
        raise UserError(f"run {key} needs itself first: name another teacher")
    _under_way.append(key)
    try:
        yield
    finally:
        _under_way.remove(key)


@dataclass(frozen=True)
class Made:
    """A stage, and what the result of the run that needs it is to say about it."""

    stage: Stage
    about: dict[str, Any]


# by group and key (`teacher`, `inner.teacher`)
Stages = dict[str, dict[str, Made]]


def make_stages(
    config: DictConfig, request: Request, execute: Execute, build: Build, network: Network
) -> Stages:
    """Make or find what a run needs first.

    Args:
        config, request: of the run.
        execute: makes or finds a run.
        build: gives the module of a run that is done, with its first weights.
        network: gives the network of a config, with its first weights.

    Raises:
        UserError: words that do not compose, a file that is no checkpoint, whatever the run fails with.
    """
    stages: Stages = {}
    for key, group in stage_keys(config).items():
        words = stage_words(config, group, key)
        if words is None:
            continue
        try:
            if words == config.get(START) and _is_weights(words):
                made = _from_weights(words, network(config), request)
            else:
                made = _make(words, key, config, request, execute, build)
                if key == START and starts_from_others(config):
                    _start(model := network(config), made.stage.model.state_dict(), request)
                    stage = Stage(words=words, key=made.stage.key, metrics=made.stage.metrics, model=model)
                    made = Made(stage, made.about)
            stages.setdefault(group, {})[key] = made
        except UserError as error:
            raise UserError(f"{key}={words}: {error}") from error
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(f"{key}={words}: {str(error).splitlines()[0]}") from error
    return stages


def described(stages: Stages) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a result says about its stages, and their test metrics under the names of their keys."""
    made = {key: one for group in stages.values() for key, one in group.items()}
    about = {key: one.about for key, one in made.items()}
    metrics = {
        f"{key.replace('.', '_')}_{name}": value
        for key, one in made.items()
        for name, value in one.stage.metrics.items()
        if name.startswith("test_") and isinstance(value, int | float)
    }
    return about, metrics


def _is_weights(text: str) -> bool:
    """Whether what a run starts from is a file of weights that no result says more about."""
    return is_path(text) and read_result(Path(text).parent / "result.json") is None


def _start(network: nn.Module, weights: dict[str, Any], request: Request) -> None:
    """Let a network take over weights of another one, and say what starts anew.

    Raises:
        UserError: they do not fit.
    """
    anew = network.start_from(weights)  # type: ignore[operator]
    if anew is not None:
        print(f"[{request.label}] start: {anew}, start anew", file=sys.stderr)


def _from_weights(text: str, network: nn.Module, request: Request) -> Made:
    """The run's own network with the weights of a file.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    # takes its time to import, and few runs start from a file
    from common.pruning.pruned import is_pruned, restored

    path = Path(text)
    found = read_weights(path)
    if hasattr(network, "start_from"):
        _start(network, _bare(found), request)
    elif is_pruned(found):
        network = restored(found, path, network).train()
    else:
        _fill(network, _bare(found), path)
    return Made(
        Stage(words=text, key="", metrics={}, model=network), {"words": text, "key": "", "metrics": {}}
    )


def _make(text: str, name: str, parent: DictConfig, request: Request, execute: Execute, build: Build) -> Made:
    config, asked = stage_run(text, name, parent, request)
    if is_path(text):
        path = Path(text)
        key = f"{path.parent.parent.name}/{path.parent.name}"
        return _loaded(text, key, path, result_beside(path), config, asked, build)
    files = [word.split("=", 1)[1] for word in shlex.split(text) if word.startswith(f"{CHECKPOINT}=")]
    if files:
        return _loaded(text, "", Path(files[-1]), {}, config, asked, build)
    outcome = execute(config, asked)
    checkpoint = outcome.path.parent / "last.ckpt"
    if not checkpoint.exists():
        config.force = True
        outcome = execute(config, asked)
    if outcome.since:
        again = shlex.join(["python", "run.py", *asked.overrides, "force=true"])
        print(f"[{asked.label}] already done{outcome.changed}: {again} makes it anew", file=sys.stderr)
    return _loaded(text, run_key(config), checkpoint, outcome.result, config, asked, build)


def _loaded(
    text: str,
    key: str,
    path: Path,
    result: dict[str, Any],
    config: DictConfig,
    request: Request,
    build: Build,
) -> Made:
    module = build(config, request)
    _load(module, path)
    metrics = result.get("metrics", {})
    choices = {group: request.choices[group] for group in ("dataset", "model", "method", "schedule")}
    settings = identity(config)
    paper = run_key(config).split("/")[0]
    about = {"words": text, "key": key, "metrics": metrics, "paper": paper, "choices": choices}
    about |= {"config": settings, "code": result.get("code", code_hash(paper, choices, settings))}
    about |= {key: result[key] for key in ("scale", "settings", "codes", "data") if key in result}
    folder = path.parent if key else None
    stage = Stage(words=text, key=key, metrics=metrics, model=module.handed_on(), folder=folder)
    return Made(stage, about)


def _load(module: PaperModule, path: Path) -> None:
    """Load weights, of a run of ours or of the bare network, into a module.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    found = read_weights(path)
    if "pytorch-lightning_version" in found:
        module.reshape(found["search_state"])
        _fill(module, found["state_dict"], path)
    else:
        _fill(module.network(), _bare(found), path)


def _fill(target: nn.Module, state: dict[str, Any], path: Path) -> None:
    own = target.state_dict()
    # what is no tensor is a module's own to judge
    wrong = [name for name in own if name not in state or _shape(state[name]) != _shape(own[name])]
    if wrong:
        raise UserError(
            f"checkpoint {path} is of another network: {wrong[0]} is missing or has another shape"
        )
    target.load_state_dict({name: state[name] for name in own})


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def _bare(found: dict[str, Any]) -> dict[str, Any]:
    """A state dict, which may stand under `state_dict` and have the prefixes `module.` and `model.`."""
    state = found.get("state_dict", found)
    return {name.removeprefix("module.").removeprefix("model."): value for name, value in state.items()}
