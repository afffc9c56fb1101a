"""What a run that another needs (a stage) takes from it, and what the two must agree on."""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from common.base.errors import UserError
from common.runs.catalogue import check_choices, find_entry
from common.runs.check import check_config, check_parts, load_target
from common.runs.compose import compose
from common.runs.evidence import key_of
from common.runs.keys import INNER, STAGED, START, run_key
from common.runs.request import Request
from common.runs.result import read_result
from common.runs.words import OPEN, as_text, quoted

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Inheritance:
    """What a stage takes from the run that needs it, unless its own words say otherwise.

    Every stage takes the paper, the data set with its settings, the scale, and how the run is kept and logged
    (`KEPT`). Of the data's settings, `seed`, `limit` and `validation` say which examples are drawn and which
    are held out: so no stage learns from what the run that needs it holds out.

    Attributes:
        teacher: whether a stage that learns from a teacher learns from the run's own; else from none but
            the one that its words name.
        one_teacher: whether a stage of another teacher than the run's is refused.
        same_inputs: whether the run feeds the stage its own examples, so that it must have been trained on
            the same data set, at the same size and with the same normalisation.
        model: whether the stage takes the run's model with its settings, and one of another is refused.
        start: whether the stage starts from what the run starts from.
    """

    teacher: bool
    one_teacher: bool
    same_inputs: bool
    model: bool = False
    start: bool = False


# by the key of the config that names the stage
INHERITANCE = {
    "teacher": Inheritance(teacher=False, one_teacher=False, same_inputs=True),
    "paraphraser": Inheritance(teacher=True, one_teacher=True, same_inputs=True),
    "encoder": Inheritance(teacher=True, one_teacher=False, same_inputs=False),
    START: Inheritance(teacher=False, one_teacher=False, same_inputs=True, model=True),
    "prepared": Inheritance(teacher=False, one_teacher=False, same_inputs=True, model=True, start=True),
    "selection": Inheritance(teacher=False, one_teacher=False, same_inputs=True, model=True, start=True),
    "features": Inheritance(teacher=False, one_teacher=False, same_inputs=True, model=True, start=True),
    "full_features": Inheritance(teacher=False, one_teacher=False, same_inputs=True),
    "pretrained": Inheritance(teacher=False, one_teacher=False, same_inputs=False, model=True),
    "reference": Inheritance(teacher=False, one_teacher=False, same_inputs=True, model=True),
}
# words of a run, without effect on its numbers, that its stages get too
KEPT = {"output_dir", "data_dir", "logger", "checkpoint_every", "trainer", "import"}
# settings of a data set that change neither what an input looks like nor what its label means
SERVING = {
    *("seed", "limit", "validation", "batch_size", "augment", "extra", "workers", "verify", "data_dir"),
    *("output_dir", "launcher"),
}


def stage_keys(config: DictConfig) -> dict[str, str]:
    """The keys of a config's method and model that may name other runs, each with its group.

    A key stands where the group has it: `teacher`, and `inner.teacher` of a method within the method. A run
    that starts from another has the key `start` too, which is a group by itself.
    """
    own = {key: group for group in STAGED for key in _keys_of(config[group], group, "")}
    return own | ({START: START} if config.get(START) is not None else {})


def _keys_of(node: Any, path: str, within: str) -> Iterator[str]:
    for key in getattr(load_target(node["_target_"], path), "STAGES", ()):
        yield within + key
    inner = node.get(INNER)
    if OmegaConf.is_dict(inner) and "_target_" in inner:
        yield from _keys_of(inner, f"{path}.{INNER}", f"{within}{INNER}.")


def stage_words(config: DictConfig, group: str, key: str) -> str | None:
    """What a config holds at a key of `stage_keys`: an override string, the path of a checkpoint, or None.

    A null that the words refer to (`method.samples=${.samples}`) is the word null in them.
    """
    path = key if group == START else f"{group}.{key}"
    found: str | None = OmegaConf.select(config, path)
    if found is None or "None" not in found:
        return found
    # OmegaConf itself writes a null within a text in Python's way
    written = OmegaConf.create(_with_nulls(OmegaConf.to_container(config, resolve=False)))
    return str(OmegaConf.select(written, path))


