"""LIBSVM sets: parsed exactly; wrong rows, labels, values, features or checksums are seen."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data import libsvm
from common.data.base import TensorData
from common.data.libsvm import Copy, Facts
from common.runs.errors import UserError

Make = Callable[..., TensorData]

TEXT = "-1 3:1 11:1 123:1\n+1 5:1\n-1\n+1 1:1 2:1\n\n"
TABLE = [[3, 11, 123], [5], [], [1, 2]]
COPY = "0 3:1 11:1 123:1\n1 5:1\n0\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with an a9a of four rows; a copy without the last row is known."""
    monkeypatch.setitem(libsvm.FACTS, "a9a", Facts(4, 123, None))
    monkeypatch.setitem(libsvm.FACTS, "a9a.t", Facts(3, 123, 1))
    monkeypatch.setitem(libsvm.COPIES, "a9a", Copy(len(COPY), hashlib.md5(COPY.encode()).hexdigest(), 3))
    folder = tmp_path / "libsvm"
    folder.mkdir()
    (folder / "a9a").write_text(TEXT)
    return folder


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("labels", [("-1", "+1"), ("0", "1"), ("1", "2")])
def test_rows_are_read_exactly_whatever_the_label_convention(
    make: Make, small: Path, labels: tuple[str, str]
) -> None:
    lines = [line.split(" ", 1) for line in TEXT.splitlines() if line]
    text = "".join(" ".join([labels[row[0] == "+1"], *row[1:]]) + "\n" for row in lines)
    (small / "a9a").write_text(text)
    data = make("a9a")
    data.setup()
    expected = torch.zeros(4, 123)
    for row, columns in enumerate(TABLE):
        expected[row, [column - 1 for column in columns]] = 1
    assert torch.equal(data.train.inputs, expected)
    assert data.train.targets is not None and data.train.targets.tolist() == [0, 1, 0, 1]


