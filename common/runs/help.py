"""What `run.py --help` prints: all that there is in two screens, and more of a paper or a choice."""

import os
import shutil
import textwrap
from collections.abc import Iterable
from itertools import groupby

from common.runs import catalogue
from common.tables.tables import papers

EXAMPLES = """Reprise: every entry of every table by one override string.

  python run.py paper=spider dataset=cifar10                a paper on a data set
  python run.py entry=yogi.table_ae.mnist_yogi              one entry of one table
  python run.py entry=yogi.table_ae.mnist_yogi scale=laptop the same, shrunk to minutes
  python run.py -m 'entry=glob(spider.saddle_escape.*)' seed=0,1,2 hydra/launcher=joblib

  python run.py --help paper=yogi                           what goes with a paper, and its keys
  python run.py --help dataset=table                        a data set, a model, a method: its keys
  make -s entries                                           the names of all entries
  python run.py paper=yogi --cfg job                        every key that can be set, with its value"""

ALSO = """Also: seed=0  data_dir=data  output_dir=outputs  force=true  checkpoint_every=10 (seconds)
  import=my_module   classes of your own: docs/bring_your_own.md
  start=... clip=1.0 from another run's network; gradients no longer than that
  ema=0.999          judges the moving average of the weights
  pause=0.5          stops a run halfway; without it the same command goes on
  test_limit=1000    validates and tests on so many examples
Sweeps: hydra/launcher=joblib|submitit_local|submitit_slurm|ray; hydra/sweeper=optuna objective=...
A finished command shows its result; an interrupted one goes on from its last checkpoint."""

# the kinds of methods and of data sets have a line each
BY_KIND = ("dataset", "method")


def help_text(words: list[str]) -> str:
    """All that there is, or what the words choose: `paper=yogi`, `dataset=table`, `method=pruning/dcp`.

    Raises:
        UserError: an unknown choice.
    """
    chosen = [word for word in words if word.partition("=")[0] in catalogue.GROUPS and "=" in word]
    catalogue.check_choices(chosen)
    if not chosen:
        return _overview()
    parts = [word.split("=", 1) for word in chosen]
    return "\n\n".join(_paper(name) if group == "paper" else _choice(group, name) for group, name in parts)


def _overview() -> str:
    lines = [EXAMPLES, "", "Papers (paper=):"]
    for paper in papers():
        count = len(catalogue.runnable(paper))
        lines.append(_cut(f"  {paper:<16} {count:>4} entries  {catalogue.describe('paper', paper)}"))
    for group in catalogue.GROUPS[1:]:
        lines += ["", f"{group}="]
        lines += _by_kind(group) if group in BY_KIND else _wrapped(catalogue.names(group), "  ")
    return "\n".join([*lines, "", ALSO])


def _by_kind(group: str) -> list[str]:
    """The names of a group, kind by kind: methods by their folder, data sets by what is to be learned."""

    def kind(name: str) -> str:
        return name.split("/")[0] if group == "method" else str(catalogue.read(group, name)["kind"])

    lines: list[str] = []
    for one, names in groupby(sorted(catalogue.names(group), key=kind), kind):
        lines += [f"  {one}:", *_wrapped(names, "    ")]
    return lines


def _paper(paper: str) -> str:
    """What goes with a paper: its tables, data sets and methods, and its file with its keys."""
    kinds = catalogue.read("paper", paper)["accepts"]["methods"]
    entries = catalogue.runnable(paper)
    lines = [f"paper={paper}: {catalogue.describe('paper', paper)}", "", f"{len(entries)} entries (entry=):"]
    for table, found in groupby((entry.name for entry in entries), lambda name: name.rpartition(".")[0]):
        names = list(found)
        lines.append(_cut(f"  {len(names):>4} of {table}, as {names[0]}"))
    lines += ["", "dataset=", *_wrapped(catalogue.accepted_datasets(paper), "  ")]
    methods = [name for name in catalogue.names("method") if name.split("/")[0] in kinds]
    return "\n".join([*lines, "", "method=", *_wrapped(methods, "  "), "", _file("paper", paper)])


def _choice(group: str, name: str) -> str:
    return f"{group}={name}: {catalogue.describe(group, name)}\n\n{_file(group, name)}"


def _file(group: str, name: str) -> str:
    """A config file as it stands, with its comments."""
    path = catalogue.in_roots(f"conf/{group}/{name}.yaml")
    return f"conf/{group}/{name}.yaml:\n{textwrap.indent(path.read_text().rstrip(), '  ')}"


def _wrapped(names: Iterable[str], indent: str) -> list[str]:
    text = ", ".join(names)
    return textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )


def _cut(line: str) -> str:
    """A line that a terminal has room for; whole where no terminal reads it."""
    return line[: _width()] if os.isatty(1) else line


def _width() -> int:
    return min(shutil.get_terminal_size((110, 24)).columns, 110)
