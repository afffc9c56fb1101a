"""How far a run is, on stderr: a bar with an ETA while it takes steps, and what it does else by name."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ClassVar

import pytorch_lightning as pl
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from common.base.module import PaperModule, Progress
from common.base.names import shortened
from common.base.phases import Phase, innermost, phase

# seconds after which a phase is told, on a terminal and elsewhere, where also so many lie between two lines
SOON = 1.0
LINE_EVERY = 10.0
# seconds between two looks at what is under way
LOOK_EVERY = 0.2
# columns that a bar, its share, its times and a few words take beside the name of the run
BESIDE = 64
# the line that the cursor stands in is emptied
EMPTIED = "\r\x1b[K"


class Narrator:
    """Tells of the phases under way: one changing line on a terminal, a line every 10 s elsewhere.

    A run within a run tells of itself, and the outer one is silent until it is done.

    Args:
        label: of the run.
        terminal: whether stderr is one.
        write: where text goes; by default stderr.
    """

    _active: ClassVar[list["Narrator"]] = []

    def __init__(self, label: str, terminal: bool, write: Callable[[str], Any] | None = None) -> None:
        self.label, self.terminal = label, terminal
        self.write = write or _to_stderr
        # of a bar, which has a terminal for itself while it is shown
        self.bar: Callable[[str], Any] | None = None
        self.last_line = 0.0
        self._shown = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Narrator":
        self._active.append(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._active.remove(self)
        self._empty()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            if self._active[-1] is self:
                self.look(innermost(), time.monotonic())

    def look(self, phase: Phase | None, now: float) -> None:
        """Tell of a phase where it is time to.

        Args:
            phase: that is under way.
            now: by the monotonic clock.
        """
        if self.terminal:
            shown = "" if phase is None or now - phase.started < SOON else str(phase)
            if self.bar is not None:
                self.bar(shown)
            elif shown and phase is not None:
                self.write(f"{EMPTIED}[{self.label}] {shown} ({clock(now - phase.started)})")
                self._shown = True
            else:
                self._empty()
        elif phase is not None and now - max(phase.started, self.last_line) >= LINE_EVERY:
            self.write(f"[{self.label}] {phase}\n")
            self.last_line = now

    def _empty(self) -> None:
        if self._shown:
            self.write(EMPTIED)
            self._shown = False


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class ProgressReport(pl.Callback):
    """How far the run is, how it goes and when it will end: a bar on a terminal, lines elsewhere.

    Args:
        label: of the run.
        stream_is_terminal: whether stderr is one.
        narrator: that tells of phases, by the bar while it is shown; None: nobody does.
    """

    def __init__(self, label: str, stream_is_terminal: bool, narrator: Narrator | None = None) -> None:
        self.label, self.narrator = label, narrator
        self.bar = _bar() if stream_is_terminal else None
        self.task: TaskID | None = None
        self.started = self.last_line = 0.0
        self.done_before: float | None = None
        self._reading = ExitStack()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, PaperModule)
        self._reading.enter_context(phase(f"reading {pl_module.data.NAME}"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PaperModule)
        self._reading.close()
        self.started = time.monotonic()
        self.last_line = self.started - LINE_EVERY + 2.0
        progress = pl_module.progress()
        self.done_before = progress.done
        if progress.done:
            print(f"[{self.label}] goes on at {round_number(progress.done)} {progress.unit}", file=sys.stderr)
        if self.bar is not None:
            self.bar.start()
            room = max(self.bar.console.width - BESIDE, 12)
            name = shortened(self.label, room)
            self.task = self.bar.add_task(name, total=progress.total, text="", eta="ETA ...", phase="")
            if self.narrator is not None:
                self.narrator.bar = self._phase

    def _phase(self, text: str) -> None:
        """Show what is done between two steps."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, phase=text)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        now = time.monotonic()
        interval = 0.1 if self.bar is not None else LINE_EVERY
        if now - self.last_line < interval:
            return
        self.last_line = now
        assert isinstance(pl_module, PaperModule)
        self._show(pl_module, now - self.started)

    def _show(self, module: PaperModule, seconds: float) -> None:
        progress = module.progress()
        made = progress.done - (self.done_before or 0.0)
        left = seconds * max(progress.total - progress.done, 0.0) / made if made > 0 else float("nan")
        eta = f"ETA {clock(left)}"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=progress.done, text=progress.text, eta=eta)
            return
        print(f"[{self.label}] {told(progress, eta)}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PaperModule)
        if self.bar is not None:
            self._show(pl_module, time.monotonic() - self.started)
        self._close()

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        self._reading.close()
        if self.narrator is not None:
            self.narrator.bar = None
        if self.bar is not None:
            self.bar.stop()


def told(progress: Progress, eta: str) -> str:
    """How far a run is, in one line."""
    counted = f"{round_number(progress.done)}/{round_number(progress.total)} {progress.unit}"
    return ", ".join(filter(None, [counted, progress.text, eta]))


def round_number(value: float) -> str:
    """A whole number as it is, any other with three digits, or without decimals from 100 on."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def _bar() -> Bar:
    from rich.console import Console

    columns: list[Any] = [
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        TextColumn("{task.fields[phase]}{task.fields[text]}"),
    ]
    return Bar(*columns, console=Console(stderr=True))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; "unknown" of NaN."""
    if seconds != seconds:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