def _with_nulls(node: Any) -> Any:
    """Plain data with the word null for what is null."""
    if isinstance(node, dict):
        return {key: _with_nulls(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_nulls(value) for value in node]
    return "null" if node is None else node


def learns(config: DictConfig) -> bool:
    """Whether a run may learn from a teacher."""
    return any(_own_key(key) == "teacher" for key in stage_keys(config))


def _own_key(key: str) -> str:
    """The key that says what a stage is for: `teacher` of `inner.teacher`."""
    return key.rpartition(".")[2]


def _rule(key: str) -> "Inheritance":
    return INHERITANCE[_own_key(key)]


def stage_run(text: str, name: str, parent: DictConfig, request: Request) -> tuple[DictConfig, Request]:
    """The config of a stage, with what it inherits as words of its own; nothing is made.

    Args:
        text: what the parent's config holds: an override string, or the path of a checkpoint.
        name: the key that holds it, as `teacher` or `inner.teacher`.
        parent, request: of the run that needs it.

    Raises:
        UserError: unknown choices, no such file, and whatever `parent` and the stage do not agree on.
    """
    if _own_key(name) == "teacher" and text == parent.get(START):
        # the network that it starts from, unchanged
        name = START
    if is_path(text):
        config, asked = _compose(list(result_beside(Path(text))["overrides"]))
        # a crafted result may name what it will
        check_parts(config)
        check_config(config)
    else:
        words = [word for word in shlex.split(text) if not word.startswith(f"{CHECKPOINT}=")]
        config, asked = _composed(words, name, parent, request)
        for trained in _trained_configs(text):
            _check_data(name, parent, trained)
    if config.get("debug") is not None:
        raise UserError("a debug run is nothing to learn from: leave debug= out")
    _check_data(name, parent, config)
    if _rule(name).model and not (name == START and starts_from_others(parent)):
        _check_model(parent, request, config, asked)
    if _rule(name).one_teacher:
        _check_teacher(name, parent, request, config, asked)
    return config, asked


def starts_from_others(config: DictConfig) -> bool:
    """Whether a run's network may start from another one's weights, as a detector from a classifier's."""
    return hasattr(load_target(config.model["_target_"], "model"), "start_from")


def _trained_configs(text: str) -> list[DictConfig]:
    """Of the run whose checkpoint an override string names, if its result is beside it: what it learned from.

    The words say only what network it is.
    """
    paths = [Path(word.partition("=")[2]) for word in shlex.split(text) if word.startswith(f"{CHECKPOINT}=")]
    results = [read_result(path.parent / "result.json") for path in paths]
    return [_compose(list(result["overrides"]))[0] for result in results if result is not None]


def is_path(text: str) -> bool:
    """Whether a stage is named by a checkpoint's path, and not by an override string."""
    return "=" not in text or Path(text).is_file()


def result_beside(path: Path) -> dict[str, Any]:
    """The result of the run whose checkpoint this is: it says what network it is of.

    Raises:
        UserError: there is no such file, or no result beside it.
    """
    if not path.is_file():
        raise UserError("no such file, and no override string")
    result = read_result(path.parent / "result.json")
    if result is None:
        raise UserError(
            f"no result.json beside it says what network it is (valid: 'model=... {CHECKPOINT}={path}')"
        )
    return result


def stage_key(text: str, name: str, parent: DictConfig, request: Request) -> str:
    """What a stage is known by: its run key, or the folder of its checkpoint; arguments as of `stage_run`."""
    if is_path(text):
        return str(Path(text).resolve().parent)
    return run_key(stage_run(text, name, parent, request)[0])


def _composed(
    words: list[str], name: str, parent: DictConfig, request: Request
) -> tuple[DictConfig, Request]:
    check_choices(words)
    # the paper that it would inherit changes nothing of what it takes
    words = [word for word in words if word != f"paper={request.choices['paper']}"]
    own = {key_of(word) for word in quoted(words)}
    if "import" in own:
        raise UserError("import= belongs to the command itself, whose runs all share it")
    kept = [word for word in request.overrides if key_of(word).split(".")[0] in KEPT]
    words = [word for word in kept if key_of(word) not in own] + words
    if "entry" not in own:
        words += [f"{group}={request.choices[group]}" for group in ("paper", "dataset") if group not in own]
    if "scale" not in own:
        words.append(f"scale={request.choices['scale']}")
    if _rule(name).model and not {"entry", "model"} & own:
        words.append(f"model={request.choices['model']}")
        if request.choices["model"] in OPEN["model"]:
            # its config names no class
            words.append(f"++model._target_={parent.model['_target_']}")
    if _rule(name).start and START not in own and (text := parent.get(START)) is not None:
        words.append(f"{START}={_quoted(_as_for_the_parent(text, parent, request, own))}")
    config, found = _compose(words)
    changes = _dataset_words(parent, config, own) if _same_data(parent, config) else []
    changes += _teacher_words(name, parent, request, config, own, _keys_of_entry(words))
    if _rule(name).model and found.choices["model"] == request.choices["model"]:
        changes += _model_words(parent, config, own | _keys_of_entry(words))
    if changes:
        config, found = _compose([*words, *changes])
    label = f"{request.label}: {name}"
    typed = "dataset.limit" in own | {key_of(word) for word in asked_for(request)}
    inherited = () if typed else tuple(word for word in found.overrides if key_of(word) == "dataset.limit")
    return config, Request(found.choices, found.overrides, label, request.terminal, inherited)


def _compose(words: list[str]) -> tuple[DictConfig, Request]:
    """`compose` for a stage: Hydra stays as it was."""
    # the caller may change it
    return copy.deepcopy(_composed_once(tuple(words), Path.cwd()))


@lru_cache(maxsize=64)
def _composed_once(words: tuple[str, ...], folder: Path) -> tuple[DictConfig, Request]:
    """The config of the same words in the same folder: a run asks for its stages' several times."""
    with composing():
        return compose(list(words))


def asked_for(request: Request) -> list[str]:
    """The overrides that a user has typed."""
    return [word for word in request.overrides if word not in request.inherited]


def _same_data(parent: DictConfig, config: DictConfig) -> bool:
    return bool(parent.dataset["_target_"] == config.dataset["_target_"])


def _dataset_words(parent: DictConfig, config: DictConfig, own: set[str]) -> list[str]:
    """The settings of the parent's data set that a stage's own words leave open and that differ."""
    wanted: Any = OmegaConf.to_container(parent.dataset, resolve=False)
    there: Any = OmegaConf.to_container(config.dataset, resolve=False)
    taken = {
        key: value
        for key, value in _differing(wanted, there)
        if key != "seed" and not _is_said(f"dataset.{key}", own)
    }
    # where nothing is drawn the seed changes nothing, and runs of all seeds share the stage
    if draws(there | taken) and parent.dataset.seed != config.dataset.seed and "dataset.seed" not in own:
        taken["seed"] = parent.dataset.seed
    return [f"dataset.{key}={_quoted(value)}" for key, value in taken.items()]


def _model_words(parent: DictConfig, config: DictConfig, own: set[str]) -> list[str]:
    """The settings of the parent's model that a stage of the same model leaves open and that differ."""
    wanted: Any = OmegaConf.to_container(parent.model, resolve=False)
    there: Any = OmegaConf.to_container(config.model, resolve=False)
    if wanted.get("_target_") != there.get("_target_", wanted.get("_target_")):
        return []
    return [
        f"++model.{key}={_quoted(value)}"
        for key, value in _differing(wanted, there)
        if not _is_said(f"model.{key}", own)
    ]


def _differing(wanted: dict[str, Any], there: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """The settings, by dotted key, that are not the same there; of nodes within nodes each by itself.

    Hydra's grammar reads no node whose keys are quoted.
    """
    others = there if isinstance(there, dict) else {}
    for key, value in wanted.items():
        if isinstance(value, dict) and value:
            yield from _differing(value, others.get(key), f"{within}{key}.")
        elif others.get(key) != value:
            yield f"{within}{key}", value


def _is_said(key: str, own: set[str]) -> bool:
    """Whether words set a key, or a node that it stands in."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in own for end in range(1, len(parts) + 1))


def draws(dataset: dict[str, Any]) -> bool:
    """Whether the seed of a data set decides which examples are trained on."""
    return dataset.get("limit") is not None or _holds_out(dataset)


def _holds_out(dataset: dict[str, Any]) -> bool:
    """Whether a drawn part of the training set is kept for validation."""
    part = dataset.get("validation")
    return isinstance(part, int | float) and part > 0


def _teacher_words(
    name: str, parent: DictConfig, request: Request, config: DictConfig, own: set[str], entrys: set[str]
) -> list[str]:
    """Whom a stage learns from that learns from a teacher and whose own words name none.

    Args:
        own: the keys that its words set.
        entrys: the keys that the entry among its words sets.
    """
    if "teacher" in own or not learns(config):
        return []
    rule = _rule(name)
    text = _teacher_of(parent, name) if rule.teacher else None
    if text is not None and (rule.one_teacher or "teacher" not in entrys):
        return [f"teacher={_quoted(_as_for_the_parent(text, parent, request, own))}"]
    # the teacher of the paper's config is meant for the paper's students
    return [] if "teacher" in entrys else ["teacher=null"]


def _teacher_of(config: DictConfig, beside: str = "") -> str | None:
    """The teacher of the method that holds the stage `beside`: of `inner.paraphraser` the inner method's."""
    within, dot, _ = beside.rpartition(".")
    key = f"{within}{dot}teacher"
    group = stage_keys(config).get(key)
    return None if group is None else stage_words(config, group, key)


def _as_for_the_parent(text: str, parent: DictConfig, request: Request, own: set[str]) -> str:
    """The parent's teacher in words that name the same run where a stage asks for it.

    What the stage's own words, by their keys `own`, change of what a teacher inherits is put back.
    """
    if is_path(text):
        return text
    changed = own - {key_of(word) for word in shlex.split(text)}
    groups = [f"{key}={request.choices[key]}" for key in ("paper", "scale") if key in changed]
    settings = [
        f"{key}={_quoted(OmegaConf.select(parent, key))}"
        for key in sorted(changed)
        if key.startswith("dataset.")
    ]
    return " ".join([text, *groups, *settings])


def _keys_of_entry(words: list[str]) -> set[str]:
    """The keys that the entry among these words sets, at any scale."""
    names = [word.removeprefix("entry=") for word in words if word.startswith("entry=")]
    if not names:
        return set()
    entry = find_entry(names[-1])
    return set(entry.values).union(*entry.budget.values())


def _check_data(name: str, parent: DictConfig, config: DictConfig) -> None:
    """A stage has learned from inputs such as the run gives it, and from none that the run holds out.

    Raises:
        UserError: names the setting that differs.
    """
    ours: Any = OmegaConf.to_container(parent.dataset, resolve=True)
    its: Any = OmegaConf.to_container(config.dataset, resolve=True)
    if _rule(name).same_inputs:
        others = name == START and starts_from_others(parent)
        for key in ["normalise"] if others else sorted(set(ours) - SERVING):
            if ours[key] != its.get(key):
                raise UserError(
                    f"it is trained with {_setting(key, its.get(key))}, and this run has "
                    f"{_setting(key, ours[key])} (valid: the same data set, size and normalisation)"
                )
    if _same_data(parent, config) and _holds_out(ours):
        for key in ("validation", "limit", "seed"):
            if ours[key] != its[key]:
                raise UserError(
                    f"with {_setting(key, its[key])} it learns from examples that this run, with "
                    f"{_setting(key, ours[key])}, holds out (valid: the same)"
                )


def _check_model(parent: DictConfig, request: Request, config: DictConfig, asked: Request) -> None:
    """A stage whose network the run goes on with is of the run's own model.

    Raises:
        UserError: names the setting that differs.
    """
    ours: Any = OmegaConf.to_container(parent.model, resolve=True)
    its: Any = OmegaConf.to_container(config.model, resolve=True)
    if ours["_target_"] != its["_target_"]:
        names = [one.choices["model"] for one in (asked, request)]
        raise UserError(f"it is of model={names[0]}, and this run has model={names[1]} (valid: the same)")
    for key in sorted({*ours, *its}):
        if ours.get(key) != its.get(key):
            raise UserError(
                f"it has model.{key}={json.dumps(its.get(key))}, and this run model.{key}="
                f"{json.dumps(ours.get(key))} (valid: the same)"
            )


def _setting(key: str, value: Any) -> str:
    return f"dataset.{key}={json.dumps(value)}" if key != "_target_" else f"data of {value}"


def _check_teacher(
    name: str, parent: DictConfig, request: Request, config: DictConfig, asked: Request
) -> None:
    """A stage that works on a teacher's features was made for the teacher that the run has.

    Raises:
        UserError: it was made for another.
    """
    ours, its = _teacher_of(parent, name), _teacher_of(config)
    if ours is None or its is None:
        return
    our_key, its_key = stage_key(ours, "teacher", parent, request), stage_key(its, "teacher", config, asked)
    if our_key != its_key:
        raise UserError(
            f"it is of the teacher {its} ({its_key}), and this run learns from {ours} ({our_key}); "
            "valid: one teacher for both"
        )


def _quoted(value: Any) -> str:
    """A value as Hydra's grammar reads it back."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./\-]+|\$\{[\w.]+\}", value):
        return as_text(value)
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
