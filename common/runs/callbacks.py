"""The callback that every run has: checkpoints that resume exactly."""

import io
import os
import random
import signal
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.optim import Optimizer
from torch.serialization import get_unsafe_globals_in_checkpoint

from common.base.errors import UserError
from common.base.module import PaperModule
from common.data.shared.fingerprint import fingerprint_of
from common.runs import own
from common.runs.processes import Processes


class Interrupted(UserError):
    """The user (Ctrl-C) or the machine (SIGTERM) asked the run to stop; its checkpoint is kept.

    Attributes:
        share: of the run's length that is made.
        seconds: that this took, the run's earlier pieces included.
    """

    def __init__(self, text: str, share: float, seconds: float) -> None:
        super().__init__(text)
        self.share, self.seconds = share, seconds


class InPlace(TorchCheckpointIO):
    """Writes a checkpoint where it is to lie.

    Lightning's own writer stages it in TMPDIR first, which may be full, or a small disk in memory.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        # by way of memory: torch's own writer ends the process where the disk is full
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).write_bytes(buffer.getbuffer())


class Checkpoints(pl.Callback):
    """Saves `last.ckpt` every few seconds between two steps, and all that a resume needs.

    Lightning's own checkpoint callback counts optimizer steps, which stand still or jump here. The
    states of the random number generators travel along, so a resumed run draws what the unbroken one
    would have drawn. Ctrl-C and SIGTERM save at the end of the step under way. Of several processes that
    make the run, the first says when, and writes.

    Attributes:
        codes: the hashes of the code that has made the run so far, that of this process last.
        data: the fingerprint of the files that it learns from, taken before its first step.
    """

    def __init__(self, path: Path, every: float, processes: Processes, code: str = "") -> None:
        self.path, self.every, self.processes = path, every, processes
        self.codes = [code]
        self.data: dict[str, Any] | None = None
        self.saved = self.started = time.monotonic()
        self.seconds_before = 0.0
        self.stop: int | None = None
        self._random: dict[str, Any] | None = None
        self._looked_at = False
        self._handlers: dict[int, Any] = {}

    @property
    def seconds(self) -> float:
        """Wall time of this run, its earlier pieces included."""
        return self.seconds_before + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        known = {"codes": self.codes, "data": self.data}
        return {"random": random_states(), "seconds": self.seconds, **known}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random, self.seconds_before = state_dict["random"], state_dict["seconds"]
        self.codes = list(dict.fromkeys([*state_dict.get("codes", []), self.codes[-1]]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._random is not None:
            restore_random_states(self._random)
        assert isinstance(pl_module, PaperModule)
        if self.processes.first:
            # now all files are there, also those that had to be fetched
            self.data = fingerprint_of(pl_module.data)
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not self._looked_at:
            # an optimizer has a state from its first step on
            self._looked_at = True
            _check_kept(pl_module, trainer.optimizers)
        stop, due = self.processes.agree((self.stop, time.monotonic() - self.saved >= self.every))
        if stop is not None or due:
            self.save(trainer)
        if stop is not None:
            name = signal.Signals(stop).name
            assert isinstance(pl_module, PaperModule)
            progress = pl_module.progress()
            raise Interrupted(
                f"stopped by {name}; checkpoint kept in {self.path}: the same command goes on",
                progress.done / progress.total,
                self.seconds,
            )

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint under a temporary name, then rename it."""
        partial = self.path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
            if self.processes.first:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                partial.replace(self.path)
        except OSError as error:
            # the name that matters to the user, not that of a temporary file
            error.filename = str(self.path)
            raise
        finally:
            if self.processes.first:
                partial.unlink(missing_ok=True)
        self.saved = time.monotonic()

    def __enter__(self) -> "Checkpoints":
        def ask(number: int, frame: FrameType | None) -> None:
            if self.stop is not None:
                raise KeyboardInterrupt
            self.stop = number

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _check_kept(module: pl.LightningModule, optimizers: Sequence[Optimizer]) -> None:
    """Refuse states of the user's own classes that no checkpoint can give back.

    Raises:
        UserError: see above; a run with such a state could neither go on nor be used.
    """
    if not own.imported():
        return
    states = [("the network", module.state_dict())]
    states += [(type(optimizer).__name__, optimizer.state_dict()) for optimizer in optimizers]
    for of, state in states:
        held = not_kept(state)
        if held is not None:
            raise UserError(
                f"the state of {of} holds {held}, which cannot be read from a checkpoint again (valid: "
                "tensors, numbers, texts, and lists and dicts of them)"
            )


def not_kept(state: Any) -> str | None:
    """What of a state is neither a tensor nor plain data, by its name; None where nothing is."""
    buffer = io.BytesIO()
    try:
        torch.save(_without_tensors(state), buffer)
    except Exception as error:
        # whatever pickling an object raises
        return f"what cannot be written ({' '.join(str(error).split())})"
    try:
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except UnpicklingError:
        names = get_unsafe_globals_in_checkpoint(io.BytesIO(buffer.getvalue()))
        return ", ".join(names) or "objects of other classes"
    return None


def _without_tensors(state: Any) -> Any:
    """A state with None for its tensors, so that little is written."""
    if isinstance(state, torch.Tensor):
        return None
    if type(state) in (dict, OrderedDict):
        return {key: _without_tensors(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return [_without_tensors(value) for value in state]
    return state


def random_states() -> dict[str, Any]:
    """The states of all generators as tensors and plain lists."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
