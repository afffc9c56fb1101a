"""LIBSVM sets: parsed exactly; wrong rows, labels, values, features or checksums are seen."""

import bz2
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.data.shared.in_memory import TensorData
from common.data.tables import libsvm
from common.data.tables.libsvm import Copy, Facts

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


REAL_TEXT = "-1 1:0.5 22:-0.25\n1 2:1e-3\n-1 \n1 3:7\n" * 5
REAL_TABLE = [{0: 0.5, 21: -0.25}, {1: 1e-3}, {}, {2: 7.0}] * 5


def put(folder: Path, name: str, text: str) -> None:
    (folder / "libsvm").mkdir(exist_ok=True)
    (folder / "libsvm" / name).write_bytes(bz2.compress(text.encode()))


def dense(table: list[dict[int, float]], features: int) -> torch.Tensor:
    expected = torch.zeros(len(table), features)
    for row, values in enumerate(table):
        for column, value in values.items():
            expected[row, column] = value
    return expected


@pytest.fixture
def ijcnn1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ijcnn1 of 20 training rows, real-valued, in bzip2."""
    monkeypatch.setitem(libsvm.FACTS, "ijcnn1.bz2", Facts(20, 22, None, binary=False))
    put(tmp_path, "ijcnn1.bz2", REAL_TEXT)
    return tmp_path


def test_compressed_rows_with_real_values_are_read_exactly(make: Make, ijcnn1: Path) -> None:
    data = make("ijcnn1", normalise="none")
    data.setup()
    assert torch.equal(data.train.inputs, dense(REAL_TABLE, 22))
    assert data.train.targets is not None and data.train.targets.tolist() == [0, 1] * 10


REAL_DAMAGES = {
    "not a number": (REAL_TEXT.replace("7", "nan", 1), "not finite"),
    "too large": (REAL_TEXT.replace("7", "1e99", 1), "not finite"),
    "malformed": (REAL_TEXT.replace("2:1e-3", "2=1e-3", 1), ""),
    "no value": (REAL_TEXT.replace("3:7", "3:", 1), ""),
    "a third label": (REAL_TEXT.replace("-1 ", "2 ", 1), "labels other than"),
    "index 0": (REAL_TEXT.replace("2:1e-3", "0:1", 1), "Invalid index 0"),
    "a feature too many": (REAL_TEXT.replace("22:", "23:", 1), "n_features"),
    "a row less": (REAL_TEXT[: REAL_TEXT.rindex("1 3:7")], "19 rows instead of 20"),
    "one long line": ("x" * 100_000, "could not convert"),
}


@pytest.mark.parametrize("damage", REAL_DAMAGES)
def test_damage_within_a_compressed_file_is_one_short_line(make: Make, ijcnn1: Path, damage: str) -> None:
    text, words = REAL_DAMAGES[damage]
    put(ijcnn1, "ijcnn1.bz2", text)
    message = refusal(make("ijcnn1").setup)
    assert f"{ijcnn1}/libsvm/ijcnn1.bz2 is damaged (" in message and words in message
    assert len(message) < 1_000


@pytest.mark.parametrize("damage", [lambda packed: packed[:-10], lambda packed: b"<html>404</html>" * 9])
def test_a_broken_bzip2_file_is_named(make: Make, ijcnn1: Path, damage: Callable[[bytes], bytes]) -> None:
    path = ijcnn1 / "libsvm" / "ijcnn1.bz2"
    path.write_bytes(damage(path.read_bytes()))
    assert "ijcnn1.bz2 is damaged (broken bzip2: " in refusal(make("ijcnn1").setup)


def test_covtype_has_a_stratified_holdout_and_is_read_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "covtype.libsvm.binary.scale.bz2"
    monkeypatch.setitem(libsvm.FACTS, name, Facts(50, 54, None, binary=False))
    monkeypatch.setattr(libsvm.Covtype, "TEST_SIZE", 10)
    put(tmp_path, name, "".join(f"{1 + row % 2} 1:{row / 50} 54:1\n" for row in range(50)))
    data = make("covtype", normalise="none")
    data.setup()
    (tmp_path / "libsvm" / name).unlink()
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    assert (data.train.targets.bincount().tolist(), data.test.targets.bincount().tolist()) == (
        [20] * 2,
        [5] * 2,
    )
    rows = torch.cat([data.train.inputs, data.test.inputs])[:, 0]
    assert torch.allclose(rows.sort().values, torch.arange(50) / 50)


SPARSE_TABLE = [{0: 0.5, 47_235: -0.25}, {1: 3.0, 2: 4.0}, {}, {7: 7.0}] * 25
SPARSE_TEXT = "".join(
    f"{(-1, 1)[number % 2]} " + " ".join(f"{column + 1}:{value}" for column, value in row.items()) + "\n"
    for number, row in enumerate(SPARSE_TABLE)
)


@pytest.fixture
def rcv1(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., TensorData]:
    """An rcv1 of 100 training and 100 test rows."""
    for name in ("rcv1_train.binary.bz2", "rcv1_test.binary.bz2"):
        monkeypatch.setitem(libsvm.FACTS, name, Facts(100, 47_236, None, binary=False, sparse=True))
        put(tmp_path, name, SPARSE_TEXT)
    return lambda **overrides: make("rcv1", **overrides)


def test_a_sparse_set_is_stored_sparse_and_gives_dense_rows(rcv1: Callable[..., TensorData]) -> None:
    data = rcv1()
    data.setup()
    expected = dense(SPARSE_TABLE, 47_236)
    assert data.train.inputs.layout == torch.sparse_csr and data.train.inputs.values().numel() == 125
    for index in (torch.tensor([5, 0, 5, 99, 2]), slice(3, 9), slice(None)):
        inputs, targets = data.batch("train", index, augment=True)
        assert torch.equal(inputs, expected[index]) and targets is not None
        assert torch.equal(targets, (torch.arange(100) % 2)[index])
    data.move("cpu")
    batches = list(data.batches("test", 30))
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), expected)


def test_unit_rows_of_a_sparse_set_have_norm_1_and_empty_ones_stay_zero(
    rcv1: Callable[..., TensorData],
) -> None:
    data = rcv1(normalise="unit_rows")
    data.setup()
    inputs, _ = data.batch("train", slice(0, 4), augment=False)
    assert torch.allclose(inputs.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert torch.allclose(inputs[1, 1:3], torch.tensor([0.6, 0.8]))
    assert data.train.inputs.values()[2:4].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("normalise", ["standard", "unit_interval"])
def test_what_would_fill_in_the_zeros_is_refused(rcv1: Callable[..., TensorData], normalise: str) -> None:
    message = refusal(lambda: rcv1(normalise=normalise))
    assert f"dataset.normalise={normalise}: rcv1 is sparse; give none or unit_rows" in message


@pytest.mark.parametrize("source", ["real", "synthetic"])
def test_limit_validation_and_positive_work_on_a_sparse_set(
    rcv1: Callable[..., TensorData], source: str
) -> None:
    data = rcv1(limit=60, validation=0.25, positive=[0], source=source)
    data.setup()
    assert (data.size("train"), data.size("validation")) == (45, 15)
    for split in (data.train, data.validation):
        assert split is not None and split.targets is not None
        assert split.inputs.layout == torch.sparse_csr and len(split.inputs) == len(split.targets)
        assert abs(int(split.targets.sum()) - len(split) / 2) < 1
    if source == "real":
        # the rows of label 0 are those of two values other than 0, or none
        inputs, targets = data.batch("train", slice(None), augment=False)
        assert targets is not None
        assert set(inputs[targets == 1].count_nonzero(dim=1).tolist()) <= {0, 2}


def test_synthetic_sparse_rows_have_few_values_in_ascending_columns(make: Make) -> None:
    data = make("rcv1", source="synthetic")
    data.setup()
    inputs = data.train.inputs
    columns = inputs.col_indices().view(512, -1)
    assert (columns.diff(dim=1) > 0).all() and columns.min() >= 0 and columns.max() < 47_236
    assert 0.01 < inputs.values().numel() / inputs.numel() < 0.03


def test_a_dense_batch_that_would_not_fit_is_refused_with_its_size(make: Make) -> None:
    data = make("rcv1", source="synthetic", limit=5_700)
    data.setup()
    for index in (slice(None), torch.arange(5_690)):
        message = refusal(partial(data.batch, "train", index, augment=False))
        assert "1.1 GB" in message and "at most 5682 rows" in message
    assert len(next(data.batches("train", data.evaluation_batch))[0]) == data.evaluation_batch


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
