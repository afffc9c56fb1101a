"""`report.py`: what the papers report beside what was measured, as a site, in the terminal, or on W&B."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.command import run_or_help
from common.base.errors import UserError
from common.runs.evidence import Evidence, folders_of
from common.tables.tables import papers, unknown

if TYPE_CHECKING:
    from common.report.model import Report

HELP = """Reprise: what the papers report, what was measured, and whether their claims hold.

  python report.py                     all papers, as a static site in report/ (open report/index.html)
  python report.py paper=yogi          one paper (paper=spider,yogi: two)
  python report.py to=terminal         tables in the terminal
  python report.py to=wandb            a W&B report of each paper (needs a login)
  python report.py to=pages            what README and the papers' pages show of the committed results

Also: into=DIR (the site's folder)  output_dir=outputs  results_dir=results (where results are read)"""

DEFAULTS = {"paper": "", "to": "html", "into": "report", "output_dir": "outputs", "results_dir": "results"}


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    return run_or_help(HELP, _report)


def _report(words: list[str]) -> None:
    given = parse(words)
    wanted = [name.strip() for name in given["paper"].split(",")] if given["paper"] else papers()
    for name in wanted:
        if name not in papers():
            raise UserError(unknown("paper", name, papers()))
    target = TARGETS[given["to"]]
    if given["to"] == "pages" and given["paper"]:
        raise UserError("paper=: committed pages show all papers (valid: to=pages alone)")
    if given["to"] == "html":
        # what can be written nowhere is not worth a minute of work
        Path(given["into"]).expanduser().mkdir(parents=True, exist_ok=True)
    from common.report.model import build

    runs, recorded = folders_of(given)
    # committed pages show what is committed, and no run that was made here
    evidence = Evidence.read(recorded / "none" if given["to"] == "pages" else runs, recorded)
    evidence.say_replaced()
    # the front page of the site, and the committed pages, count over all papers
    report = build(evidence, None if given["to"] in ("html", "pages") else wanted)
    for fault in report.refused.values():
        if given["to"] == "pages":
            # what is committed is not to lose an arena
            raise UserError(fault)
        print(f"without an arena: {fault}", file=sys.stderr)
    if given["to"] == "html":
        from common.report.own import own_sections
        from common.report.searches import searches

        report = replace(report, searches=tuple(searches(evidence)), own=tuple(own_sections(evidence)))
    target(report, wanted, Path(given["into"]).expanduser())


def parse(words: list[str]) -> dict[str, str]:
    """The command line's words by key, with the defaults.

    Raises:
        UserError: an unknown word or value, with the valid ones.
    """
    given = dict(DEFAULTS)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in DEFAULTS:
            raise UserError(unknown("word", key, list(DEFAULTS)).replace("word=", "word ", 1))
        if not value:
            raise UserError(f"{key}= has no value")
        given[key] = value
    if given["to"] not in TARGETS:
        raise UserError(unknown("to", given["to"], list(TARGETS)))
    return given


def _html(report: "Report", wanted: list[str], into: Path) -> None:
    from common.report.site import write

    print(f"report: {write(report, into, wanted)}")


def _terminal(report: "Report", wanted: list[str], into: Path) -> None:
    from common.report.terminal import show

    show(report, wanted)


def _wandb(report: "Report", wanted: list[str], into: Path) -> None:
    from common.report.wandb_report import publish

    print(f"report: {publish([report.paper(name) for name in wanted])}")


def _pages(report: "Report", wanted: list[str], into: Path) -> None:
    from common.report.pages import write

    changed = write(report)
    print(f"written: {', '.join(map(str, changed))}" if changed else "all pages are as the results say")


TARGETS: dict[str, Callable[["Report", list[str], Path], None]] = {
    "html": _html,
    "terminal": _terminal,
    "wandb": _wandb,
    "pages": _pages,
}
