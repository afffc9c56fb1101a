"""What all sets of text take and check alike: running text, pairs of sentences, tagged sentences."""

from pathlib import Path
from typing import ClassVar, TypedDict

from common.base.dataset import DataSet, Source, check


class TokenOptions(TypedDict):
    """The constructor arguments that all sets of text share, for subclasses that add their own to them."""

    kind: str
    data_dir: str
    source: Source
    limit: int | None
    verify: bool
    batch_size: int


class TokenData(DataSet):
    """A set of text.

    Subclasses state what they count (`COUNTED`), and the fewest of these that can be trained on.

    Args:
        kind: must be the set's own (`KIND`).
        data_dir: the folder of its files.
        source: "real", or "synthetic" for random words without any file.
        limit: train on so many of what is counted; null for all.
        verify: whether checksums or sizes of published files are compared.
        batch_size: of training, in what the set counts for a step; at least 1.

    Raises:
        UserError: a value out of range.
    """

    COUNTED: ClassVar[str]
    LEAST: ClassVar[int] = 1

    def __init__(
        self, *, kind: str, data_dir: str, source: Source, limit: int | None, verify: bool, batch_size: int
    ) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        enough = limit is None or limit >= self.LEAST
        check("limit", limit, enough, f"give at least {self.LEAST} {self.COUNTED}, or null for all")
        check("batch_size", batch_size, batch_size >= 1, "give at least 1")
        self.data_dir = Path(data_dir).expanduser()
        self.source, self.limit, self.verify, self.batch_size = source, limit, verify, batch_size
