"""One run: from a composed config to `result.json`."""

import logging
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.kinds import TASKS
from common.base.method import naming_inner
from common.base.module import UNDER_WAY, PaperModule
from common.base.phases import phase
from common.base.stages import Stage
from common.data.shared.fingerprint import changes, fingerprint_of
from common.runs.callbacks import Checkpoints, InPlace
from common.runs.catalogue import check_accepted, find_entry
from common.runs.check import accepted, check_config, check_parts, load_target, needs_import
from common.runs.code import code_changes, code_hash, served_settings, settings_hash, settings_name
from common.runs.debug import Debug, check_debug
from common.runs.environment import environment
from common.runs.evidence import asked, asked_forms, key_of, results_folder
from common.runs.inheritance import asked_for, learns
from common.runs.inner import check_inner
from common.runs.keys import INNER, STAGED, START, identity, run_key
from common.runs.loggers import close, run_facts
from common.runs.own import opted_in
from common.runs.own_model import checked, settings_of, taken
from common.runs.pause import Pause
from common.runs.pipeline import Stages, described, make_stages, under_way
from common.runs.processes import Processes, Shares, processes_of, trainer_settings
from common.runs.progress import Narrator, ProgressReport
from common.runs.record import record_all
from common.runs.request import Outcome, Request
from common.runs.result import read_result, write_json
from common.training.finite import NonFinite


def execute(config: DictConfig, request: Request) -> Outcome:
    """Make a run, go on with an interrupted one, or show a finished one.

    Raises:
        UserError: anything that the user can mend, in one line.
    """
    check_parts(config)
    key = run_key(config)
    paper = key.split("/")[0]
    directory = Path(config.output_dir) / key
    path = directory / "result.json"
    done = read_result(path) is not None and not config.force
    _check_request(config, request, paper, done)
    check_config(config, done)
    directory.mkdir(parents=True, exist_ok=True)
    processes = processes_of(config.trainer)
    with under_way(key), _alone(directory, processes):
        # a debug run is made because something has changed
        anew = config.force or config.get("debug") is not None
        skipped = processes.agree(read_result(path) is not None and not anew)
        result = read_result(path) if skipped else None
        if result is None:
            if anew and processes.first:
                (directory / "last.ckpt").unlink(missing_ok=True)
                shutil.rmtree(directory / UNDER_WAY, ignore_errors=True)
            with Narrator(request.label, request.terminal and processes.first) as narrator:
                result = _run(config, request, paper, directory, processes, narrator)
            if processes.first:
                write_json(path, result)
        else:
            served = _served(result, request)
            if processes.first and served != result:
                write_json(path, served)
            result = served
        since = _changed_since(config, result) if skipped else ()
    if config.record and processes.first:
        record_all(key, result, Path(config.output_dir), results_folder(config.results_dir))
    return Outcome(path, result, skipped, since)


def _changed_since(config: DictConfig, result: dict[str, Any]) -> tuple[str, ...]:
    """What has changed since a result was made: its code or settings, its data."""
    found = code_changes(result)
    if result.get("data") is not None:
        what = changes(result["data"], fingerprint_of(_instantiate(config.dataset)))
        found += [f"the data have changed since: {what}"] if what else []
    return tuple(found)


def _check_request(config: DictConfig, request: Request, paper: str, done: bool) -> None:
    """The paper takes this kind of data set and of method, and a teacher is there for one who learns.

    A run that is done with a class of the user's own had it: nothing is imported to show a result.
    """
    choices, accepts = request.choices, config.accepts
    if config.get("debug") is not None:
        module = load_target(config.paper["_target_"], "paper")
        check_debug(choices["debug"], module, config.record, config.trainer.get("strategy") is not None)
    check_accepted(paper, choices, accepts.methods)
    if done and any(needs_import(config[group]["_target_"]) for group in STAGED):
        return
    check_inner(config, choices)
    for key in map(key_of, request.overrides):
        if re.match(r"method\.(inner\.)+optimizer\b|method/optimizer@method\.inner\.", key):
            raise UserError(
                f"{key}: the outermost method's optimizer steps what all methods train (valid: "
                "method.optimizer..., method/optimizer=...)"
            )
    if config.get(START) is not None and not getattr(
        load_target(config.paper["_target_"], "paper"), "STARTS", False
    ):
        raise UserError(
            f"start: paper={paper} trains no network by minibatches, so there is nothing to start from"
        )
    asks = config.get("teacher") is not None and any(key_of(word) == "teacher" for word in request.overrides)
    if asks and not learns(config):
        raise UserError(f"teacher={config.teacher}: method={choices['method']} learns from no teacher")


