"""The loggers that `conf/logger` names; each gets the run directory, the run key and the run's facts."""

import os
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from common.base.errors import UserError
from common.runs.sweep import current

# of WANDB_MODE
OFFLINE = ("offline", "disabled", "dryrun")
MODES = ("online", "shared", "run", *OFFLINE)


def run_facts(choices: dict[str, str], entry: str | None, seed: int) -> dict[str, Any]:
    """What a run is, by the names that a logger groups and filters by.

    Args:
        choices: the config groups' choices.
        entry: `paper.table.row`, or None for a run that was not asked for as an entry.

    Returns:
        entry, table and row (None without an entry), paper, scale, seed, dataset, model and method.
    """
    _, table, row = (None, None, None) if entry is None else entry.split(".", 2)
    chosen = {group: choices[group] for group in ("paper", "scale", "dataset", "model", "method")}
    return {"entry": entry, "table": table, "row": row, "seed": seed, **chosen}


class WandbRun(WandbLogger):
    """A W&B run that ends with its run.

    Lightning leaves it open until the process ends, and the next job of a sweep would go on in it. Points are
    numbered from 0 in their order: a run that goes on sends those of its checkpoint again, and W&B drops what
    it has by its number.
    """

    points = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        place = {} if step is None else {"trainer/global_step": step}
        self.experiment.log({**metrics, **place}, step=self.points, commit=True)
        self.points += 1

    def finalize(self, status: str) -> None:
        super().finalize(status)
        # a success is not the end: the final metrics come after `fit`, and then `close`
        if status != "success":
            self.experiment.finish(exit_code=1)


def wandb_logger(
    *, directory: Path, key: str, facts: dict[str, Any], project: str, entity: str | None
) -> Logger:
    """Weights & Biases, online where the user is logged in and offline otherwise, never asking.

    The W&B run id is the run key, so an interrupted run goes on in the same W&B run; one that is made anew
    takes its place. What an earlier process wrote offline goes, for the run is written whole again: there is
    one file a run. Runs are grouped by `paper.table`, or by paper without an entry; their job type is the
    method.

    Raises:
        UserError: WANDB_MODE is none of W&B's, or W&B does not take the run.
    """
    chosen = os.environ.get("WANDB_MODE")
    if chosen and chosen not in MODES:
        raise UserError(f"WANDB_MODE={chosen}; valid: {', '.join(MODES)}, or unset")
    os.environ.setdefault("WANDB_SILENT", "true")
    # W&B's reports on itself, which go out from offline runs too
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    import_module("common.runs.wandb_speed")
    if wandb.run is not None:
        # a job that broke off between its training and its result
        wandb.run.finish(exit_code=1)
    paper, table, run_id = facts["paper"], facts["table"], key.replace("/", "-")
    mode = None if chosen or logged_in() else "offline"
    for earlier in directory.glob(f"wandb/offline-run-*-{run_id}"):
        shutil.rmtree(earlier)
    logger = WandbRun(
        project=project,
        entity=entity,
        save_dir=directory,
        name=f"{facts['entry'] or key} seed {facts['seed']}",
        id=run_id,
        resume="allow" if (directory / "last.ckpt").exists() else None,
        group=paper if table is None else f"{paper}.{table}",
        job_type=facts["method"],
        tags=[facts["scale"], facts["dataset"]],
        # Lightning's own `offline` sets an environment variable, which wandb has read by now
        mode=mode,
    )
    # wandb warns of this retired setting, which Lightning hands over unset
    logger._wandb_init.pop("anonymous", None)
    try:
        _ = logger.experiment
    except wandb.errors.Error as error:
        raise UserError(f"logger=wandb: {error} (WANDB_MODE=offline logs without a network)") from error
    return logger


def logged_in() -> bool:
    """Whether W&B would find credentials without asking for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.sdk.lib import wbauth

    try:
        return wbauth.read_netrc_auth(host=wandb.setup().settings.base_url) is not None
    except wandb.errors.AuthenticationError:
        return False


def csv_logger(*, directory: Path, key: str, facts: dict[str, Any]) -> Logger:
    """`csv/metrics.csv` in the run directory, written point by point."""
    return CSVLogger(save_dir=directory, name="csv", version="", flush_logs_every_n_steps=1)


def tensorboard_logger(*, directory: Path, key: str, facts: dict[str, Any]) -> Logger:
    """One event file in the run directory, under `tensorboard`; written point by point.

    What an earlier process wrote goes, for a run that goes on sends the points of its checkpoint again:
    there is one event file a run, and no point is in it twice.

    Raises:
        UserError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "logger=tensorboard needs the package tensorboard: pip install -e '.[tensorboard]' "
            "(valid without it: logger=csv, logger=wandb, logger=none)"
        )
    from pytorch_lightning.loggers import TensorBoardLogger

    shutil.rmtree(directory / "tensorboard", ignore_errors=True)
    return TensorBoardLogger(
        save_dir=directory, name="tensorboard", version="", default_hp_metric=False, max_queue=1
    )


def no_logger(*, directory: Path, key: str, facts: dict[str, Any]) -> None:
    """No logger at all."""


def close(logger: Logger) -> None:
    """End a logger: nothing more comes."""
    logger.finalize("success")
    if isinstance(logger, WandbRun):
        logger.experiment.finish()
        kept = sorted(Path(logger.save_dir or ".").glob(f"wandb/offline-run-*-{logger.version}"))
        # a sweep would say it for each of its jobs
        if kept and current() is None:
            print(f"logged offline; to send it: wandb sync {quote(str(kept[-1]))}", file=sys.stderr)
