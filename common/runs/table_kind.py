"""Whether a table of the user's own is of classes or of numbers: the file says it, before Hydra composes."""

import sys
from itertools import product

from common.base.errors import UserError
from common.runs.evidence import key_of
from common.runs.words import text_of, texts_of

CHOICES = {"tabular_classification": "table", "regression": "table_regression"}


def with_table_kind(words: list[str]) -> list[str]:
    """The words, with the kind of `dataset=table` found from its target where no word says it.

    Everything else follows from a data set's choice (which papers take it, by which model), so a table of
    numbers is another choice, `table_regression`.

    Raises:
        UserError: the file cannot be read, or has no such target.
    """
    given = {key_of(word): word.split("=", 1)[1] for word in words if "=" in word}
    if given.get("dataset") not in CHOICES.values():
        return words
    kind = given.get("dataset.kind")
    if kind is None and given["dataset"] == "table" and given.get("dataset.path"):
        kind = _kind_of(given)
        words = words if kind is None else [*words, f"dataset.kind={kind}"]
    choice = CHOICES.get(text_of(kind or "") or "", given["dataset"])
    return [f"dataset={choice}" if key_of(word) == "dataset" else word for word in words]


def _kind_of(given: dict[str, str]) -> str | None:
    """The kind of all tables and targets that the words name; None for such as they do not list.

    Raises:
        UserError: as `with_table_kind`; or a sweep over targets of both kinds, whose papers, models and
            metrics are others.
    """
    usual = {"path": "", "target": "-1", "encoding": "utf-8"}
    values = [texts_of(given.get(f"dataset.{key}", value)) for key, value in usual.items()]
    jobs = list(product(*values))
    kinds = [_kind_of_target(*job) for job in jobs]
    if len(set(kinds)) > 1:
        named = {kind: " of ".join(reversed(jobs[kinds.index(kind)][:2])) for kind in kinds}
        raise UserError(
            f"a sweep over targets of classes ({named['tabular_classification']}) and of numbers "
            f"({named['regression']}): valid: one command for each kind, or dataset.kind=..."
        )
    return kinds[0] if kinds else None


def _kind_of_target(path: str, target: str, encoding: str) -> str:
    from common.data.tables.sheet import is_regression, sheet

    found = sheet(path, target, (), encoding, "number_silently")
    if not is_regression(found.target):
        return "tabular_classification"
    print(
        f"dataset=table: the target {found.target_name!r} is taken as a number, for regression "
        "(dataset.kind=tabular_classification takes it as classes)",
        file=sys.stderr,
    )
    return "regression"