@contextmanager
def _alone(directory: Path, processes: Processes) -> Iterator[None]:
    """Hold the run's lock, the first process for all; the operating system frees it when a process dies."""
    if not processes.first:
        yield
        return
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that makes {directory}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _served(result: dict[str, Any], request: Request) -> dict[str, Any]:
    """A finished result that also serves this entry, and by which words it was asked for."""
    entries, reported, forms = result["entries"], result["reported"], asked_forms(result)
    if request.entry is not None and request.entry not in entries:
        entries, reported = [*entries, request.entry], {**reported, **_reported(request.entry)}
    if asked(request.overrides) not in forms:
        forms = [*forms, asked(request.overrides)]
    served = {**result, "entries": entries, "reported": reported, "asked": [list(words) for words in forms]}
    # these words compose to this run today, whatever they did before
    served["settings"] = {**served_settings(result), **_settings(result["paper"], request)}
    return served


def _run(
    config: DictConfig,
    request: Request,
    paper: str,
    directory: Path,
    processes: Processes,
    narrator: Narrator,
) -> dict[str, Any]:
    _quiet()
    _check_task(config, request)
    stages = make_stages(config, request, execute, trained_module, first_network)
    pl.seed_everything(int(config.seed), workers=True, verbose=False)
    with phase("building"):
        module = build(config, request, stages)
    settings = identity(config)
    choices = {group: request.choices[group] for group in ("dataset", "model", "method", "schedule")}
    # now, as files may be edited while the run goes on
    code = code_hash(paper, choices, settings)
    checkpoints = Checkpoints(directory / "last.ckpt", float(config.checkpoint_every), processes, code)
    callbacks: list[pl.Callback] = [checkpoints]
    if processes.first:
        callbacks.append(ProgressReport(request.label, request.terminal, narrator))
    if config.get("pause") is not None:
        callbacks.append(Pause(float(config.pause), config.objective, checkpoints))
    debug: Debug | None = None
    if config.get("debug") is not None:
        debug = _instantiate(config.debug)
        debug.attach(module, request.label, directory)
        callbacks.append(debug)
    if processes.size > 1:
        shares = Shares(processes)
        shares.attach(module)
        callbacks.append(shares)
    trainer = _trainer(config, request, directory, callbacks, processes)
    try:
        with checkpoints:
            last = processes.agree(_resume_from(checkpoints.path, module, code) if processes.first else None)
            trainer.fit(module, ckpt_path=last, weights_only=True)
            _move_back(module, trainer)
            with phase("evaluating"):
                metrics = module.results() if debug is None else debug.results()
                conclusion = module.conclusion() if debug is None else {}
            with phase("writing the checkpoint"):
                checkpoints.save(trainer)
    except NonFinite as error:
        kept = checkpoints.path if checkpoints.path.exists() else "none was made yet"
        raise UserError(
            f"{error}; last checkpoint: {kept} (a smaller step, as by method.lr, or clip=1.0 may help)"
        ) from error
    _close_logger(trainer, module, metrics)
    about, measured = described(stages)
    for what, count in module.data.repairs.items():
        print(f"[{request.label}] {module.data.NAME}: {count} {what}", file=sys.stderr)
    return {
        "entries": [request.entry] if request.entry and debug is None else [],
        "overrides": request.overrides,
        "asked": [list(asked(request.overrides))],
        "paper": paper,
        "choices": choices,
        "scale": request.choices["scale"],
        "seed": int(config.seed),
        "metrics": {**metrics, **measured},
        **({"conclusion": conclusion} if conclusion else {}),
        **({"remarks": remarks} if (remarks := module.remarks()) else {}),
        "facts": module.data.facts(),
        "stages": about,
        "reported": _reported(request.entry if debug is None else None),
        "settings": _settings(paper, request),
        "wall_seconds": round(checkpoints.seconds, 3),
        **environment(module.device),
        "code": code,
        # of a run that went on with other code than it began with
        **({"codes": checkpoints.codes} if len(checkpoints.codes) > 1 else {}),
        "data": checkpoints.data,
        "config": settings,
        "history": module.history,
    }


