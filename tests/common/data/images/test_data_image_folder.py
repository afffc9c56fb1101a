import io
import itertools
import multiprocessing
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from common.base.errors import UserError
from common.data.images.image_folder import DEVKIT, TRAIN, VAL, ImageFolder

WNIDS = ["n01440764", "n01443537", "n02105855"]
# the class of each validation image, from 1, in the devkit's own order of classes
TRUTH = [2, 1, 3, 3, 1]
DEVKIT_ORDER = [WNIDS[1], WNIDS[2], WNIDS[0]]


def jpeg(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (colour, colour, colour)).save(stream, "JPEG")
    return stream.getvalue()


def lay_out(folder: Path, images: int = 2) -> None:
    """train and val with three classes, in class k images of grey 10 k."""
    for part in ("train", "val"):
        for label, wnid in enumerate(WNIDS):
            (folder / part / wnid).mkdir(parents=True)
            for number in range(images):
                (folder / part / wnid / f"{wnid}_{number}.JPEG").write_bytes(jpeg(10 * label))


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def devkit(truth: list[int]) -> bytes:
    """An archive as ILSVRC2012's devkit: three classes, and a group of classes."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(float(number), wnid, "a thing", 0.0) for number, wnid in enumerate(DEVKIT_ORDER, 1)]
    synsets = np.array([*rows, (4.0, "n00001740", "entity", 3.0)], dtype=fields)
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets.reshape(-1, 1)})
    folder = "ILSVRC2012_devkit_t12/data"
    lines = "".join(f"{label}\n" for label in truth).encode()
    return tarred(
        {
            f"{folder}/meta.mat": stream.getvalue(),
            f"{folder}/ILSVRC2012_validation_ground_truth.txt": lines,
        },
        "w:gz",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "imagenet"
    path.mkdir()
    return path


@pytest.fixture
def archives(folder: Path) -> Path:
    """The folder with ILSVRC2012's three archives, of three classes."""
    classes = {
        f"{wnid}.tar": tarred({f"{wnid}_{number}.JPEG": jpeg(10 * label) for number in range(2)})
        for label, wnid in enumerate(WNIDS)
    }
    (folder / TRAIN).write_bytes(tarred(classes))
    images = {
        f"ILSVRC2012_val_{number:08}.JPEG": jpeg(10 * WNIDS.index(DEVKIT_ORDER[label - 1]))
        for number, label in enumerate(TRUTH, 1)
    }
    (folder / VAL).write_bytes(tarred(images))
    (folder / DEVKIT).write_bytes(devkit(TRUTH))
    return folder


@pytest.fixture
def imagenet(make: Callable[..., Any]) -> Callable[..., ImageFolder]:
    def build(**overrides: Any) -> ImageFolder:
        data: ImageFolder = make(
            "imagenet", **{"classes": 3, "size": 16, "resize": 20, "workers": 0, "batch_size": 4} | overrides
        )
        data.setup()
        return data

    return build


def check_colours(data: ImageFolder, split: Any) -> None:
    """Each image has the grey of its class."""
    data.normalise = "none"
    data.move("cpu")
    inputs, targets = data.batch(split, slice(None), augment=False)
    assert targets is not None
    assert torch.equal(inputs.mean((1, 2, 3)).round().long(), 10 * targets)


