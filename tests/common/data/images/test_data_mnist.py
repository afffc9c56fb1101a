"""MNIST and Fashion-MNIST: idx files parsed exactly, and what is wrong with a file said in one line."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.base.errors import UserError
from common.data.images import mnist
from common.data.shared.in_memory import TensorData
from common.data.shared.prepare import Checksum

Make = Callable[..., TensorData]
SIZES = {"train": 20, "t10k": 10}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A complete set of 20 + 10 images, by file name, whose checksums are the pinned ones of both sets."""
    random = np.random.default_rng(0)
    files = {}
    for prefix, count in SIZES.items():
        pixels = random.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        images_header = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28))
        labels_header = b"".join(number.to_bytes(4, "big") for number in (2049, count))
        files[f"{prefix}-images-idx3-ubyte.gz"] = images_header + pixels
        files[f"{prefix}-labels-idx1-ubyte.gz"] = labels_header + labels
    packed = {name: gzip.compress(data) for name, data in files.items()}
    monkeypatch.setattr(mnist.IdxImages, "TRAIN_SIZE", 20)
    monkeypatch.setattr(mnist.IdxImages, "TEST_SIZE", 10)
    monkeypatch.setattr(mnist.Mnist, "CHECKSUMS", checksums(files, confirmed=True))
    monkeypatch.setattr(mnist.FashionMnist, "CHECKSUMS", checksums(packed, confirmed=False))
    return packed


def checksums(files: dict[str, bytes], confirmed: bool) -> dict[str, Checksum]:
    return {name: Checksum(hashlib.md5(data).hexdigest(), confirmed) for name, data in files.items()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def refusal(data: TensorData) -> str:
    with pytest.raises(UserError) as error:
        data.setup()
    message = str(error.value)
    assert "\n" not in message and "dataset=digits" in message
    return message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_pixels_and_labels_are_those_of_the_files(
    make: Make, small: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    put(tmp_path / name, small)
    data = make(name)
    data.setup()
    content = gzip.decompress(small["train-images-idx3-ubyte.gz"])[16:]
    assert data.train.inputs.numpy().tobytes() == content
    assert data.train.targets is not None and data.train.targets.tolist() == [*range(10), *range(10)]
    assert data.size("test") == 10


NAME = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("form", ["gzipped", "unpacked", "with a dot", "gzipped with a dot"])
def test_files_are_read_gzipped_or_not_and_where_torchvision_keeps_them(
    make: Make, small: dict[str, bytes], tmp_path: Path, folder: str, form: str
) -> None:
    files = small
    if not form.startswith("gzipped"):
        files = {name.removesuffix(".gz"): gzip.decompress(packed) for name, packed in files.items()}
    if form.endswith("dot"):
        files = {name.replace("-idx", ".idx"): content for name, content in files.items()}
    put(tmp_path / folder, files)
    data = make("mnist")
    data.setup()
    assert data.train.inputs.numpy().tobytes() == gzip.decompress(small[NAME])[16:]
    assert all(path.exists() for path in data.sources().values())


def test_unpacked_files_are_checked_as_far_as_a_checksum_is_known(
    make: Make, small: dict[str, bytes], tmp_path: Path
) -> None:
    raw = {name.removesuffix(".gz"): gzip.decompress(packed) for name, packed in small.items()}
    first = NAME.removesuffix(".gz")
    put(tmp_path / "MNIST" / "raw", raw | {first: gzip.decompress(flipped(small[NAME]))})
    with pytest.raises(UserError, match=rf"MNIST/raw/{first} is damaged \(md5 .*remove it"):
        make("mnist").setup()
    put(tmp_path / "FashionMNIST" / "raw", raw)
    make("fashion_mnist").setup()
    put(tmp_path / "FashionMNIST" / "raw", {first: raw[first][:-1]})
    with pytest.raises(UserError, match="not the 15696 bytes"):
        make("fashion_mnist").setup()


def flipped(gz: bytes) -> bytes:
    content = bytearray(gzip.decompress(gz))
    content[100] ^= 1
    return gzip.compress(bytes(content))


DAMAGES = {
    "truncated": (lambda gz: gz[:-100], "broken gzip"),
    "not gzip": (lambda gz: b"<html>404</html>", "broken gzip"),
    "short": (lambda gz: gzip.compress(gzip.decompress(gz)[:-1]), "not the 15696 bytes"),
    "one bit": (flipped, "md5"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_is_wrong(
    make: Make, small: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    change, words = DAMAGES[damage]
    put(tmp_path / "mnist", small | {NAME: change(small[NAME])})
    assert f"{tmp_path}/mnist/{NAME} is damaged ({words}" in refusal(make("mnist"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_fetched_again(
    make: Make,
    small: dict[str, bytes],
    tmp_path: Path,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    put(server.folder, small)
    monkeypatch.setattr(mnist.Mnist, "URL", server.url)
    put(tmp_path / "mnist", small | {NAME: DAMAGES[damage][0](small[NAME])})
    make("mnist").setup()
    assert server.requests == [f"/{NAME}"]
    assert (tmp_path / "mnist" / NAME).read_bytes() == small[NAME]


def test_a_missing_file_is_named_with_where_it_was_looked_for(make: Make, tmp_path: Path) -> None:
    assert f"{tmp_path}/mnist/train-images-idx3-ubyte.gz is missing" in refusal(make("mnist"))


def test_a_label_out_of_range_is_seen(make: Make, small: dict[str, bytes], tmp_path: Path) -> None:
    name = "t10k-labels-idx1-ubyte.gz"
    labels = gzip.decompress(small[name])
    put(tmp_path / "mnist", small | {name: gzip.compress(labels[:-1] + b"\x0a")})
    assert "a label 10; they are 0 to 9" in refusal(make("mnist", verify=False))


def test_another_checksum_of_fashion_mnist_is_said_to_be_compared_with_an_unconfirmed_one(
    make: Make, small: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the same content, another header
    put(tmp_path / "fashion_mnist", small | {NAME: gzip.compress(gzip.decompress(small[NAME]), mtime=1)})
    message = refusal(make("fashion_mnist"))
    assert f"fashion_mnist/{NAME} is damaged (md5" in message and "unconfirmed" in message
    capsys.readouterr()
    make("fashion_mnist", verify=False).setup()
    assert f"fashion_mnist/{NAME}: md5" in capsys.readouterr().err


def test_without_verify_only_checksums_are_skipped_and_never_silently(
    make: Make, small: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "mnist", small | {NAME: flipped(small[NAME])})
    make("mnist", verify=False).setup()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{tmp_path}/mnist/{NAME}: md5" in said
    put(tmp_path / "mnist", {NAME: small[NAME][:-100]})
    assert "broken gzip" in refusal(make("mnist", verify=False))


@pytest.mark.real_data
def test_real_mnist_is_whole(make: Make, need: Callable[[str], Path]) -> None:
    data = make("mnist", data_dir=str(need("mnist").parent))
    data.setup()
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    assert data.train.targets.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert data.test.targets.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = data.train.inputs.view(-1).to(torch.float32) / 255
    assert abs(pixels.mean() - 0.1307) < 1e-4 and abs(pixels.std() - 0.3081) < 1e-4
