"""`compare.py`: any runs as one row a method, with what is significantly best, and as curves with bands."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.base.files import whole
from common.metrics.direction import Direction
from common.report.selection import select
from common.runs.evidence import Evidence, folders_of
from common.tables.tables import unknown

if TYPE_CHECKING:
    from pandas import DataFrame

    from common.report.comparison import Comparison

HELP = """\
Compare runs: one row a method, its mean and interval over seeds; the best is marked where it is sure.

  python compare.py                                          the newest sweep
  python compare.py paper=yogi dataset=digits                all runs that have these words, recorded ones too
  python compare.py outputs/sweeps/* metric=test_error       sweeps, or any folders of runs
  python compare.py 'yogi.ae_small.*' metric=test_loss       the runs of entries
  python compare.py 'Ours: import=my.py' 'Adam: method=optimizer/adam' paper=yogi dataset=digits
  python compare.py paper=yogi dataset=digits,mnist into=table.tex,numbers.csv
  python compare.py paper=yogi dataset=digits curve=running_loss x=epoch into=loss.pdf,loss.svg

Which runs:
  KEY=VALUE                 those that have it (KEY=A,B: one of several; KEY!=VALUE: those that do not)
  'KEY=VALUE KEY=VALUE'     those that have all of them; several such: those of any of them
  PATH                      a folder of runs, of a sweep or of outputs elsewhere, or a result.json
  PAPER.TABLE.ROW           those of entries, with * and ?
  'NAME: ...'               any of these, with a name for their row

What of them:
  metric=test_loss          one or several (test_error,test_loss); what the runs' table has, or is usual
  better=lower              or higher, where the metric's table and name do not say (or METRIC:lower,...)
  spread=interval           the 95 % t interval of the mean; or std, the standard deviation
  rows=methods              or runs: a line for each run in .csv and .parquet
  curve=running_loss        a curve of the runs, for .svg, .pdf and .png
  x=step                    or epoch, seconds
  log=y                     or x, xy, none: which axes are logarithmic
  into=table.tex,...        files: .csv, .md, .tex (booktabs), .parquet, and of a curve .svg, .pdf, .png
  output_dir=outputs  results_dir=results       where results are read

The best mean is marked only where it differs from every other row with p < 0.05: by a paired t test over
the seeds that both have (three, or all of one), else by Welch's, with Holm's correction over the rows.
Several data sets are columns of their own. In a notebook, with these words, for a pandas data frame:
from common.report.compare import data_frame"""

TABLES = (".csv", ".md", ".tex", ".parquet")
PICTURES = (".svg", ".pdf", ".png")
# words of the command itself
DEFAULTS = {
    "metric": "", "better": "", "spread": "interval", "rows": "methods", "curve": "", "x": "step", "log": "",
    "into": "", "output_dir": "outputs", "results_dir": "results",
}  # fmt: skip
VALID = {
    "spread": ("interval", "std"),
    "rows": ("methods", "runs"),
    "x": ("step", "epoch", "seconds"),
    "log": ("x", "y", "xy", "none"),
}


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: the words that name runs, and the command's own."""

    words: list[str]
    own: dict[str, str]
    metrics: list[str] = field(default_factory=list)
    better: dict[str, Direction] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    return run_or_help(HELP, _compare)


def _compare(words: list[str]) -> None:
    asked = parse(words)
    comparison = compared(asked)
    show(comparison)
    write(comparison, asked)


def data_frame(*words: str) -> "DataFrame":
    """What `compare.py` writes into its CSV, as a pandas data frame: for a notebook.

    Args:
        words: of the command, as `"paper=yogi", "dataset=digits", "metric=test_error"`.

    Raises:
        UserError: a word that is not known, or runs that are not there.
    """
    from common.report import written

    asked = parse(words)
    return written.as_frame(_lines(compared(asked), asked))


def parse(words: Sequence[str]) -> Asked:
    """The command line's words.

    Raises:
        UserError: a wrong one, with the valid ones.
    """
    refuse_options(words)
    own, others = dict(DEFAULTS), []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in DEFAULTS:
            if not value:
                raise UserError(f"{key}= has no value")
            own[key] = value
        else:
            others.append(word)
    for key, valid in VALID.items():
        if own[key] and own[key] not in valid:
            raise UserError(unknown(key, own[key], list(valid)))
    metrics = list(dict.fromkeys(filter(None, own["metric"].split(","))))
    files = [Path(name).expanduser() for name in own["into"].split(",") if name]
    _check_files(files, own)
    return Asked(others, own, metrics, _better(own["better"]), files)


def _check_files(files: Sequence[Path], own: dict[str, str]) -> None:
    for path in files:
        if path.suffix not in (*TABLES, *PICTURES):
            raise UserError(f"into={path}: valid endings: {', '.join([*TABLES, *PICTURES])}")
        if path.suffix in PICTURES and not own["curve"]:
            raise UserError(f"into={path}: a picture shows a curve (valid: curve=running_loss or another)")
        if path.is_dir():
            raise UserError(f"into={path} is a folder")
    if own["curve"] and not any(path.suffix in PICTURES for path in files):
        raise UserError(f"curve={own['curve']} needs a file (valid: into=curve.pdf; {', '.join(PICTURES)})")


def _better(value: str) -> dict[str, Direction]:
    """`higher` for all metrics (as ""), or `test_x:lower,test_y:higher`."""
    found: dict[str, Direction] = {}
    for part in filter(None, value.split(",")):
        metric, _, way = part.rpartition(":")
        if way not in get_args(Direction):
            raise UserError(f"better={part} (valid: higher, lower, or METRIC:higher,METRIC:lower)")
        found[metric] = cast(Direction, way)
    return found


def compared(asked: Asked) -> "Comparison":
    """The comparison that is asked for; what it needs is imported when there are runs to compare."""
    outputs, results = folders_of(asked.own)
    evidence = Evidence.read(outputs, results)
    selection = select(asked.words, evidence, outputs)
    from common.report.comparison import Spread, compare

    return compare(selection, asked.metrics, cast(Spread, asked.own["spread"]), asked.better)


def show(comparison: "Comparison") -> None:
    """Print the table, and below it what stands behind its numbers."""
    from common.base.terminal import console
    from common.report import written

    terminal = console()
    with terminal.capture() as shown:
        terminal.print(written.terminal(comparison))
        for note in written.footnotes(comparison):
            terminal.print(note, markup=False, highlight=False, soft_wrap=True)
    print(printable(shown.get(), sys.stdout.encoding or "ascii"), end="")


def printable(text: str, encoding: str) -> str:
    """The text as far as an encoding has its signs: `+-` for ±, and ? for other strangers."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    return text


def write(comparison: "Comparison", asked: Asked) -> None:
    """Write the files that are asked for, and say which."""
    from common.report import written

    for path in asked.files:
        try:
            if path.suffix in PICTURES:
                from common.report.curves import draw

                draw(comparison, asked.own["curve"], asked.own["x"], asked.own["log"] or None, path)
            elif path.suffix == ".parquet":
                written.write_parquet(_lines(comparison, asked), path)
            else:
                with whole(path) as partial:
                    partial.write_text(_text(comparison, asked, path.suffix), encoding="utf-8")
        except OSError as error:
            raise UserError(f"into={path}: it cannot be written ({error.strerror})") from error
        print(f"written: {path}")


def _text(comparison: "Comparison", asked: Asked, ending: str) -> str:
    from common.report import written

    if ending == ".csv":
        return written.as_csv(_lines(comparison, asked))
    return written.markdown(comparison) if ending == ".md" else written.latex(comparison)


def _lines(comparison: "Comparison", asked: Asked) -> list[dict[str, Any]]:
    from common.report import written

    return written.run_records(comparison) if asked.own["rows"] == "runs" else written.records(comparison)
