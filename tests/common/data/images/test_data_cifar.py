"""CIFAR-10 and -100: records parsed exactly; archives verified, unpacked safely, fetched when needed."""

import hashlib
import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.base.errors import UserError
from common.data.images import cifar
from common.data.shared.in_memory import TensorData
from common.data.shared.prepare import Checksum

Make = Callable[..., TensorData]
FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
NAMES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six batches of 10 records, by file name; none of them is a known copy."""
    monkeypatch.setattr(cifar.CifarData, "TRAIN_SIZE", 50)
    monkeypatch.setattr(cifar.CifarData, "TEST_SIZE", 10)
    random = np.random.default_rng(0)
    batches = {}
    for name in NAMES:
        records = random.integers(0, 256, (10, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(10)
        batches[name] = records.tobytes()
    return batches


@pytest.fixture
def archive(small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The archive of these batches, its checksum pinned."""
    content = packed({f"{FOLDER}/{name}": data for name, data in small.items()})
    checksum = Checksum(hashlib.md5(content).hexdigest(), confirmed=True)
    monkeypatch.setattr(cifar.Cifar10, "ARCHIVE_CHECKSUM", checksum)
    return content


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def know(monkeypatch: pytest.MonkeyPatch, batches: dict[str, bytes]) -> None:
    checksums = {name: hashlib.md5(data).hexdigest() for name, data in batches.items()}
    monkeypatch.setattr(cifar.Cifar10, "MD5", checksums)


def refusal(data: TensorData) -> str:
    with pytest.raises(UserError) as error:
        data.setup()
    message = str(error.value)
    assert "\n" not in message
    return message


def check_content(data: TensorData, small: dict[str, bytes]) -> None:
    records = np.frombuffer(b"".join(small[name] for name in NAMES), np.uint8).reshape(60, 3073)
    assert data.test is not None and data.train.targets is not None
    images = torch.cat([data.train.inputs, data.test.inputs])
    assert np.array_equal(images.numpy(), records[:, 1:].reshape(60, 3, 32, 32))
    assert data.train.targets.tolist() == list(range(10)) * 5


def test_known_batches_are_read_exactly(
    make: Make, small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, small)
    put(tmp_path / FOLDER, small)
    data = make("cifar10")
    data.setup()
    check_content(data, small)


def test_an_archive_alone_is_verified_and_unpacked_without_network(
    make: Make, small: dict[str, bytes], archive: bytes, tmp_path: Path
) -> None:
    put(tmp_path, {ARCHIVE: archive})
    data = make("cifar10")
    data.setup()
    check_content(data, small)
    recorded = json.loads((tmp_path / FOLDER / "checksums.json").read_text())
    assert recorded == {name: hashlib.md5(content).hexdigest() for name, content in small.items()}
    (tmp_path / ARCHIVE).unlink()
    make("cifar10").setup()


