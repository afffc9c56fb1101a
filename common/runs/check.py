"""Check a composed config against the code that it names, before anything is built.

Every node with a `_target_` is held against the signature and the type hints of its target, so an
unknown key, a wrong type, or a key left over from another method is refused by name.
"""

import difflib
import inspect
import json
import math
import pkgutil
import re
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from common.base.command import needs_package
from common.base.errors import UserError
from common.base.files import names_beside
from common.data.shared.text_file import from_here
from common.runs.own import imported, opted_in, where
from common.tables.tables import unknown

ALLOWED = ("papers.", "common.", "torch.optim.", "pytorch_lightning.")
SPECIAL = {"_target_", "_partial_", "_recursive_", "_convert_"}

# groups of which a run builds something
BUILT = ("dataset", "model", "method", "schedule", "paper", "trainer", "logger")
# groups that a run may lack
OPTIONAL = ("stop", "debug")
# what a paper takes, and settings that its methods refer to
REFERRED_TO = ("accepts", "settings")
# arguments of data sets that no config gives, see `common.runs.evaluate`
HANDED = ("origin",)
# keys of the top level, which belong to no `_target_`
TOP_LEVEL = {
    "scale": str,
    "seed": int,
    "force": bool,
    "data_dir": str,
    "output_dir": str,
    "checkpoint_every": float,
    "record": bool,
    "results_dir": str,
    "objective": str | None,
    "pause": float | None,
    "teacher": str | None,
    "start": str | None,
    "gpu_precision": str,
    "clip": float | None,
    "ema": float | None,
    "test_limit": int | None,
    "import": str | None,
}


# what Lightning's Trainer is told beside what a run itself sets; its other arguments have no effect here, or
# another one than their names say
TRAINER = ("accelerator", "devices", "strategy", "precision", "deterministic", "benchmark", "detect_anomaly")
LENGTH = "a run's length is that of its paper, as paper.epochs"
# what is meant by those that users try
MEANT = {
    "max_epochs": LENGTH,
    "max_steps": LENGTH,
    "min_epochs": LENGTH,
    "min_steps": LENGTH,
    "max_time": f"{LENGTH}, and Ctrl-C stops it with a checkpoint",
    "fast_dev_run": "debug=one_step",
    "overfit_batches": "debug=overfit",
    "limit_train_batches": "dataset.limit",
    "profiler": "debug=profile",
    "gradient_clip_val": "clip=<norm>",
    "accumulate_grad_batches": "dataset.batch_size",
}
FOLDERS = ("data_dir", "output_dir", "results_dir")
LARGEST_SEED = 2**32 - 1
# numbers of the top level, and what they may be; null is always valid
SHARES: dict[str, tuple[Callable[[float], bool], str]] = {
    "test_limit": (lambda value: value >= 1, "at least 1, or null for all examples"),
    "checkpoint_every": (lambda value: value >= 0, "seconds, at least 0"),
    "pause": (lambda value: 0 < value < 1, "a share of the run's length between 0 and 1, or null"),
    "clip": (lambda value: value > 0, "null, or the largest norm of a gradient, above 0"),
    "ema": (lambda value: 0 <= value < 1, "null, or a decay from 0 to below 1, as 0.999"),
}
# what keys of these names must be in any part, so that nothing heavy is imported to refuse them
POSITIVE = ("epochs", "passes", "evaluations", "batch_size")
WHOLE = ("batch_size",)
NOT_NEGATIVE = ("lr", "weight_decay", "momentum")


# keys of data sets that name files of the user's own
PATHS = ("path", "test_path", "target_path")


def check_parts(config: DictConfig) -> None:
    """Check that all is there of which a run builds something.

    Raises:
        UserError: the first group that is missing, or says nothing of what it is.
    """
    for group in BUILT:
        if OmegaConf.is_dict(config.get(group)) and OmegaConf.is_missing(config[group], "_target_"):
            raise UserError(
                f"{group}._target_: name a class ({group}._target_=..., yours by import=my_module)"
            )
        if not (OmegaConf.is_dict(config.get(group)) and "_target_" in config[group]):
            raise UserError(f"{group}: has no _target_, which says what it is (valid: {group}=<a name>)")


