"""Whether a table of the user's own is of classes or of numbers: the file says it, before Hydra composes."""

import sys

from common.runs.evidence import key_of

CHOICES = {"tabular_classification": "table", "regression": "table_regression"}


def with_table_kind(words: list[str]) -> list[str]:
    """The words, with the kind of `dataset=table` found from its target where no word says it.

    Everything else follows from a data set's choice (which papers take it, by which model), so a table of
    numbers is another choice, `table_regression`.

    Raises:
        UserError: the file cannot be read, or has no such target.
    """
    given = {key_of(word): word.split("=", 1)[1].strip("'\"") for word in words if "=" in word}
    path, kind = given.get("dataset.path"), given.get("dataset.kind")
    if given.get("dataset") not in CHOICES.values():
        return words
    if kind is None and given["dataset"] == "table" and path and not set(",(") & set(path):
        kind = _kind_of(path, given)
        words = [*words, f"dataset.kind={kind}"]
    choice = CHOICES.get(kind or "", given["dataset"])
    return [f"dataset={choice}" if key_of(word) == "dataset" else word for word in words]


def _kind_of(path: str, given: dict[str, str]) -> str:
    from common.data.tables.sheet import is_regression, sheet

    found = sheet(path, given.get("dataset.target", "-1"), (), given.get("dataset.encoding", "utf-8"))
    if not is_regression(found.target):
        return "tabular_classification"
    print(
        f"dataset=table: the target {found.target_name!r} is taken as a number, for regression "
        "(dataset.kind=tabular_classification takes it as classes)",
        file=sys.stderr,
    )
    return "regression"
