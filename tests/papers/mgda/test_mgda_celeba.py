import multiprocessing
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from papers.mgda.celeba import ARCHIVE, ATTRIBUTES, DRIVE_IDS, IMAGES, LABELS, PARTITION, CelebA

PARTS = [0, 0, 1, 2, 0, 2, 1]
NAMES = [f"{number:06}.jpg" for number in range(1, len(PARTS) + 1)]
# image k is grey 20 k and has the attributes that are 1 in the binary digits of k
ON = [[number >> label & 1 for label in range(LABELS)] for number in range(len(PARTS))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny CelebA, unpacked."""
    folder = tmp_path / "celeba"
    (folder / IMAGES).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (178, 218), (20 * number,) * 3).save(folder / IMAGES / name)
    (folder / PARTITION).write_text("".join(f"{n} {p}\n" for n, p in zip(NAMES, PARTS, strict=True)))
    rows = [f"{n} {' '.join(f'{2 * v - 1:2}' for v in row)} \n" for n, row in zip(NAMES, ON, strict=True)]
    header = " ".join(f"Attribute_{label}" for label in range(LABELS))
    (folder / ATTRIBUTES).write_text(f"{len(NAMES)}\n{header} \n{''.join(rows)}")
    return folder


@pytest.fixture
def celeba(make: Callable[..., Any]) -> Callable[..., CelebA]:
    def build(**overrides: Any) -> CelebA:
        data: CelebA = make("celeba", **{"workers": 0, "batch_size": 2, "verify": False} | overrides)
        data.setup()
        return data

    return build


def zipped(folder: Path) -> None:
    """Put the images into the archive that CelebA ships."""
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for path in sorted((folder / IMAGES).iterdir()):
            archive.write(path, f"{IMAGES}/{path.name}")
            path.unlink()
    (folder / IMAGES).rmdir()


def check_content(data: CelebA) -> None:
    for split, part in (("train", 0), ("validation", 1), ("test", 2)):
        members = [number for number, own in enumerate(PARTS) if own == part]
        inputs, targets = data.batch(split, slice(None), augment=False)  # type: ignore[arg-type]
        assert targets is not None
        assert (targets.dtype, targets.tolist()) == (torch.int64, [ON[number] for number in members])
        assert inputs.shape == (len(members), 3, 64, 64)
        assert inputs.mean((1, 2, 3)).round().tolist() == [20 * number for number in members]


def test_parts_and_attributes_are_those_of_the_lists(folder: Path, celeba: Callable[..., CelebA]) -> None:
    data = celeba(normalise="none")
    assert (data.shape, data.classes, data.has_validation) == ((3, 64, 64), 40, True)
    check_content(data)


def as_kaggle(folder: Path) -> None:
    """The lists as Kaggle's CSV files, the images one folder deeper."""
    names = [f"Attribute_{label}" for label in range(LABELS)]
    rows = [[name, *(2 * value - 1 for value in on)] for name, on in zip(NAMES, ON, strict=True)]
    for path, table in (
        (folder / ATTRIBUTES, [["image_id", *names], *rows]),
        (folder / PARTITION, [["image_id", "partition"], *zip(NAMES, PARTS, strict=True)]),
    ):
        path.unlink()
        path.with_suffix(".csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in table))
    (folder / IMAGES).rename(folder / "inner")
    (folder / IMAGES).mkdir()
    (folder / "inner").rename(folder / IMAGES / IMAGES)


def test_kaggles_tables_and_folder_are_read(folder: Path, celeba: Callable[..., CelebA]) -> None:
    as_kaggle(folder)
    data = celeba(normalise="none", verify=True)
    check_content(data)
    assert {path.name for path in data.sources().values()} == {
        IMAGES,
        "list_attr_celeba.csv",
        "list_eval_partition.csv",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,partition\n1.jpg,0\n", "its first line begins with 'name' instead of 'image_id'"),
        ("image_id,partition\n1.jpg\n", "line 2 has 1 columns, its first line 2"),
        ("image_id,partition\n1.jpg,7\n", "line 1 is '1.jpg 7'"),
        ("", "its first line begins with"),
    ],
)
def test_a_table_that_is_none_of_kaggles_is_one_line(
    folder: Path, celeba: Callable[..., CelebA], content: str, words: str
) -> None:
    as_kaggle(folder)
    (folder / "list_eval_partition.csv").write_text(content)
    with pytest.raises(UserError) as error:
        celeba()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_validation_split_may_be_taken_from_the_training_part(
    folder: Path, celeba: Callable[..., CelebA]
) -> None:
    data = celeba(validation=0.34)
    assert (data.size("train"), data.size("validation"), data.size("test")) == (2, 1, 2)
    assert not celeba(validation=0.0).has_validation


def test_images_are_stretched_bilinearly(folder: Path, celeba: Callable[..., CelebA]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 178).astype(np.uint8)[None, :, None], (218, 178, 3))
    Image.fromarray(ramp.copy()).save(folder / IMAGES / NAMES[0], "PNG")
    found = celeba(normalise="none").batch("train", slice(0, 1), augment=False)[0][0, 0]
    expected = np.asarray(Image.fromarray(ramp.copy()).resize((64, 64), Image.Resampling.BILINEAR))[..., 0]
    assert np.abs(found.numpy() - expected).max() <= 1
    torch.manual_seed(0)
    flipped = [
        celeba(normalise="none", augment="flip").batch("train", slice(0, 1), augment=True)[0][0, 0]
        for _ in range(8)
    ]
    kinds = {"whole" if torch.equal(image, found) else "mirrored" for image in flipped}
    assert kinds == {"whole", "mirrored"}
    assert all(torch.equal(image, found) or torch.equal(image, found.flip(-1)) for image in flipped)


