"""One run: from a composed config to `result.json`."""

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from common.runs.callbacks import Checkpoints, ProgressReport
from common.runs.catalogue import accepted_datasets, all_entries, refuse_dataset, refuse_method
from common.runs.check import check_config
from common.runs.code import code_hash
from common.runs.environment import environment
from common.runs.errors import UserError
from common.runs.evidence import asked, asked_forms
from common.runs.keys import identity, run_key
from common.runs.loggers import close, run_facts
from common.runs.module import PaperModule
from common.runs.record import record, results_folder
from common.runs.result import read_result, write_json
from common.training.finite import NonFinite

# the tasks that a data set of each kind can serve
TASKS = {
    "image_classification": {"classification", "reconstruction"},
    "tabular_classification": {"classification"},
    "regression": {"regression"},
    "image_reconstruction": {"reconstruction"},
    "stream": {"classification"},
    "analytic": {"analytic"},
    "online": {"online"},
}


@dataclass(frozen=True)
class Request:
    """How a run was asked for: none of it changes the result."""

    choices: dict[str, str]
    overrides: list[str]
    label: str
    terminal: bool

    @property
    def entry(self) -> str | None:
        entry = self.choices.get("entry")
        return None if entry in (None, "None", "null") else entry


@dataclass(frozen=True)
class Outcome:
    """What came out: the result, where it lies, and whether it had been there before."""

    path: Path
    result: dict[str, Any]
    skipped: bool


def execute(config: DictConfig, request: Request) -> Outcome:
    """Make a run, go on with an interrupted one, or show a finished one.

    Raises:
        UserError: anything that the user can mend, in one line.
    """
    key = run_key(config)
    paper = key.split("/")[0]
    _check_request(config, request, paper)
    check_config(config)
    directory = Path(config.output_dir) / key
    path = directory / "result.json"
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        result = read_result(path)
        skipped = result is not None and not config.force
        if result is not None and skipped:
            result = _served(path, result, request)
        else:
            if config.force:
                (directory / "last.ckpt").unlink(missing_ok=True)
            result = _run(config, request, paper, directory)
            write_json(path, result)
    if config.record:
        record(key, result, results_folder(config.results_dir))
    return Outcome(path, result, skipped)


def _check_request(config: DictConfig, request: Request, paper: str) -> None:
    """The paper takes this kind of data set and this kind of method."""
    choices, accepts = request.choices, config.accepts
    if choices["dataset"] not in accepted_datasets(paper):
        raise refuse_dataset(paper, choices["dataset"])
    if choices["method"].split("/")[0] not in accepts.methods:
        raise refuse_method(paper, choices["method"])


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the run's lock; the operating system frees it when a process dies."""
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


def _served(path: Path, result: dict[str, Any], request: Request) -> dict[str, Any]:
    """Note on a finished result that it also serves this entry, and by which words it was asked for."""
    entries, reported, forms = result["entries"], result["reported"], asked_forms(result)
    if request.entry is not None and request.entry not in entries:
        entries, reported = [*entries, request.entry], {**reported, **_reported(request.entry)}
    if asked(request.overrides) not in forms:
        forms = [*forms, asked(request.overrides)]
    served = {**result, "entries": entries, "reported": reported, "asked": [list(words) for words in forms]}
    if served != result:
        write_json(path, served)
    return served


def _run(config: DictConfig, request: Request, paper: str, directory: Path) -> dict[str, Any]:
    _quiet()
    pl.seed_everything(int(config.seed), workers=True, verbose=False)
    module = build(config, request)
    checkpoints = Checkpoints(directory / "last.ckpt", float(config.checkpoint_every))
    report = ProgressReport(request.label, request.terminal)
    trainer = _trainer(config, request, directory, [checkpoints, report])
    try:
        with checkpoints:
            trainer.fit(module, ckpt_path=_resume_from(checkpoints.path), weights_only=True)
            # Lightning's teardown leaves the module on the CPU
            module.to(trainer.strategy.root_device)
            metrics = module.results()
            checkpoints.save(trainer)
    except NonFinite as error:
        kept = checkpoints.path if checkpoints.path.exists() else "none was made yet"
        raise UserError(f"{error}; last checkpoint: {kept}") from error
    _close_logger(trainer, metrics)
    choices = {group: request.choices[group] for group in ("dataset", "model", "method", "schedule")}
    for what, count in module.data.repairs.items():
        print(f"[{request.label}] {module.data.NAME}: {count} {what}", file=sys.stderr)
    return {
        "entries": [request.entry] if request.entry else [],
        "overrides": request.overrides,
        "asked": [list(asked(request.overrides))],
        "paper": paper,
        "choices": choices,
        "scale": request.choices["scale"],
        "seed": int(config.seed),
        "metrics": metrics,
        "reported": _reported(request.entry),
        "wall_seconds": round(checkpoints.seconds, 3),
        **environment(module.device),
        "code": code_hash(paper, choices),
        "config": identity(config),
        "history": module.history,
    }


def build(config: DictConfig, request: Request) -> PaperModule:
    """The paper's module with its data set, model and method.

    Raises:
        UserError: the model's task does not fit the data set.
    """
    _check_task(config, request)
    data = _instantiate(config.dataset)
    model = _instantiate(config.model, shape=data.shape, classes=data.classes)
    parts: dict[str, Any] = {"data": data, "model": model, "seed": int(config.seed)}
    parts |= {"method": _instantiate(config.method), "schedule": _instantiate(config.schedule)}
    target = config.paper["_target_"]
    wanted = inspect.signature(get_object(target)).parameters
    if "schedule" not in wanted and request.choices["schedule"] != "constant":
        raise UserError(
            f"schedule={request.choices['schedule']}: {target} takes no schedule (valid: constant)"
        )
    return _instantiate(config.paper, **{name: part for name, part in parts.items() if name in wanted})


def _check_task(config: DictConfig, request: Request) -> None:
    task = getattr(get_object(config.model["_target_"]), "task", None)
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
        raise UserError(f"{node['_target_']}: {cause or error}".splitlines()[0]) from error


def _trainer(
    config: DictConfig, request: Request, directory: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    if config.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer=gpu: no GPU is available here (valid: cpu, auto)")
    facts = run_facts(request.choices, request.entry, int(config.seed))
    logger = _instantiate(config.logger, directory=directory, key=run_key(config), facts=facts)
    if logger is not None:
        logger.log_hyperparams({**facts, "config": OmegaConf.to_container(config, resolve=True)})
    return _instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=logger or False,
        max_epochs=-1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(directory),
    )


def _resume_from(path: Path) -> Path | None:
    """The last checkpoint, if one is there and can be read.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to start this run anew"
        ) from error
    return path


def _close_logger(trainer: pl.Trainer, metrics: dict[str, Any]) -> None:
    if trainer.logger is None:
        return
    finals = {f"final/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
    trainer.logger.log_metrics(finals)
    close(trainer.logger)


def _reported(entry: str | None) -> dict[str, Any]:
    """What the paper reports for an entry: `{entry: {metric: value, "source": ...}}`."""
    if entry is None:
        return {}
    row = all_entries()[entry]
    return {entry: {**row.reported, "source": row.source}}


def made_at(result: dict[str, Any]) -> str:
    """The commit and date of a result, in a few words."""
    return f"commit {(result['commit'] or 'unknown')[:10]}, {result['finished']}"


def _quiet() -> None:
    """Lightning's banners and tips say nothing about a run."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
