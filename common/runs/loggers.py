"""The loggers that `conf/logger` names; each gets the run directory and the run key."""

import os
from netrc import NetrcParseError, netrc
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger


def wandb_logger(*, directory: Path, key: str, project: str, entity: str | None) -> Logger:
    """Weights & Biases, online where the user is logged in and offline otherwise, never asking.

    The W&B run id is the run key, so a resumed run goes on in the same W&B run.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    from pytorch_lightning.loggers import WandbLogger

    logger = WandbLogger(
        project=project,
        entity=entity,
        save_dir=directory,
        name=key,
        id=key.replace("/", "-"),
        resume="allow",
        offline=not _logged_in(),
    )
    # wandb warns of this retired setting, which Lightning hands over unset
    logger._wandb_init.pop("anonymous", None)
    return logger


def _logged_in() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, NetrcParseError):
        return False


def csv_logger(*, directory: Path, key: str) -> Logger:
    """`csv/metrics.csv` in the run directory."""
    return CSVLogger(save_dir=directory, name="csv", version="")


def no_logger(*, directory: Path, key: str) -> None:
    """No logger at all."""
