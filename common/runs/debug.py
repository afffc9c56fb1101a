"""Debug runs (`debug=overfit|profile|one_step`): a batch learnt by heart, where time goes, a single step."""

import os
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.profiler import ProfilerActivity, profile, schedule

from common.base.dataset import Batch
from common.base.errors import UserError
from common.base.module import PaperModule
from common.training.supervised import SupervisedModule

# operations in the profiler's table
ROWS = 40


class Debug(pl.Callback):
    """Makes a run of a few steps out of a run of supervised training, and says what came of it.

    Everything else is the run's own: its data, network, method and schedule, which spans these steps. Nothing
    is evaluated at the end, and no result of a debug run counts as one (`common.runs.evidence`).

    Args:
        steps: how many are made, whatever the paper's budget.
        one_batch: all steps see the first batch, as it was cropped, flipped and normalised for the first.
        profile_from: steps before the first that torch's profiler sees; null: it sees none.

    Raises:
        UserError: steps below 1, or `profile_from` not from 1 to steps - 1.
    """

    def __init__(self, *, steps: int, one_batch: bool, profile_from: int | None) -> None:
        if steps < 1:
            raise UserError(f"debug.steps={steps}: must be at least 1")
        if profile_from is not None and not 1 <= profile_from < steps:
            raise UserError(
                f"debug.profile_from={profile_from}: must be from 1 to {steps - 1}, below debug.steps"
            )
        self.steps, self.one_batch, self.profile_from = steps, one_batch, profile_from
        self.losses: list[float] = []
        self.examples = 0
        self.label = ""
        self.directory = Path()
        self.profiler: profile | None = None

    def attach(self, module: PaperModule, label: str, directory: Path) -> None:
        """Let a module make these steps.

        Args:
            module: one that `check_module` lets pass.
            label: of the run, for what is said.
            directory: the run's folder, for what the profiler writes.
        """
        if not isinstance(module, SupervisedModule):
            raise UserError(f"debug: {type(module).__name__} takes no minibatch steps (valid: debug=none)")
        self.label, self.directory = label, directory
        module.debug_steps = self.steps
        whole = module.data.ready
        first: list[Batch] = []

        def ready(item: Any) -> Batch:
            batch = first[0] if self.one_batch and first else whole(item)
            first[:] = first or [batch]
            self.examples = len(batch[0])
            return batch

        module.data.ready = ready  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.profile_from is None:
            return
        activities = [ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        seen = schedule(wait=0, warmup=self.profile_from, active=self.steps - self.profile_from, repeat=1)
        # else it tells of its start and end on stderr
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self.profiler = profile(activities=activities, schedule=seen, on_trace_ready=self._write)
        self.profiler.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SupervisedModule) and pl_module.last_loss is not None
        self.losses.append(pl_module.last_loss)
        pl_module.record(pl_module.steps, loss=pl_module.last_loss)
        # a step a block, so that each has its loss and its place in the profile
        pl_module.loader.block = 1
        if self.profiler is not None:
            self.profiler.step()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _written(self) -> tuple[Path, Path]:
        return self.directory / "profile.txt", self.directory / "trace.json"

    def _write(self, profiler: profile) -> None:
        """Write the profiler's table, the most expensive operations first, and its trace."""
        gpu = ProfilerActivity.CUDA in profiler.activities
        by = "self_cuda_time_total" if gpu else "self_cpu_time_total"
        table, trace = self._written()
        table.write_text(profiler.key_averages().table(sort_by=by, row_limit=ROWS))
        profiler.export_chrome_trace(str(trace))

    def results(self) -> dict[str, Any]:
        """The metrics of a debug run: the losses before its first and its last step, and how many it made."""
        print(f"[{self.label}] {self._words()}", file=sys.stderr)
        return {"first_loss": self.losses[0], "last_loss": self.losses[-1], "steps": len(self.losses)}

    def _words(self) -> str:
        first, last = self.losses[0], self.losses[-1]
        if self.one_batch:
            halved = (
                ""
                if last <= first / 2
                else " (not half of it: look at the network, the loss and the step size)"
            )
            return (
                f"one batch of {self.examples} examples: loss {first:.4g}, after {self.steps} steps "
                f"{last:.4g}{halved}"
            )
        if self.profile_from is not None:
            table, trace = self._written()
            return (
                f"profile of {self.steps - self.profile_from} steps: {table} (table), "
                f"{trace} (trace, for ui.perfetto.dev)"
            )
        return f"{self.steps} step{'s' * (self.steps > 1)} on {self.examples} examples: loss {last:.4g}"


def check_debug(preset: str, module: Any, record: bool, several: bool) -> None:
    """Refuse a debug run that cannot be one.

    Args:
        preset: the choice of `debug`.
        module: the class of the paper's module.
        record: whether its result is to be kept as evidence.
        several: whether several processes are to make it.

    Raises:
        UserError: see above.
    """
    if not (isinstance(module, type) and issubclass(module, SupervisedModule)):
        raise UserError(
            f"debug={preset}: {module.__name__} does not train a network by minibatches "
            "(valid: papers that do, as paper=yogi)"
        )
    if record:
        raise UserError(f"record=true: a run with debug={preset} is no evidence (valid: record=false)")
    if several:
        raise UserError(
            f"debug={preset}: one process makes a debug run (valid: trainer=auto, trainer=cpu or trainer=gpu)"
        )
