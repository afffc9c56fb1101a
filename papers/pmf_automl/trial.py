"""One pipeline, cross-validated or fitted in a process of its own, within limits of time and memory."""

import contextlib
import io
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from papers.pmf_automl.pipelines import Description, built

Array = np.ndarray

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1 << 20
# how long a process that is told to stop may take for it
GRACE = 2.0
# that a process may take to begin
SERVER_SECONDS = 120.0


@dataclass(frozen=True)
class Table:
    """What pipelines are trained on, as files that processes share.

    Attributes:
        folder: holds X.npy [n, p], y.npy [n], words.npy [p] and folds.npy [n] (the fold of each row).
        classes: how many; None for regression.
        seed: of what is random in a pipeline.
    """

    folder: Path
    classes: int | None
    seed: int

    def part(self, name: str) -> Array:
        """One of the files, read as it is asked for."""
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        predictions: out of fold, [n]; None where it failed, or of a fit.
        why: it failed; None where it has not.
        seconds: it took.
    """

    predictions: Array | None
    why: str | None
    seconds: float


def cross_validated(table: Table, description: Description) -> Array:
    """Predictions for each row by the pipeline fitted on the other folds, [n].

    Where those are of one class, as where a rare one stands in a single fold, it is that class.
    """
    X, y, words, folds = (table.part(name) for name in ("X", "y", "words", "folds"))
    found = np.empty(len(y), dtype=y.dtype)
    for fold in np.unique(folds):
        test = folds == fold
        if table.classes is not None and len(np.unique(y[~test])) == 1:
            found[test] = y[~test][0]
            continue
        pipeline = built(description, table.classes is not None, words, int((~test).sum()), table.seed)
        found[test] = pipeline.fit(X[~test], y[~test]).predict(X[test])
    if not np.isfinite(found).all():
        raise ValueError("predictions that are not finite")
    return found


def fitted(table: Table, description: Description, rows: Array | None, path: Path | None) -> Array | None:
    """Fit a pipeline, save it, or predict the rows that it was not fitted on.

    Args:
        rows: which it is fitted on, bool [n]; None: all. path: where it is saved, by skops; None: nowhere.

    Returns:
        The predictions of the other rows; None where there are none.
    """
    X, y, words = (table.part(name) for name in ("X", "y", "words"))
    rows = np.ones(len(y), bool) if rows is None else rows
    pipeline = built(description, table.classes is not None, words, int(rows.sum()), table.seed)
    pipeline.fit(X[rows], y[rows])
    if path is not None:
        # takes seconds to import; the server that processes are copied from has it
        import skops.io

        skops.io.dump(pipeline, path)
    return None if rows.all() else np.asarray(pipeline.predict(X[~rows]))


def start_server() -> None:
    """Start the server that new processes are copies of, if it is not running; it takes seconds to import."""
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(["papers.pmf_automl.trial", "skops.io"])
    # one thread each: processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with _bare_start():
        forkserver.ensure_running()


class Trial:
    """A process that works on one pipeline.

    Args:
        table, description: see above.
        seconds: it may take. memory: bytes that it may take beside what it begins with.
        fit: rows and path of `fitted`; None: it is cross-validated.
    """

    def __init__(
        self,
        table: Table,
        description: Description,
        seconds: float,
        memory: int,
        fit: tuple[Array | None, Path | None] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        start_server()
        self.seconds, self.began = seconds, time.perf_counter()
        self.begun = False
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_work, args=(sender, table, description, memory, fit), daemon=True
        )
        with _bare_start():
            self.process.start()
        sender.close()

    def outcome(self, wait: float) -> Outcome | None:
        """What came of it, after at most so many seconds; None while it works."""
        # the process's own start does not count
        left = self.seconds - (time.perf_counter() - self.began) if self.begun else SERVER_SECONDS
        if self.receiver.poll(max(min(wait, left), 0.0)):
            try:
                kind, content = self.receiver.recv()
            except EOFError:
                kind, content = "error", "its process ended without a word, as for want of memory"
            if kind == "begun":
                self.begun, self.began = True, time.perf_counter()
                return None
            self.stop()
            spent = time.perf_counter() - self.began
            return Outcome(content, None, spent) if kind == "done" else Outcome(None, content, spent)
        if time.perf_counter() - self.began >= (self.seconds if self.begun else SERVER_SECONDS):
            self.stop()
            return Outcome(None, f"out of time: not done after {self.seconds:.0f} s", self.seconds)
        return None

    def result(self) -> Outcome:
        """What came of it, once it is done or out of time."""
        while (found := self.outcome(1.0)) is None:
            pass
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.join(0.0)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.receiver.close()


@contextlib.contextmanager
def _bare_start() -> Iterator[None]:
    """Let new processes find this project, and not import the command that started this one."""
    main: Any = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    path = os.environ.get("PYTHONPATH")
    try:
        # the server that new processes are copies of imports what they need once, by this path
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([path] if path else [])])
        if file is not None:
            main.__file__ = None
        main.__spec__ = None
        yield
    finally:
        main.__file__, main.__spec__ = file, spec
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _work(
    sender: Connection,
    table: Table,
    description: Description,
    memory: int,
    fit: tuple[Array | None, Path | None] | None,
) -> None:
    try:
        sender.send(("begun", None))
        _end_with_parent()
        _limit(memory)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # about fits that stopped at their last iteration
            warnings.simplefilter("ignore")
            if fit is None:
                sender.send(("done", cross_validated(table, description)))
            else:
                sender.send(("done", fitted(table, description, *fit)))
    except MemoryError:
        sender.send(("error", f"out of memory: more than {memory / MEGABYTE:.0f} MB"))
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        sender.send(("error", text[:200]))
    finally:
        sender.close()


def _end_with_parent() -> None:
    """End this process as soon as the one that asked for it is gone: nobody would stop it any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limit(memory: int) -> None:
    """Let the process have so many bytes more than it has by now, where the system can say it."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    except (ImportError, OSError, ValueError):
        return