def check_config(config: DictConfig, done: bool = False) -> None:
    """Check the top level and every `_target_` node of a config.

    Args:
        done: its run is finished, and only to be shown: classes of the user's own are left alone then.

    Raises:
        UserError: the first key that does not fit, with what is valid.
    """
    check_top_level(config)
    for path, node in _targets("", OmegaConf.to_container(config, resolve=True)):
        if not (done and needs_import(node["_target_"])):
            _check_node(path, node)


def check_top_level(config: DictConfig) -> None:
    """Check the keys that belong to no `_target_`; nothing is imported for it.

    Raises:
        UserError: the first key that does not fit, with what is valid.
    """
    known = [*TOP_LEVEL, *BUILT, *OPTIONAL, *REFERRED_TO]
    for key in map(str, config):
        if key not in known:
            raise UserError(unknown("key", key, known))
        if key in TOP_LEVEL:
            _check_value(key, config[key], TOP_LEVEL[key])
        if key in FOLDERS and config[key] == "":
            raise UserError(f"{key}=: name a folder (valid: {key}=. for the current one)")
    if not 0 <= config.get("seed", 0) <= LARGEST_SEED:
        raise UserError(f"seed={config.seed}; valid: a whole number from 0 to {LARGEST_SEED}")
    for key, (fits, valid) in SHARES.items():
        value = config.get(key)
        if value is not None and not fits(value):
            raise UserError(f"{key}={value}; valid: {valid}")
    if OmegaConf.is_dict(config.get("trainer")):
        _check_trainer(config.trainer)


def _check_trainer(trainer: DictConfig) -> None:
    """Refuse arguments of Lightning's Trainer that a run does not heed.

    Raises:
        UserError: the first of them, with what is meant.
    """
    for key in map(str, trainer):
        if key not in TRAINER and key not in SPECIAL:
            meant = f"; what is meant may be {MEANT[key]}" if key in MEANT else ""
            raise UserError(f"trainer.{key}: a run does not heed it{meant} (valid: {', '.join(TRAINER)})")
    strategy, devices = trainer.get("strategy"), trainer.get("devices", 1)
    if strategy == "ddp":
        return
    several = "several processes make a run by torchrun --nproc-per-node=N run.py ... trainer=ddp"
    if strategy not in (None, "auto"):
        raise UserError(f"trainer.strategy={strategy}: valid: auto, or trainer=ddp ({several})")
    if devices != 1 and not (OmegaConf.is_list(devices) and len(devices) == 1):
        raise UserError(
            f"trainer.devices={devices}: one process on one device makes this run (valid: 1, or the number "
            f"of a device, as [0]; {several})"
        )


def check_ranges(config: DictConfig) -> None:
    """Check numbers whose names alone say what they may be; nothing is imported for it.

    Raises:
        UserError: the first that is not what it must be.
    """
    for group in BUILT:
        node = config.get(group)
        if OmegaConf.is_dict(node):
            _check_range(group, OmegaConf.to_container(node, resolve=False))


def check_paths(dataset: DictConfig, about: str) -> None:
    """Check that the files of the user's own are there; nothing is imported for it.

    Args:
        dataset: the group.
        about: what the data set is, in a line.

    Raises:
        UserError: a path that is empty, or leads nowhere.
    """
    if dataset.get("source") == "synthetic":
        return
    for key in PATHS:
        given = dataset.get(key)
        if not isinstance(given, str):
            continue
        if not given:
            raise UserError(f"dataset.{key}=: give a path (valid: {about})")
        path = Path(given).expanduser()
        if not path.exists():
            raise UserError(
                f"dataset.{key}={given}: no such file or folder{from_here(path)}; there is "
                f"{names_beside(path, ())} (valid: {about})"
            )


def check_imports(config: DictConfig) -> None:
    """Check that configs name classes of this project, or those of modules that `import=` names.

    Raises:
        UserError: a class of another module.
    """
    for path, node in _targets("", OmegaConf.to_container(config, resolve=False)):
        if needs_import(node["_target_"]) and not opted_in(f"{node['_target_']}."):
            raise UserError(_not_allowed(node["_target_"], path))