def test_a_missing_archive_is_downloaded_once(
    make: Make,
    small: dict[str, bytes],
    archive: bytes,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(server.folder, {ARCHIVE: archive})
    monkeypatch.setattr(cifar, "URL", server.url)
    for _ in range(2):
        data = make("cifar10")
        data.setup()
        check_content(data, small)
    assert server.requests == [f"/{ARCHIVE}"]


def test_of_processes_at_once_one_downloads_and_unpacks_and_all_read_it(
    make: Make,
    small: dict[str, bytes],
    archive: bytes,
    tmp_path: Path,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(server.folder, {ARCHIVE: archive})
    monkeypatch.setattr(cifar, "URL", server.url)

    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(3)

    def read() -> None:
        start.wait()
        data = make("cifar10")
        data.setup()
        check_content(data, small)

    children = [fork.Process(target=read) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=600)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert server.requests == [f"/{ARCHIVE}"]
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock"))
    assert names == sorted(["checksums.json", ARCHIVE, FOLDER])


def test_an_archive_with_another_checksum_is_refused(
    make: Make, archive: bytes, tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server.folder, {ARCHIVE: archive[:-1]})
    monkeypatch.setattr(cifar, "URL", server.url)
    message = refusal(make("cifar10"))
    assert "gave a damaged file (md5" in message and cifar.Cifar10.ARCHIVE_CHECKSUM.md5 in message
    assert not (tmp_path / ARCHIVE).exists()


def flipped(content: bytes) -> bytes:
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


def truncated(content: bytes) -> bytes:
    return content[:-1]


DAMAGES = [(flipped, "md5"), (truncated, "30729 bytes instead of 30730")]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_batch_is_named_and_what_to_do_is_said(
    make: Make,
    small: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
    words: str,
) -> None:
    know(monkeypatch, small)
    put(tmp_path / FOLDER, small | {"data_batch_3.bin": damage(small["data_batch_3.bin"])})
    message = refusal(make("cifar10"))
    assert f"{tmp_path}/{FOLDER}/data_batch_3.bin is damaged ({words}" in message
    assert f"put {ARCHIVE} into {tmp_path}" in message
    assert "dataset.verify=false" in message and "dataset=digits" in message


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_batch_is_unpacked_again_from_the_archive(
    make: Make,
    small: dict[str, bytes],
    archive: bytes,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    words: str,
) -> None:
    put(tmp_path, {ARCHIVE: archive})
    make("cifar10").setup()
    put(tmp_path / FOLDER, {"test_batch.bin": damage(small["test_batch.bin"])})
    data = make("cifar10")
    data.setup()
    check_content(data, small)


def test_offline_without_any_file_the_message_is_complete(make: Make, tmp_path: Path) -> None:
    message = refusal(make("cifar10"))
    assert f"{tmp_path}/{FOLDER}/data_batch_1.bin is missing" in message
    assert f"put {ARCHIVE} into {tmp_path}" in message and "dataset=digits" in message


def test_unknown_files_are_taken_without_verify_but_not_of_a_wrong_size_or_label(
    make: Make, small: dict[str, bytes], tmp_path: Path
) -> None:
    put(tmp_path / FOLDER, small)
    assert "md5" in refusal(make("cifar10"))
    make("cifar10", verify=False).setup()
    put(tmp_path / FOLDER, {"test_batch.bin": truncated(small["test_batch.bin"])})
    assert "30729 bytes" in refusal(make("cifar10", verify=False))
    put(tmp_path / FOLDER, {"test_batch.bin": b"\x0a" + small["test_batch.bin"][1:]})
    assert "a label 10" in refusal(make("cifar10", verify=False))


@pytest.mark.parametrize("outside", ["../escaped", "/tmp/reprise-escaped"])
def test_an_archive_that_reaches_outside_its_folder_is_refused(
    make: Make, small: dict[str, bytes], tmp_path: Path, outside: str
) -> None:
    members = {outside: b"x"} | {f"{FOLDER}/{name}": data for name, data in small.items()}
    put(tmp_path / "data", {ARCHIVE: packed(members)})
    data = make("cifar10", data_dir=str(tmp_path / "data"), verify=False)
    assert "would land outside" in refusal(data)
    assert not Path("/tmp/reprise-escaped").exists()
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_without_a_batch_is_refused(make: Make, small: dict[str, bytes], tmp_path: Path) -> None:
    members = {f"{FOLDER}/{name}": small[name] for name in NAMES[:-1]}
    put(tmp_path, {ARCHIVE: packed(members)})
    assert f"no {FOLDER}/test_batch.bin in it" in refusal(make("cifar10", verify=False))


def test_what_is_unpacked_unverified_is_not_remembered_as_good(
    make: Make, small: dict[str, bytes], tmp_path: Path
) -> None:
    put(tmp_path, {ARCHIVE: packed({f"{FOLDER}/{name}": data for name, data in small.items()})})
    make("cifar10", verify=False).setup()
    (tmp_path / ARCHIVE).unlink()
    assert "md5" in refusal(make("cifar10"))


COARSE_FINE = [[0, 0], [19, 99], [3, 50], [3, 51], [7, 1]]


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A CIFAR-100 of 5 + 5 records, by file name; the checksum of its archive is not known."""
    monkeypatch.setattr(cifar.CifarData, "TRAIN_SIZE", 5)
    monkeypatch.setattr(cifar.CifarData, "TEST_SIZE", 5)
    records = np.random.default_rng(0).integers(0, 256, (2, 5, 3074), dtype=np.uint8)
    records[:, :, :2] = COARSE_FINE
    return {"train.bin": records[0].tobytes(), "test.bin": records[1].tobytes()}


@pytest.mark.parametrize(("labels", "column", "classes"), [("coarse", 0, 20), ("fine", 1, 100)])
def test_cifar100_has_two_label_bytes_of_which_one_is_chosen(
    make: Make, hundred: dict[str, bytes], tmp_path: Path, labels: str, column: int, classes: int
) -> None:
    put(tmp_path / "cifar-100-binary", hundred)
    data = make("cifar100", labels=labels)
    assert data.classes == classes
    data.setup()
    for split, name in ((data.train, "train.bin"), (data.test, "test.bin")):
        assert split is not None and split.targets is not None
        assert split.targets.tolist() == [pair[column] for pair in COARSE_FINE]
        pixels = np.frombuffer(hundred[name], np.uint8).reshape(5, 3074)[:, 2:].reshape(5, 3, 32, 32)
        assert np.array_equal(split.inputs.numpy(), pixels)


@pytest.mark.parametrize(("labels", "classes"), [("coarse", 20), ("fine", 100)])
def test_synthetic_cifar100_has_the_labels_that_are_chosen(make: Make, labels: str, classes: int) -> None:
    data = make("cifar100", labels=labels, source="synthetic")
    data.setup()
    assert data.train.targets is not None and len(data.train.targets.unique()) == classes
    with pytest.raises(UserError, match=f"0 to {classes - 1}"):
        make("cifar100", labels=labels, positive=[classes])


@pytest.mark.parametrize(("byte", "words"), [(0, "a label 20; they are 0 to 19"), (1, "a label 100;")])
def test_labels_of_cifar100_out_of_range_are_seen(
    make: Make, hundred: dict[str, bytes], tmp_path: Path, byte: int, words: str
) -> None:
    content = bytearray(hundred["train.bin"])
    content[byte] = (20, 100)[byte]
    put(tmp_path / "cifar-100-binary", hundred | {"train.bin": bytes(content)})
    assert words in refusal(make("cifar100"))


def test_an_unconfirmed_archive_of_cifar100_is_taken_without_verify_and_said(
    make: Make, hundred: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = packed({f"cifar-100-binary/{name}": content for name, content in hundred.items()})
    put(tmp_path, {"cifar-100-binary.tar.gz": archive})
    message = refusal(make("cifar100"))
    assert "cifar-100-binary.tar.gz is damaged (md5" in message and "unconfirmed" in message
    capsys.readouterr()
    make("cifar100", verify=False).setup()
    assert "cifar-100-binary.tar.gz: md5" in capsys.readouterr().err


def test_a_truncated_file_of_cifar100_is_seen(make: Make, hundred: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path / "cifar-100-binary", hundred | {"test.bin": hundred["test.bin"][:-1]})
    assert "test.bin is damaged (15369 bytes instead of 15370)" in refusal(make("cifar100"))


@pytest.mark.real_data
def test_real_cifar10_is_whole_and_its_moments_are_the_official_ones(
    make: Make, need: Callable[[str], Path]
) -> None:
    data = make("cifar10", data_dir=str(need(FOLDER).parent))
    data.setup()
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    assert data.train.targets.bincount().tolist() == [5000] * 10
    assert data.test.targets.bincount().tolist() == [1000] * 10
    levels = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        counts = torch.bincount(data.train.inputs[:, channel].flatten(), minlength=256)
        mean = (counts * levels).sum() / counts.sum()
        std = ((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()
        assert abs(mean - cifar.Cifar10.MEAN[channel]) < 1e-6
        assert abs(std - cifar.Cifar10.STD[channel]) < 1e-5
