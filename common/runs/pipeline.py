"""The runs that a run needs first, made or found by their override strings."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from common.runs.catalogue import check_choices
from common.runs.check import load_target
from common.runs.code import code_hash
from common.runs.compose import compose
from common.runs.errors import UserError
from common.runs.evidence import key_of
from common.runs.keys import STAGED, identity, run_key
from common.runs.module import PaperModule
from common.runs.request import Outcome, Request
from common.runs.result import read_result
from common.runs.stages import Stage

Execute = Callable[[DictConfig, Request], Outcome]
Build = Callable[[DictConfig, Request], PaperModule]
# the words of a run that the runs it needs get too
INHERITED = {"output_dir", "data_dir", "logger", "checkpoint_every", "record", "results_dir", "trainer"}
CHECKPOINT = "checkpoint"

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


# by group and key
Stages = dict[str, dict[str, Made]]


def stage_keys(config: DictConfig) -> dict[str, str]:
    """The keys of a config's method and model that may name other runs, each with its group."""
    found: dict[str, str] = {}
    for group in STAGED:
        target = load_target(config[group]["_target_"], group)
        found |= dict.fromkeys(getattr(target, "STAGES", ()), group)
    return found


def make_stages(config: DictConfig, request: Request, execute: Execute, build: Build) -> Stages:
    """Make or find what a run needs first.

    Args:
        config, request: of the run.
        execute: makes or finds a run.
        build: gives the module of a run that is done, with its first weights.

    Raises:
        UserError: words that do not compose, a file that is no checkpoint, whatever the run fails with.
    """
    stages: Stages = {}
    for key, group in stage_keys(config).items():
        words = config[group][key]
        if words is None:
            continue
        try:
            stages.setdefault(group, {})[key] = _make(words, key, config, request, execute, build)
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
        f"{key}_{name}": value
        for key, one in made.items()
        for name, value in one.stage.metrics.items()
        if name.startswith("test_") and isinstance(value, int | float)
    }
    return about, metrics


def _make(text: str, name: str, parent: DictConfig, request: Request, execute: Execute, build: Build) -> Made:
    if "=" not in text or Path(text).is_file():
        return _from_run_folder(Path(text), text, build)
    words = [word for word in shlex.split(text) if not word.startswith(f"{CHECKPOINT}=")]
    files = [word.split("=", 1)[1] for word in shlex.split(text) if word.startswith(f"{CHECKPOINT}=")]
    config, asked = _composed(words, name, parent, request)
    if files:
        return _loaded(text, "", Path(files[-1]), {}, config, asked, build)
    outcome = execute(config, asked)
    checkpoint = outcome.path.parent / "last.ckpt"
    if not checkpoint.exists():
        config.force = True
        outcome = execute(config, asked)
    return _loaded(text, run_key(config), checkpoint, outcome.result, config, asked, build)


def _from_run_folder(path: Path, text: str, build: Build) -> Made:
    """A checkpoint that lies beside the result of its run, which says what network it is of."""
    if not path.is_file():
        raise UserError("no such file, and no override string")
    result = read_result(path.parent / "result.json")
    if result is None:
        raise UserError(
            f"no result.json beside it says what network it is (valid: 'model=... {CHECKPOINT}={path}')"
        )
    with composing():
        config, asked = compose(list(result["overrides"]))
    return _loaded(text, f"{path.parent.parent.name}/{path.parent.name}", path, result, config, asked, build)


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
    return Made(Stage(words=text, key=key, metrics=metrics, model=module.network()), about)


def _load(module: PaperModule, path: Path) -> None:
    """Load weights, of a run of ours or of the bare network, into a module.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__})") from error
    ours = "pytorch-lightning_version" in found
    target: nn.Module = module if ours else module.network()
    state = found["state_dict"] if ours else _bare(found)
    own = target.state_dict()
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        raise UserError(
            f"checkpoint {path} is of another network: {wrong[0]} is missing or has another shape"
        )
    target.load_state_dict({name: state[name] for name in own})


def _bare(found: dict[str, Any]) -> dict[str, Any]:
    state = found.get("state_dict", found)
    return {name.removeprefix("module.").removeprefix("model."): value for name, value in state.items()}


def _composed(
    words: list[str], name: str, parent: DictConfig, request: Request
) -> tuple[DictConfig, Request]:
    """The config of a run that another needs, with what it inherits as words of its own."""
    check_choices(words)
    own = {key_of(word) for word in words}
    inherited = [word for word in request.overrides if key_of(word).split(".")[0] in INHERITED]
    words = [word for word in inherited if key_of(word) not in own] + words
    if "entry" not in own:
        words += [f"{group}={request.choices[group]}" for group in ("paper", "dataset") if group not in own]
    if "scale" not in own:
        words.append(f"scale={request.choices['scale']}")
    with composing():
        config, found = compose(words)
        changes = _dataset_words(parent, config, own) if _same_data(found, request) else []
        # a teacher has no teacher but the one that it names
        if name != "teacher" and config.teacher is None and "teacher" in stage_keys(config):
            changes.append(f"teacher={_quoted(parent.teacher)}")
        if changes:
            config, found = compose([*words, *changes])
    label = f"{request.label}: {name}"
    return config, Request(found.choices, found.overrides, label, request.terminal)


def _same_data(found: Request, request: Request) -> bool:
    return found.choices["dataset"] == request.choices["dataset"]


def _dataset_words(parent: DictConfig, config: DictConfig, own: set[str]) -> list[str]:
    """The settings of the parent's data set that a stage's own words leave open and that differ."""
    wanted: Any = OmegaConf.to_container(parent.dataset, resolve=False)
    there: Any = OmegaConf.to_container(config.dataset, resolve=False)
    return [
        f"dataset.{key}={_quoted(value)}"
        for key, value in wanted.items()
        if there.get(key) != value and f"dataset.{key}" not in own
    ]


def _quoted(value: Any) -> str:
    """A value as Hydra's grammar reads it back."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./\-]+|\$\{[\w.]+\}", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return value if isinstance(value, str) else json.dumps(value)


@contextmanager
def composing() -> Iterator[None]:
    """Leave Hydra as it was: other jobs of a sweep are composed after this one."""
    store, hydra, current = ConfigStore.instance(), GlobalHydra.instance(), HydraConfig.instance()
    kept = dict(store.repo), hydra.hydra, current.cfg
    try:
        yield
    finally:
        store.repo, hydra.hydra, current.cfg = kept