def _not_allowed(name: str, path: str) -> str:
    said = f"{path}._target_={name}: configs may only name {', '.join(ALLOWED)}..., and "
    modules = imported()
    if not modules:
        return f"{said}your own modules where the command line says so (import=my_module)"
    last = re.split(r"\W", name)[-1]
    meant = next((module for module in modules if last and hasattr(sys.modules.get(module), last)), None)
    valid = f"; valid: {path}._target_={meant}.{last}" if meant else ""
    return f"{said}what import= names ({', '.join(f'{module}.' for module in modules)}{valid})"


def _check_range(path: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _check_range(f"{path}.{key}", one)
        return
    name = path.rpartition(".")[2]
    if (
        (name in (*POSITIVE, *NOT_NEGATIVE) or path == "dataset.limit")
        and isinstance(value, str)
        and "${" not in value
    ):
        raise UserError(f"{path}={value}: must be a number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if name in WHOLE and isinstance(value, float):
        raise UserError(f"{path}={value}: must be a whole number")
    if path == "dataset.limit" and value < 1:
        raise UserError(f"{path}={value}: give at least 1, or null for all examples")
    if path == "dataset.validation" and not 0 <= value < 1:
        raise UserError(f"{path}={value}: give a fraction from 0 to below 1")
    if name in POSITIVE and not 0 < value < math.inf:
        raise UserError(f"{path}={value}: must be positive and finite")
    if name in NOT_NEGATIVE and not 0 <= value < math.inf:
        raise UserError(f"{path}={value}: must be at least 0 and finite")


def needs_import(target: Any) -> bool:
    """Whether a target is neither of the listed packages nor of a module that `import=` names."""
    return not (isinstance(target, str) and (target.startswith(ALLOWED) or opted_in(target)))


def check_targets(path: str, node: dict[str, Any]) -> None:
    """Check every `_target_` in what a file holds, as in a config.

    Raises:
        UserError: the first key that does not fit, with what is valid.
    """
    for at, one in _targets(path, node):
        _check_node(at, one)


def _targets(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield path, node
    for key, value in node.items():
        yield from _targets(f"{path}.{key}" if path else str(key), value)


def _check_node(path: str, node: dict[str, Any]) -> None:
    target = load_target(node["_target_"], path)
    known = accepted(target)
    for key, value in node.items():
        if key in SPECIAL:
            continue
        if key not in known and not isinstance(known, defaultdict):
            valid = ", ".join(known)
            given = value.get("_target_", value) if isinstance(value, dict) else value
            raise UserError(f"{path}.{key}={given}: {node['_target_']} takes no '{key}' (valid: {valid})")
        if not isinstance(value, dict):
            _check_value(f"{path}.{key}", value, known[key])
    # of classes that are built only after the runs that they need, so that nothing is run in vain
    check_settings = getattr(target, "check_settings", None)
    if check_settings is not None:
        check_settings(**{key: value for key, value in node.items() if key not in SPECIAL})


def accepted(target: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a target and their hints; `**options: Unpack[T]` counts as the keys of T.

    Plain `**options` accept every key.
    """
    hints = _hints(target)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            if name not in hints:
                return defaultdict(lambda: Any, found)
            for options in get_args(hints[name]):
                found |= get_type_hints(options)
        elif name not in ("self", *HANDED):
            found[name] = hints.get(name, _by_default(parameter))
    return found


def _by_default(parameter: inspect.Parameter) -> Any:
    """The hint of an argument that has none: one whose default is a number takes no text."""
    numeric = isinstance(parameter.default, bool | int | float)
    return float | bool | list | None if numeric else Any


def load_target(name: str, path: str) -> Callable[..., Any]:
    """The class or function that a `_target_` names, if it is one that configs may name.

    Raises:
        UserError: outside the allowed packages, or not found.
    """
    if needs_import(name):
        if opted_in(f"{name}."):
            raise UserError(f"{path}._target_={name}: is a module ({_to_choose(sys.modules[name])})")
        raise UserError(_not_allowed(name, path))
    try:
        target = get_object(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"{path}._target_={name}: {_unfound(name, error)}") from error
    if isinstance(target, types.ModuleType):
        raise UserError(f"{path}._target_={name}: is a module ({_to_choose(target)})")
    if not callable(target):
        raise UserError(f"{path}._target_={name}: is neither a class nor a function")
    if needs_import(f"{getattr(target, '__module__', '')}."):
        # a module of ours has imported it: common.runs.cli.os.system is os.system
        raise UserError(
            f"{path}._target_={name}: is not of {', '.join(ALLOWED)}..., but of {target.__module__} (valid: "
            "the module that defines it, by import= where it is your own)"
        )
    return target


def _unfound(name: str, error: BaseException) -> str:
    """Why a target cannot be found; some need packages that only `setup-full` brings."""
    module, missing = _deepest(name)
    cause: BaseException | None = error.__cause__
    if isinstance(cause, Exception) and not isinstance(cause, ModuleNotFoundError | AttributeError):
        # the module is there, and its code goes wrong
        return f"{where(cause)}{type(cause).__name__}: {cause}"
    cause = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    asked_for = "" if cause is None else str(cause.name)
    if asked_for.startswith("papers.") and _dotted(module) == "papers":
        return f"cannot be found ({error}); a paper of the current folder needs import={asked_for}"
    if module is not None and (not asked_for or f"{name}.".startswith(f"{asked_for}.")):
        return f"{_kind(module)} {_dotted(module)} has no {missing} ({_to_choose(module, missing)})"
    package = asked_for.split(".")[0]
    if package in ("", "common"):
        return f"cannot be found ({error})"
    if opted_in(name):
        return f"it imports the package {package}, which is not installed (valid: pip install {package})"
    return needs_package(package)


def _deepest(name: str) -> tuple[Any, str]:
    """The last part of a dotted name that is there, a module or a class, and the name that it lacks."""
    found: Any = None
    parts = name.split(".")
    for number, part in enumerate(parts):
        inner = getattr(found, part, None) if found is not None else None
        inner = sys.modules.get(".".join(parts[: number + 1])) if inner is None else inner
        if inner is None:
            return found, part
        found = inner
    return found, ""


def _kind(found: Any) -> str:
    return "module" if isinstance(found, types.ModuleType) else "class" if inspect.isclass(found) else ""


def _dotted(found: Any) -> str:
    return str(getattr(found, "__name__", found))


def _to_choose(module: Any, missing: str = "") -> str:
    """What may be named in a module: what it defines, and modules in it; the nearest to `missing` first."""
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and f"{value.__module__}.".startswith(f"{_dotted(module)}.")
    ]
    names += [one.name for one in pkgutil.iter_modules(getattr(module, "__path__", []))]
    if not names:
        return "valid: a class or a function that it defines; it has none"
    near = [name for name in names if name.lower() == missing.lower()]
    near += difflib.get_close_matches(missing, names, n=3, cutoff=0.5)
    shown = list(dict.fromkeys([*near, *names]))
    return f"valid: {', '.join([*shown[:20], *(['...'] if len(shown) > 20 else [])])}"


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _check_value(path: str, value: Any, hint: Any) -> None:
    if not _finite(value):
        raise UserError(f"{path}={value}: must be finite")
    if _plainly_fits(value, hint):
        return
    if any(_plainly_fits([value], one) for one in _lists(hint)):
        raise UserError(f"{path}={value}: a list is needed (valid: {path}=[{value}])")
    # only what is wrong, or of a type less plain, costs its import
    from pydantic import TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint, config={"arbitrary_types_allowed": True})
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{len(value)} given, more are needed" if first["type"] == "missing" else first["msg"]
        raise UserError(f"{path}={value}: {reason} (valid: {_readable(hint)})") from error


def _plainly_fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a plain type as it stands: what this denies may fit all the same."""
    if hint is Any:
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_plainly_fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is list and type(value) is list:
        return all(_plainly_fits(item, parts[0]) for item in value)
    if origin is tuple and type(value) is list and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(_plainly_fits, value, parts))
    if hint is float and type(value) is int:
        return abs(value) < 2**53
    return hint in (bool, int, float, str, type(None)) and type(value) is hint


def _lists(hint: Any) -> list[Any]:
    """What a hint allows of lists of any length."""
    parts = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    return [
        list[get_args(part)[0]]  # type: ignore[misc]
        for part in parts
        if get_origin(part) is list or (get_origin(part) is tuple and Ellipsis in get_args(part))
    ]


def _finite(value: Any) -> bool:
    """Whether a value holds neither NaN nor infinity; no setting of any part means one."""
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _readable(hint: Any) -> str:
    plain = get_origin(hint) is None and getattr(hint, "__name__", None)
    return plain or str(hint).replace("typing.", "")