def trained_module(config: DictConfig, request: Request) -> PaperModule:
    """The module of a run that another needs, whose weights are still to be loaded.

    Raises:
        UserError: a config that names what it may not, as that of a crafted result would.
    """
    return trained_parts(config, request)[0]


def trained_parts(config: DictConfig, request: Request) -> tuple[PaperModule, Stages]:
    """`trained_module`, and the runs that it needed."""
    check_parts(config)
    check_config(config)
    _check_task(config, request)
    stages = make_stages(config, request, execute, trained_module, first_network)
    return build(config, request, stages), stages


def build(config: DictConfig, request: Request, stages: Stages | None = None) -> PaperModule:
    """The paper's module with its data set, model and method.

    Args:
        config, request: of the run.
        stages: what its method and its model need first; None where they need nothing.
    """
    data = _instantiate(config.dataset)
    # one that a scale or a recipe brings is "at most"
    data.limit_is_cap = "dataset.limit" not in map(key_of, asked_for(request))
    data.judged_on = config.get("test_limit")
    handed = {
        group: {key: made.stage for key, made in (stages or {}).get(group, {}).items()} for group in STAGED
    }
    make_model = partial(_make_model, config, data, handed["model"])
    started = (stages or {}).get(START)
    model = make_model() if started is None else started[START].stage.model
    parts: dict[str, Any] = {"data": data, "model": model, "seed": int(config.seed)}
    parts |= {"method": _method(config.method, handed["method"]), "make_model": make_model}
    parts |= {"schedule": _instantiate(config.schedule)}
    parts |= {START: None if started is None else started[START].stage}
    target = config.paper["_target_"]
    wanted = accepted(get_object(target))
    if "schedule" not in wanted and request.choices["schedule"] != "constant":
        raise UserError(
            f"schedule={request.choices['schedule']}: {target} takes no schedule (valid: constant)"
        )
    # a paper's own setting of such a name is its own: saddle's start is a point
    handed_on = {name: part for name, part in parts.items() if name in wanted and name not in config.paper}
    module = _instantiate(config.paper, **handed_on)
    if config.get("stop"):
        module.stop_early(_instantiate(config.stop))
    if config.get("clip") is not None:
        module.limit_gradients(float(config.clip))
    if config.get("ema") is not None:
        module.average_weights(float(config.ema))
    return module


def first_network(config: DictConfig) -> nn.Module:
    """The network of a config that needs no other run, with its first weights."""
    return _make_model(config, _instantiate(config.dataset), {})


def _make_model(config: DictConfig, data: DataSet, stages: dict[str, Stage]) -> nn.Module:
    """The network of a config, with weights of its own each time."""
    offered = {"shape": data.shape, "classes": data.classes, **stages}
    if not opted_in(config.model["_target_"]):
        return _instantiate(config.model, **offered)
    target, kind = get_object(config.model["_target_"]), config.dataset.kind
    given = taken(target, dict(config.model), offered)
    try:
        model = _instantiate(config.model, **given)
    except UserError as error:
        if given.get("classes", ...) is not None:
            raise
        raise UserError(f"{error}; classes is None, as the data (kind {kind}) have none") from error
    return checked(model, target, data, kind, settings_of(config.model))


def _method(node: DictConfig, stages: dict[str, Stage]) -> Any:
    """Build a method, the one within it first.

    Args:
        node: of the config.
        stages: by key, `teacher` or, of the method within, `inner.teacher`.
    """
    own = {key: stage for key, stage in stages.items() if "." not in key}
    inner = node.get(INNER)
    if not OmegaConf.is_dict(inner):
        return _instantiate(node, **own)
    within = {key.removeprefix(f"{INNER}."): stage for key, stage in stages.items() if "." in key}
    with naming_inner():
        made = _method(inner, within)
    bare = node.copy()
    with open_dict(bare):
        del bare[INNER]
    return _instantiate(bare, **own, inner=made)


