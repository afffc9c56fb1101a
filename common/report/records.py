"""Which recorded results a report shows, and which are orphans that nothing leads to."""

from collections.abc import Iterator
from typing import Any

from common.claims.arena import runs_of
from common.report.model import Report
from common.runs.evidence import Evidence


def orphans(report: Report, evidence: Evidence) -> list[str]:
    """The keys of results that stand behind no row of a table, no claim and no arena.

    Nor are they runs that one of those needed first (a teacher, a network to start from).

    Args:
        report: of all papers, built from the same evidence.
    """
    by_run = {id(result): key for key, result in evidence.by_key.items()}
    shown = {by_run[id(run)] for run in _runs(report, evidence)}
    waiting = list(shown)
    while waiting:
        needed = set(_stages(evidence.by_key[waiting.pop()]["stages"])) & evidence.by_key.keys()
        waiting += needed - shown
        shown |= needed
    return sorted(evidence.by_key.keys() - shown)


def _runs(report: Report, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The runs of all rows, claims and arenas."""
    for paper in report.papers:
        for table in paper.tables:
            for row in table.rows:
                for runs in row.runs.values():
                    yield from runs
    asked = [run.words for paper in report.papers for claim, _ in paper.claims for run in claim.all_runs()]
    asked += [words for arena, _ in report.arenas for words in runs_of(arena)]
    for words in asked:
        result = evidence.find(words)
        if result is not None:
            yield result


def _stages(stages: dict[str, Any]) -> Iterator[str]:
    """The keys of the runs that a run needed, and of those that these did."""
    for stage in stages.values():
        yield stage["key"]
        yield from _stages(stage.get("stages", {}))
