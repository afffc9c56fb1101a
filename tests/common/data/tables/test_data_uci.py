"""UCI's regression tables: small files in the makers' form, and the real ones."""

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from common.base.errors import UserError
from common.data.shared.download import DamagedError
from common.data.tables.uci import Blog, Facts, Indoor, Naval, News, Protein, Slice, UciTable, parse

OPTIONS: dict[str, Any] = {
    "kind": "regression", "seed": 0, "source": "real", "limit": None, "validation": 0.25,
    "normalise": "standard", "verify": True, "batch_size": 256, "positive": None,
}  # fmt: skip
ALL: list[type[UciTable]] = [Blog, Indoor, Naval, News, Protein, Slice]


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.NAME)
def test_facts_agree_and_random_rows_have_the_shape(table: type[UciTable]) -> None:
    facts = table.FACTS
    assert len(facts.inputs) == table.SHAPE[0] and facts.target not in facts.inputs
    assert facts.rows == table.TRAIN_SIZE + table.TEST_SIZE
    assert round(0.2 * facts.rows) == table.TEST_SIZE
    data = table(**{**OPTIONS, "data_dir": "nowhere", "source": "synthetic", "limit": 40})
    data.setup()
    inputs, targets = data.batch("train", slice(0, 5), augment=False)
    assert inputs.shape == (5, *table.SHAPE) and targets is not None


def small(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).round(4)


def test_archives_are_read_member_by_member_and_text_left_out(tmp_path: Path) -> None:
    table = small(5, 3)
    facts = Facts("x/a.zip", ("first.csv", "part*.csv"), None, 5, 4, target=3, words=(0,))
    lines = [",".join(["http://a,b"[:6], *map(str, row)]) for row in table]
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deep/first.csv", "\n".join(["url, x, y, z", *lines[:2]]))
        archive.writestr("deep/part-2.csv", "\n".join(["url, x, y, z", *lines[3:]]))
        archive.writestr("deep/part-1.csv", "\n".join(["url, x, y, z", lines[2]]))
    np.testing.assert_array_equal(parse(path, facts)[:, 1:], table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2\n3 4\n", "2 rows instead of 3"),
        ("1 2\n3 x\n5 6\n", "x"),
        ("1 2\n3 nan\n5 6\n", "not finite"),
        ("1\n2\n3\n", "column"),
    ],
)
def test_a_damaged_file_is_seen(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DamagedError, match=said):
        parse(path, Facts("a.txt", (), None, 3, 2, target=1, separator=None, header=0))
    broken = tmp_path / "a.zip"
    broken.write_bytes(b"PK no archive")
    with pytest.raises(DamagedError, match="broken archive"):
        parse(broken, Facts("a.zip", ("b.csv",), None, 3, 2, target=1))


class Tiny(UciTable):
    """Ten rows."""

    NAME: ClassVar = "tiny"
    SHAPE: ClassVar = (2,)
    TRAIN_SIZE: ClassVar = 8
    TEST_SIZE: ClassVar = 2
    FACTS: ClassVar = Facts("tiny.csv", (), None, 10, 3, target=0)


def test_rows_are_held_out_once_and_all_columns_stand_in_their_places(tmp_path: Path) -> None:
    table = small(10, 3)
    (tmp_path / "uci").mkdir()
    np.savetxt(tmp_path / "uci" / "tiny.csv", table, delimiter=",", header="a,b,c", fmt="%.4f")
    data = Tiny(**{**OPTIONS, "data_dir": str(tmp_path), "validation": 0.0})
    parts = [data.read(part) for part in ("train", "test")]
    rows = torch.cat([torch.cat([p.targets[:, None], p.inputs], 1) for p in parts if p.targets is not None])
    order = np.argsort(table[:, 0])
    np.testing.assert_allclose(rows[rows[:, 0].argsort()], table[order], rtol=1e-6)
    assert list(data.sources()) == ["uci/tiny"]


def test_a_missing_file_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.data.shared import download

    def unreachable(url: str, path: Path) -> None:
        raise download.FetchError("no connection")

    monkeypatch.setattr(download, "fetch", unreachable)
    with pytest.raises(UserError, match=r"put UCI CBM Dataset.zip into .*uci"):
        Naval(**{**OPTIONS, "data_dir": str(tmp_path)}).setup()


@pytest.mark.real_data
@pytest.mark.parametrize("table", [Protein, Naval], ids=lambda table: table.NAME)
def test_the_real_tables(table: type[UciTable], data_dir: Path) -> None:
    data = table(**{**OPTIONS, "data_dir": str(data_dir)})
    if not data.path.exists():
        pytest.skip(f"no {data.path.name}")
    data.setup()
    assert data.size("test") == table.TEST_SIZE
    assert data.size("train") + data.size("validation") == table.TRAIN_SIZE
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None and abs(float(targets.mean())) < 1e-3
    assert float(targets.std()) == pytest.approx(1.0, abs=1e-3)
    varied = inputs.std(0) > 0
    np.testing.assert_allclose(inputs.std(0)[varied], 1.0, atol=2e-3)