def _check_task(config: DictConfig, request: Request) -> None:
    task = getattr(get_object(config.model["_target_"]), "task", None)
    if config.dataset.kind not in TASKS:
        raise UserError(f"dataset.kind={config.dataset.kind}; valid: {', '.join(TASKS)}")
    if opted_in(config.model["_target_"]):
        # it may say its task when it is built, or leave it to the data set
        return
    if task not in TASKS[config.dataset.kind]:
        fitting = " or ".join(sorted(TASKS[config.dataset.kind]))
        raise UserError(
            f"model={request.choices['model']} is for {task}, but dataset={request.choices['dataset']} "
            f"(kind {config.dataset.kind}) is for {fitting}"
        )


def _instantiate(node: DictConfig, **parts: Any) -> Any:
    """Build what a node names; what its constructor says is wrong stays a one-line error."""
    try:
        return instantiate(node, _convert_="all", **parts)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        reason = _first_line(cause or error)
        raise UserError(f"{node['_target_']}: {reason}{settings_of(node)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    if isinstance(error, MemoryError) or (text and re.search(r"allocate memory|out of memory", text[0])):
        return "does not fit into the memory of this machine"
    if not text:
        return type(error).__name__
    # a missing key is all that its error says
    return f"KeyError: {text[0]}" if isinstance(error, KeyError) else text[0]


def _trainer(
    config: DictConfig,
    request: Request,
    directory: Path,
    callbacks: list[pl.Callback],
    processes: Processes,
) -> pl.Trainer:
    if config.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer=gpu: no GPU is available here (valid: cpu, auto)")
    facts = run_facts(request.choices, request.entry, int(config.seed))
    logger = None
    if processes.first:
        logger = _instantiate(config.logger, directory=directory, key=run_key(config), facts=facts)
    if logger is not None:
        logger.log_hyperparams({**facts, "config": OmegaConf.to_container(config, resolve=True)})
    return _instantiate(
        config.trainer,
        callbacks=callbacks,
        plugins=[InPlace()],
        logger=logger or False,
        max_epochs=-1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(directory),
        **trainer_settings(processes),
    )


def _move_back(module: PaperModule, trainer: pl.Trainer) -> None:
    """Put the module and the state of its optimizers where they trained: Lightning leaves them on the CPU."""
    device = trainer.strategy.root_device
    module.to(device)
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            for key, value in state.items():
                # a count of steps stays on the CPU, where torch wants it
                if isinstance(value, torch.Tensor) and key != "step":
                    state[key] = value.to(device)


def _resume_from(path: Path, module: PaperModule, code: str) -> Path | None:
    """The last checkpoint, if one is there and can be read; other code than made it is said on stderr.

    Raises:
        UserError: it is damaged, or of other data.
    """
    if not path.exists():
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]["Checkpoints"]
    except Exception as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to start this run anew"
        ) from error
    what = changes(kept.get("data"), fingerprint_of(module.data))
    if what is not None:
        raise UserError(
            f"the data have changed since checkpoint {path} was made: {what} (valid: put them back, or "
            "force=true to start anew)"
        )
    if kept.get("codes", [code])[-1] != code:
        print(
            f"the code has changed since checkpoint {path} was made: the run goes on, and its result says "
            "that two codes made it; force=true starts anew",
            file=sys.stderr,
        )
    return path


def _close_logger(trainer: pl.Trainer, module: PaperModule, metrics: dict[str, Any]) -> None:
    if trainer.logger is None:
        return
    finals = {f"final/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
    trainer.logger.log_metrics(finals, step=int(module.history.get("step", [0])[-1] or 0))
    close(trainer.logger)


def _reported(entry: str | None) -> dict[str, Any]:
    """What the paper reports for an entry: `{entry: {metric: value, "source": ...}}`."""
    if entry is None:
        return {}
    row = find_entry(entry)
    return {entry: {**row.reported, "source": row.source}}


def _settings(paper: str, request: Request) -> dict[str, str]:
    """A hash of what the tables set for the words of a run, by the entry or the paper that they name."""
    asked_for = request.entry or f"paper={paper}"
    scale = request.choices["scale"]
    return {settings_name(asked_for, scale): settings_hash(asked_for, scale)}


def _quiet() -> None:
    """Lightning's banners and tips say nothing about a run."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