def test_labels_follow_from_the_sorted_class_folders(
    folder: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    lay_out(folder)
    data = imagenet()
    assert (data.size("train"), data.size("test"), data.classes) == (6, 6, 3)
    check_colours(data, "train")
    check_colours(data, "test")
    records = data._rows("train").records
    assert [record.annotation for record in records] == [0, 0, 1, 1, 2, 2]
    assert records[5].path == f"{folder}/train/{WNIDS[2]}/{WNIDS[2]}_1.JPEG"
    assert list(records[2:4]) == [records[2], records[3]]


def test_jpeg_and_png_of_any_case_are_images_and_nothing_else(
    folder: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    lay_out(folder, images=1)
    place = folder / "train" / WNIDS[0]
    for name in ("a.jpg", "b.JPG", "c.Jpeg", "d.PNG", "é.png"):
        (place / name).write_bytes(jpeg(0))
    for name in (".hidden.jpg", "._a.jpg", "notes.txt", "Thumbs.db", "x.jpg.part"):
        (place / name).write_bytes(b"no image")
    (place / "folder.jpg").mkdir()
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "readme.txt").write_text("")
    data = imagenet()
    assert data.size("train") == 8
    check_colours(data, "train")


def test_another_folder_of_the_same_layout_may_be_given(
    tmp_path: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    lay_out(tmp_path / "flowers")
    assert imagenet(folder="flowers").size("train") == 6


def test_a_wrong_number_of_classes_says_what_to_set(
    folder: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    lay_out(folder)
    with pytest.raises(
        UserError, match=r"^dataset\.classes=1000: .*train has 3 class folders; set dataset\.classes=3"
    ):
        imagenet(classes=1000)


def test_train_and_val_must_have_the_same_classes(folder: Path, imagenet: Callable[..., ImageFolder]) -> None:
    lay_out(folder)
    (folder / "val" / WNIDS[1]).rename(folder / "val" / "n09999999")
    with pytest.raises(UserError, match=f"class folder {WNIDS[1]} is in only one of train and val"):
        imagenet()


def test_a_class_without_images_is_one_line(folder: Path, imagenet: Callable[..., ImageFolder]) -> None:
    lay_out(folder)
    for path in (folder / "val" / WNIDS[1]).iterdir():
        path.unlink()
    with pytest.raises(UserError, match=f"val/{WNIDS[1]} holds no image"):
        imagenet()


def test_images_outside_class_folders_are_one_line(
    folder: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    (folder / "train").mkdir()
    (folder / "train" / "x.JPEG").write_bytes(jpeg(0))
    with pytest.raises(UserError, match=r"train holds no class folders: .*train/CLASS/\*\.JPEG"):
        imagenet()


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_part_says_what_to_download_and_where_to_put_it(
    folder: Path, imagenet: Callable[..., ImageFolder], part: str
) -> None:
    lay_out(folder)
    (folder / part).rename(folder / "elsewhere")
    with pytest.raises(UserError) as error:
        imagenet()
    assert str(error.value).startswith(f"{folder.resolve()}/{part} is missing: ")
    assert all(word in str(error.value) for word in (TRAIN, VAL, DEVKIT, "login", "https://image-net.org"))
    assert "\n" not in str(error.value)


def test_the_archives_are_unpacked_by_class(
    archives: Path, imagenet: Callable[..., ImageFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    data = imagenet(verify=False)
    assert (data.size("train"), data.size("test")) == (6, 5)
    check_colours(data, "train")
    check_colours(data, "test")
    counts = data.batch("test", slice(None), augment=False)[1]
    assert counts is not None
    # the devkit's classes 1, 2, 3 are the second, the third and the first by name
    assert counts.bincount().tolist() == [2, 2, 1]
    left = {path.name for path in (archives / "val").iterdir()} | {
        path.name for path in (archives / "train").iterdir()
    }
    assert left == set(WNIDS)
    said = capsys.readouterr().err
    assert all(name in said for name in (TRAIN, VAL, DEVKIT))
    assert said.count("taken as it is (dataset.verify=false)") == 3


def test_a_wrong_checksum_is_said_to_be_unconfirmed(
    archives: Path, imagenet: Callable[..., ImageFolder]
) -> None:
    with pytest.raises(
        UserError, match=f"{TRAIN} is damaged .md5 .* instead of .*unconfirmed.*dataset.verify=false"
    ) as error:
        imagenet()
    assert "\n" not in str(error.value)
    assert not (archives / "train").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (TRAIN, b"no archive"),
        (TRAIN, tarred({f"{WNIDS[0]}.tar": tarred({"a.JPEG": jpeg(0)})})),
        (TRAIN, tarred({"photos/a.JPEG": jpeg(0)})),
        (TRAIN, tarred({f"{wnid}.tar": tarred({"../../a.JPEG": jpeg(0)}) for wnid in WNIDS})),
        (VAL, b"no archive"),
        (VAL, tarred({"ILSVRC2012_val_00000001.JPEG": jpeg(0)})),
        (DEVKIT, b"no archive"),
        (DEVKIT, tarred({"ILSVRC2012_devkit_t12/readme.txt": b""}, "w:gz")),
        (DEVKIT, devkit([1, 2, 3, 4, 5])),
    ],
)
def test_archives_that_are_no_imagenet_are_named_and_leave_nothing(
    archives: Path, imagenet: Callable[..., ImageFolder], name: str, content: bytes
) -> None:
    (archives / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        imagenet(verify=False)
    assert str(error.value).startswith(f"{(archives / name).resolve()} is damaged (")
    assert "\n" not in str(error.value)
    assert not (archives / ("train" if name == TRAIN else "val")).exists()
    assert not list(archives.glob(".*partial"))
    assert not list(archives.parent.rglob("a.JPEG"))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_truncated_archives_are_named_and_leave_nothing(
    archives: Path, imagenet: Callable[..., ImageFolder], name: str, part: float
) -> None:
    content = (archives / name).read_bytes()
    # tar pads its end with 10 kB of zeros: cut within the content
    content = content.rstrip(b"\0") if name != DEVKIT else content
    (archives / name).write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        imagenet(verify=False)
    assert not (archives / ("train" if name == TRAIN else "val")).exists()


def test_two_processes_that_start_at_once_prepare_it_once(
    archives: Path, imagenet: Callable[..., ImageFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack_train = ImageFolder._unpack_train

    def counted(self: ImageFolder, target: Path) -> None:
        with (archives / "log").open("a") as log:
            log.write("unpacked\n")
        unpack_train(self, target)

    monkeypatch.setattr(ImageFolder, "_unpack_train", counted)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def prepare() -> None:
        start.wait()
        data = imagenet(verify=False)
        assert (data.size("train"), data.size("test")) == (6, 5)

    processes = [context.Process(target=prepare) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (archives / "log").read_text() == "unpacked\n"


def test_training_is_augmented_as_configured(folder: Path, imagenet: Callable[..., ImageFolder]) -> None:
    lay_out(folder)
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (40, 40, 3))
    for path in folder.glob("*/*/*"):
        Image.fromarray(ramp).save(path, "PNG")
    options = {"size": 40, "resize": 40, "normalise": "none"}
    flat = imagenet(augment="none", **options).batch("train", slice(None), augment=True)[0]
    assert torch.equal(flat, torch.from_numpy(ramp.copy()).permute(2, 0, 1).expand(6, -1, -1, -1).float())
    torch.manual_seed(0)
    whole = flat[0]
    flipped = imagenet(augment="flip", **options).batch("train", slice(None), augment=True)[0]
    kinds = [torch.equal(image, whole) - torch.equal(image, whole.flip(-1)) for image in flipped]
    assert sorted(set(kinds)) == [-1, 1]
    crops = imagenet(augment="resized_crop", **options).batch("train", slice(None), augment=True)[0]
    # parts of a ramp are ramps of another slope, up or down
    spans = crops[:, 0, 0, -1] - crops[:, 0, 0, 0]
    assert len(spans.abs().unique()) > 2
    assert {1.0, -1.0} == set(spans.sign().tolist())


def test_a_folder_of_ones_own_that_is_not_there_is_said_with_those_that_are(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "photographs").mkdir()
    with pytest.raises(UserError) as error:
        make("imagenet", folder="photos", classes=2).setup()
    text = str(error.value)
    assert f"{tmp_path / 'photos'}/train is missing: there is photographs in {tmp_path}" in text
    assert "dataset=folder dataset.path=FOLDER" in text and "image-net.org" not in text


def test_what_lies_beside_the_images_is_counted_and_said(
    make: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, label in itertools.product(("train", "val"), ("a", "b")):
        folder = tmp_path / "photos" / part / label
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "x.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "train" / "a" / "y.webp")
    make("imagenet", folder="photos", classes=2).setup()
    said = capsys.readouterr().err
    assert said == f"imagenet: left out of {tmp_path}/photos/train: 1 file .webp\n"