def test_the_archive_is_unpacked(folder: Path, celeba: Callable[..., CelebA]) -> None:
    zipped(folder)
    check_content(celeba(normalise="none"))
    assert sorted(path.name for path in (folder / IMAGES).iterdir()) == NAMES


def test_two_processes_that_start_at_once_unpack_it_once(folder: Path, celeba: Callable[..., CelebA]) -> None:
    zipped(folder)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def use() -> None:
        start.wait()
        check_content(celeba(normalise="none"))

    processes = [context.Process(target=use) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert not list(folder.glob(".*partial"))


def test_without_files_it_says_what_to_download_by_hand(
    celeba: Callable[..., CelebA], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        celeba()
    message = str(error.value)
    assert "\n" not in message
    assert all(
        f"{name} (https://drive.google.com/file/d/{number})" in message for name, number in DRIVE_IDS.items()
    )
    assert str((tmp_path / "celeba").resolve()) in message


@pytest.mark.parametrize("name", [ARCHIVE, ATTRIBUTES, PARTITION])
def test_wrong_checksums_are_refused_as_unconfirmed(
    folder: Path, celeba: Callable[..., CelebA], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    zipped(folder)
    celeba()
    said = capsys.readouterr().err
    assert f"{(folder / name).resolve()}: md5" in said
    if name == ARCHIVE:
        for path in (folder / IMAGES).iterdir():
            path.unlink()
        (folder / IMAGES).rmdir()
    with pytest.raises(UserError, match=r"is damaged \(md5 .*unconfirmed.*dataset\.verify=false"):
        celeba(verify=True)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        (PARTITION, "000003.jpg 1", "000003.jpg 3", "line 3 is '000003.jpg 3'"),
        (PARTITION, "000003.jpg 1\n", "000003.jpg\n", "line 3"),
        (PARTITION, "000003.jpg 1", "999999.jpg 1", "lacks 999999.jpg"),
        (ATTRIBUTES, "7\n", "8\n", "7 images; its first line says '8'"),
        (ATTRIBUTES, "Attribute_0 ", "", "39 attributes are named"),
        (ATTRIBUTES, "000004.jpg  1", "000004.jpg  0", "000004.jpg has a value 0"),
        (ATTRIBUTES, "000004.jpg  1", "000004.jpg  x", "not a table of numbers"),
        (ATTRIBUTES, "000004.jpg  1", "000004.jpg", "not a table of numbers"),
        (ATTRIBUTES, "000004.jpg", "000044.jpg", "lacks 000004.jpg"),
    ],
)
def test_damaged_lists_are_one_line(
    folder: Path, celeba: Callable[..., CelebA], name: str, old: str, new: str, what: str
) -> None:
    replaced(folder / name, old, new)
    with pytest.raises(UserError) as error:
        celeba()
    assert what in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"7\n"])
@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_foreign_lists_are_one_line(
    folder: Path, celeba: Callable[..., CelebA], name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        celeba()
    assert str((folder / name).resolve()) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_listed_image_that_is_missing_is_named(folder: Path, celeba: Callable[..., CelebA]) -> None:
    (folder / IMAGES / NAMES[4]).unlink()
    with pytest.raises(UserError, match=f"{NAMES[4]} is missing, though {PARTITION} lists it"):
        celeba()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    folder: Path, celeba: Callable[..., CelebA], content: bytes
) -> None:
    zipped(folder)
    (folder / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=rf"{ARCHIVE} is damaged \("):
        celeba()
    assert not (folder / IMAGES).exists()


def test_an_archive_that_leads_outside_is_refused(
    folder: Path, celeba: Callable[..., CelebA], tmp_path: Path
) -> None:
    zipped(folder)
    with zipfile.ZipFile(folder / ARCHIVE, "a") as archive:
        archive.writestr("../../../evil.jpg", b"")
    with pytest.raises(UserError, match="would land outside"):
        celeba()
    assert not list(tmp_path.rglob("evil.jpg"))
    assert not (folder / IMAGES).exists()
