"""SVHN: MATLAB files read exactly, in the right order of axes; damage is named in one line."""

import gzip
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from common.base.errors import UserError
from common.data.images import svhn
from common.data.shared.prepare import Checksum

Make = Callable[..., Any]
SIZES = {"train": 12, "test": 10, "extra": 15}


def images(name: str) -> np.ndarray:
    """uint8 [n, 3, 32, 32], whose rows and columns differ."""
    seed = list(SIZES).index(name)
    return np.random.default_rng(seed).integers(0, 256, (SIZES[name], 3, 32, 32), dtype=np.uint8)


def labels(name: str) -> np.ndarray:
    """1..10 in turn: 10 stands for the digit 0."""
    return (np.arange(SIZES[name]) % 10 + 1).astype(np.uint8)[:, None]


def mat(**content: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=True)  # type: ignore[arg-type]
    return buffer.getvalue()


def whole(name: str) -> bytes:
    return mat(X=images(name).transpose(2, 3, 1, 0), y=labels(name))


def pin(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], confirmed: bool = False) -> None:
    checksums = {name: Checksum(hashlib.md5(data).hexdigest(), confirmed) for name, data in files.items()}
    monkeypatch.setattr(svhn.Svhn, "CHECKSUMS", checksums)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with all three files, their checksums pinned."""
    for name, size in SIZES.items():
        monkeypatch.setattr(svhn.Svhn, f"{name.upper()}_SIZE", size)
    files = {f"{name}_32x32.mat": whole(name) for name in SIZES}
    pin(monkeypatch, files)
    folder = tmp_path / "svhn"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refusal(data: Any) -> str:
    with pytest.raises(UserError) as error:
        data.setup()
    message = str(error.value)
    assert "\n" not in message and "dataset=digits" in message
    return message


@pytest.mark.parametrize("extra", [False, True])
def test_pixels_and_digits_are_those_of_the_files(make: Make, small: Path, extra: bool) -> None:
    data = make("svhn", extra=extra)
    data.setup()
    names = ["train", "extra"] if extra else ["train"]
    assert np.array_equal(data.train.inputs.numpy(), np.concatenate([images(name) for name in names]))
    digits = np.concatenate([labels(name)[:, 0] % 10 for name in names])
    assert data.train.targets.tolist() == digits.tolist()
    assert np.array_equal(data.test.inputs.numpy(), images("test"))
    assert data.test.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_the_extra_file_is_needed_only_when_it_is_asked_for(make: Make, small: Path) -> None:
    (small / "extra_32x32.mat").unlink()
    make("svhn").setup()
    assert f"{small}/extra_32x32.mat is missing" in refusal(make("svhn", extra=True))


TRAIN = whole("train")
STORED, DIGITS = images("train").transpose(2, 3, 1, 0), labels("train")
DAMAGES = {
    "truncated": (TRAIN[:-500], "not a MATLAB 5 file"),
    "empty": (b"", "not a MATLAB 5 file"),
    "foreign": (b"<html>404 not found</html>" * 20, "not a MATLAB 5 file"),
    "gzip": (gzip.compress(b"x" * 1000), "not a MATLAB 5 file"),
    "MATLAB 7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 9, "MATLAB 5"),
    "no y": (mat(X=STORED), "no X and y in it"),
    "an image less": (mat(X=STORED[..., :-1], y=DIGITS), "instead of uint8 (32, 32, 3, 12)"),
    "a label less": (mat(X=STORED, y=DIGITS[:-1]), "y of (11, 1)"),
    "floats": (mat(X=STORED / 255, y=DIGITS), "X of float64"),
    "a label 0": (mat(X=STORED, y=DIGITS - 1), "a label 0; they are 1 to 10"),
    "a label 11": (mat(X=STORED, y=DIGITS + 1), "a label 11; they are 1 to 10"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_is_wrong(
    make: Make, small: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    content, words = DAMAGES[damage]
    path = small / "train_32x32.mat"
    path.write_bytes(content)
    message = refusal(make("svhn"))
    assert f"{path} is damaged (md5" in message and "unconfirmed" in message
    message = refusal(make("svhn", verify=False))
    assert f"{path} is damaged (" in message and words in message


def test_another_file_of_the_right_form_is_taken_without_verify_and_said(
    make: Make, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small / "test_32x32.mat").write_bytes(
        mat(X=images("test").transpose(2, 3, 1, 0), y=labels("test")[::-1])
    )
    make("svhn", verify=False).setup()
    assert f"{small}/test_32x32.mat: md5" in capsys.readouterr().err


def test_a_missing_file_is_downloaded(
    make: Make, small: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "test_32x32.mat").replace(server.folder / "test_32x32.mat")
    monkeypatch.setattr(svhn, "URL", server.url)
    make("svhn").setup()
    assert server.requests == ["/test_32x32.mat"]


def test_a_limit_may_go_up_to_the_extra_images_where_these_are_asked_for(make: Make, small: Path) -> None:
    for source in ("real", "synthetic"):
        data = make("svhn", source=source, extra=True, limit=20)
        data.setup()
        assert data.size("train") == 20
        with pytest.raises(UserError, match="has 12 training examples"):
            make("svhn", source=source, limit=20).setup()


def test_with_the_extra_images_there_are_604388(make: Make) -> None:
    assert (make("svhn").train_size, make("svhn", extra=True).train_size) == (73_257, 604_388)