DAMAGES = {
    "a row less": (TEXT.replace("+1 1:1 2:1\n", ""), "3 rows instead of 4"),
    "cut in a row": (TEXT[:-6], "it ends within a row"),
    "a third label": (TEXT.replace("-1\n", "3\n"), "labels other than"),
    "a value": (TEXT.replace("5:1", "5:2"), "values other than 1"),
    "not a number": (TEXT.replace("5:1", "5:nan"), "values other than 1"),
    "a feature too many": (TEXT.replace("123:1", "124:1"), "n_features"),
    "unsorted": (TEXT.replace("11:1", "2:1"), "sorted"),
    "rubbish": ("<html>not here</html>\n", ""),
    "binary": ("\x00\x01\x02\n", ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_is_wrong(make: Make, small: Path, damage: str) -> None:
    text, words = DAMAGES[damage]
    (small / "a9a").write_text(text)
    message = refusal(make("a9a").setup)
    assert f"{small}/a9a is damaged (" in message and words in message
    assert f"put a9a into {small}" in message and "dataset=digits" in message


def test_a_damaged_file_is_fetched_again(
    make: Make, small: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "a9a").write_text(TEXT)
    (small / "a9a").write_text(TEXT[:-20])
    monkeypatch.setattr(libsvm, "URL", server.url)
    make("a9a").setup()
    assert server.requests == ["/a9a"] and (small / "a9a").read_text() == TEXT


def test_a_downloaded_file_that_changes_later_is_seen(
    make: Make, small: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "a9a").write_text(TEXT)
    (small / "a9a").unlink()
    monkeypatch.setattr(libsvm, "URL", server.url)
    make("a9a").setup()
    monkeypatch.setattr(libsvm, "URL", "http://127.0.0.1:9")
    (small / "a9a").write_text(TEXT.replace("5:1", "6:1"))
    assert "md5" in refusal(make("a9a").setup)
    make("a9a", verify=False).setup()


def test_the_short_copy_is_taken_only_if_it_is_the_known_one(make: Make, small: Path) -> None:
    (small / "a9a").write_text(COPY)
    make("a9a").setup()
    (small / "a9a").write_text(COPY.replace("5:1", "6:1"))
    assert "md5" in refusal(make("a9a").setup)
    (small / "a9a").write_text(TEXT.replace("+1 1:1 2:1\n", ""))
    assert "3 rows instead of 4" in refusal(make("a9a").setup)


def test_a_wrong_number_of_positive_labels_is_seen(make: Make, small: Path) -> None:
    (small / "a9a.t").write_text("1 1:1\n1 2:1\n0 3:1\n")
    data = make("a9a")
    data.setup()
    assert "2 positive labels instead of 1" in refusal(lambda: data.test)


def test_a_missing_test_file_matters_only_when_it_is_used(make: Make, small: Path) -> None:
    data = make("a9a")
    data.setup()
    data.batch("train", slice(0, 2), augment=False)
    message = refusal(lambda: data.test)
    assert f"{small}/a9a.t is missing" in message and "dataset=digits" in message


def test_mushrooms_file_is_preferred_to_the_pair(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(libsvm.FACTS, "mushrooms", Facts(10, 112, None))
    monkeypatch.setattr(libsvm.Mushrooms, "TEST_SIZE", 2)
    folder = tmp_path / "libsvm"
    folder.mkdir()
    (folder / "mushrooms").write_text("".join(f"{1 + row % 2} {row + 1}:1 112:1\n" for row in range(10)))
    (folder / "agaricus.txt.train").write_text("rubbish")
    (folder / "agaricus.txt.test").write_text("rubbish")
    data = make("mushrooms")
    data.setup()
    assert data.shape == (112,) and (data.size("train"), data.size("test")) == (8, 2)
    assert data.train.targets is not None and data.train.targets.bincount().tolist() == [4, 4]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "rows", "positives", "ones"),
    [("a9a", (32_560, 32_561), 7_841, (451_578, 451_592)), ("w8a", (49_749,), 1_479, (579_586,))],
)
def test_real_training_sets_are_whole(
    make: Make,
    need: Callable[[str], Path],
    name: str,
    rows: tuple[int, ...],
    positives: int,
    ones: tuple[int, ...],
) -> None:
    data = make(name, data_dir=str(need(f"libsvm/{name}").parent.parent))
    data.setup()
    assert len(data.train) in rows and data.train.inputs.shape[1:] == data.shape
    assert data.train.targets is not None and data.train.targets.sum() == positives
    assert data.train.inputs.sum() in ones and data.train.inputs.max() == 1


@pytest.mark.real_data
def test_real_a9a_test_set_is_whole(make: Make, need: Callable[[str], Path]) -> None:
    data = make("a9a", limit=100, data_dir=str(need("libsvm/a9a.t").parent.parent))
    data.setup()
    assert data.test is not None and data.test.targets is not None
    assert data.test.inputs.shape == (16_281, 123) and data.test.targets.sum() == 3_846


@pytest.mark.real_data
def test_real_mushrooms_have_libsvms_112_features_and_a_stratified_holdout(
    make: Make, need: Callable[[str], Path]
) -> None:
    data = make("mushrooms", data_dir=str(need("libsvm/agaricus.txt.train").parent.parent))
    data.setup()
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    assert data.train.inputs.shape == (6_499, 112) and data.test.inputs.shape == (1_625, 112)
    assert int(data.train.targets.sum() + data.test.targets.sum()) == 3_916
    assert abs(data.test.targets.sum() - 3_916 / 5) < 1
    # one value of each of 21 attributes
    assert set(data.train.inputs.sum(1).tolist()) == {21.0}


@pytest.mark.real_data
def test_one_changed_byte_in_a_real_file_is_seen(
    make: Make, need: Callable[[str], Path], tmp_path: Path
) -> None:
    content = bytearray(need("libsvm/w8a").read_bytes())
    place = content.index(b" 54:1")
    content[place + 2 : place + 3] = b"3"
    (tmp_path / "libsvm").mkdir()
    (tmp_path / "libsvm" / "w8a").write_bytes(content)
    assert "md5" in refusal(make("w8a").setup)
