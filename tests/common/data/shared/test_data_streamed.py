import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import until
from PIL import Image

from common.base.errors import UserError
from common.data.images.image_folder import ImageFolder
from common.data.shared.streamed import Fetched, StreamedData, StreamLoader

CLASSES, IMAGES = 3, {"train": 8, "val": 4}
SETS = ["imagenet", "celeba", "camvid", "cityscapes", "voc2012_segmentation", "pascal_person_part"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `imagenet`: 3 classes, 8 images each for training and 4 for testing."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for part, count in IMAGES.items():
        for label, number in itertools.product(range(CLASSES), range(count)):
            path = folder / "imagenet" / part / f"class{label}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def damaged(photographs: Path, tmp_path: Path) -> Path:
    """The same, with one training image cut off; its path."""
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "val").symlink_to(photographs / "imagenet" / "val")
    for path in (photographs / "imagenet" / "train").glob("*/*"):
        copy = tmp_path / path.relative_to(photographs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    path = tmp_path / "imagenet" / "train" / "class1" / "3.JPEG"
    path.write_bytes(path.read_bytes()[:900])
    return path


@pytest.fixture
def build(make: Callable[..., Any], photographs: Path) -> Callable[..., ImageFolder]:
    """The folder of photographs as a set, ready for use."""

    def ready(**overrides: Any) -> ImageFolder:
        options = {"data_dir": str(photographs), "classes": CLASSES, "size": 24, "resize": 28, "workers": 0}
        data: ImageFolder = make("imagenet", **options | {"batch_size": 5} | overrides)
        data.setup()
        return data

    return ready


def taken(loader: StreamLoader, count: int) -> list[Fetched]:
    """The next `count` minibatches."""
    return list(itertools.islice(itertools.chain.from_iterable(loader), count))


def same(first: list[Fetched], second: list[Fetched]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs)


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


# 24 images in batches of 5: 5 steps an epoch
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(build: Callable[..., ImageFolder], workers: int) -> None:
    alone = taken(build(workers=0).loader(seed=7), 12)
    assert same(taken(build(workers=workers).loader(seed=7), 12), alone)
    # they are augmented, each epoch anew
    assert not torch.equal(alone[0].images, taken(build(augment="none").loader(seed=7), 1)[0].images)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 3, 5, 7])
def test_a_restored_loader_goes_on_with_the_very_same_batches(
    build: Callable[..., ImageFolder], workers: int, done: int
) -> None:
    data = build(workers=workers)
    unbroken = taken(build(workers=0).loader(seed=7), 12)
    broken = data.loader(seed=7)
    assert same(taken(broken, done), unbroken[:done])
    state = broken.state_dict()
    del broken
    resumed = build(workers=workers).loader(seed=7)
    resumed.load_state_dict(state)
    assert same(taken(resumed, 12 - done), unbroken[done:])


def test_an_iterator_that_was_left_is_followed_by_one_that_goes_on(build: Callable[..., ImageFolder]) -> None:
    unbroken = taken(build().loader(seed=7), 8)
    loader = build(workers=2).loader(seed=7)
    assert same(taken(loader, 3) + taken(loader, 5), unbroken)


def test_an_epoch_holds_every_image_once_with_its_class(build: Callable[..., ImageFolder]) -> None:
    data = build(augment="none", workers=2)
    epoch = taken(data.loader(seed=0), 5)
    images = torch.cat([fetched.images for fetched in epoch]).flatten(1)
    targets = torch.cat([fetched.targets for fetched in epoch])
    stored = build(normalise="none").batch("train", slice(None), augment=False)[0].byte().flatten(1)
    found = [int((stored == image).all(1).nonzero()) for image in images]
    assert sorted(found) == list(range(24))
    assert targets.tolist() == [number // 8 for number in found]


def test_blocks_change_no_batch_and_never_span_epochs(build: Callable[..., ImageFolder]) -> None:
    loader = build(workers=2).loader(seed=7)
    loader.block = 3
    blocks = list(itertools.islice(loader, 4))
    assert [len(block) for block in blocks] == [3, 2, 3, 2]
    assert same(list(itertools.chain.from_iterable(blocks)), taken(build().loader(seed=7), 10))
    assert (loader.epoch, loader.position, loader.at_epoch_end) == (1, 5, True)


def test_a_block_stays_small_in_memory(build: Callable[..., ImageFolder]) -> None:
    loader = build(size=224, resize=256, batch_size=256).loader(seed=0)
    loader.block = 64
    assert loader.block == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(build: Callable[..., ImageFolder], workers: int) -> None:
    data = build(workers=workers)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    taken(data.loader(seed=0), 6)
    list(data.batches("test", 4))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])


def test_where_one_picture_cannot_be_read_all_others_are_named_with_it(
    make: Callable[..., Any], damaged: Path
) -> None:
    other = damaged.parents[2] / "train" / "class2" / "5.JPEG"
    other.write_bytes(b"no picture")
    options = {"classes": CLASSES, "size": 24, "resize": 28, "workers": 0, "batch_size": 5}
    data = make("imagenet", data_dir=str(damaged.parents[3]), **options)
    data.setup()
    with pytest.raises(UserError) as error:
        list(data.batches("train", 5))
    text = str(error.value)
    assert text.startswith(f"{damaged.resolve()} is damaged (")
    assert f"of 35 others, 1 cannot be read either: {other} (not a JPEG or PNG image)" in text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_in_the_main_process(
    make: Callable[..., Any], damaged: Path, workers: int
) -> None:
    options = {"classes": CLASSES, "size": 24, "resize": 28, "batch_size": 5, "workers": workers}
    data = make("imagenet", data_dir=str(damaged.parents[3]), **options)
    data.setup()
    before = children()
    with pytest.raises(UserError) as error:
        taken(data.loader(seed=0), 5)
    assert str(error.value).startswith(f"{damaged.resolve()} is damaged (")
    assert "\n" not in str(error.value)
    until(lambda: children() == before)
    assert len(list(data.batches("test", 5))) == 3


def test_workers_end_with_their_loader(build: Callable[..., ImageFolder]) -> None:
    before = children()
    loader = build(workers=2).loader(seed=0)
    taken(loader, 1)
    assert len(children() - before) == 2
    del loader
    until(lambda: children() == before)


def test_a_killed_worker_is_one_line(build: Callable[..., ImageFolder]) -> None:
    before = children()
    loader = build(workers=2).loader(seed=0)
    taken(loader, 1)
    victim = min(children() - before)
    # while the main process waits for batches
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    with pytest.raises(UserError, match=r"dataset\.workers=2: a worker process was killed"):
        for _ in loader:
            pass
    killer.join()


def follow_until_interrupted(data: ImageFolder, folder: Path) -> None:
    """In a process group of its own: iterate, tell what happens in files."""
    os.setsid()
    # ignored in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr = (folder / "stderr").open("w", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    try:
        for number, _ in enumerate(data.loader(0)):
            if number == 3:
                (folder / "ready").touch()
    except KeyboardInterrupt:
        (folder / "interrupted").touch()


def test_an_interrupt_ends_the_workers_without_their_tracebacks_of_it(
    build: Callable[..., ImageFolder], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=follow_until_interrupted, args=(build(workers=2), tmp_path))
    process.start()
    assert process.pid is not None
    try:
        until((tmp_path / "ready").exists)
        # as a terminal does it: to all processes of the group
        os.killpg(process.pid, signal.SIGINT)
        process.join(600)
    finally:
        process.kill()
    assert process.exitcode == 0
    assert (tmp_path / "interrupted").exists()
    assert "KeyboardInterrupt" not in (tmp_path / "stderr").read_text()
    until(lambda: ended(process.pid))


def ended(group: int | None) -> bool:
    """Whether no process of a group is left."""
    assert group is not None
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_repaired_images_are_counted_once_each(make: Callable[..., Any], tmp_path: Path) -> None:
    for part, label in itertools.product(IMAGES, "ab"):
        folder = tmp_path / "imagenet" / part / label
        folder.mkdir(parents=True)
        Image.new("L", (30, 30)).save(folder / "grey.png")
        Image.new("RGBA", (30, 30)).save(folder / "alpha.PNG")
        Image.new("RGB", (30, 30)).save(folder / "plain.png")
    data = make("imagenet", classes=2, size=24, resize=28, batch_size=2, workers=2)
    data.setup()
    taken(data.loader(seed=0), 9)
    list(data.batches("train", 2))
    expected = {"images of one channel, made RGB": 2, "images with alpha, made RGB on white": 2}
    assert data.repairs == expected
    list(data.batches("test", 2))
    assert data.repairs == dict.fromkeys(expected, 4)


def test_the_whole_split_comes_in_order(build: Callable[..., ImageFolder]) -> None:
    data = build(workers=2)
    batches = list(data.batches("test", 5))
    assert [len(inputs) for inputs, _ in batches] == [5, 5, 2]
    inputs, targets = data.batch("test", slice(None), augment=False)
    assert torch.equal(torch.cat([batch for batch, _ in batches]), inputs)
    assert targets is not None
    assert targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    some, _ = data.batch("test", torch.tensor([9, 2]), augment=False)
    assert torch.equal(some, inputs[[9, 2]])


def test_augmented_batches_draw_from_the_global_generator(build: Callable[..., ImageFolder]) -> None:
    data = build()
    torch.manual_seed(0)
    first, second = (data.batch("train", slice(4), augment=True)[0] for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(data.batch("train", slice(4), augment=True)[0], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("normalise", ["standard", "unit_interval", "none"])
def test_inputs_are_normalised_by_channel(build: Callable[..., ImageFolder], normalise: str) -> None:
    data = build(normalise=normalise)
    stored = build(normalise="none").batch("test", slice(3), augment=False)[0]
    mean, std = torch.tensor(data.MEAN).view(3, 1, 1), torch.tensor(data.STD).view(3, 1, 1)
    expected = {"standard": (stored / 255 - mean) / std, "unit_interval": stored / 255, "none": stored}
    found = data.batch("test", slice(3), augment=False)[0]
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected[normalise])
    assert stored.max() > 200
    assert torch.equal(stored, stored.round())


def test_limit_and_validation_are_stratified_and_disjoint(build: Callable[..., ImageFolder]) -> None:
    data = build(limit=15, validation=0.2)
    train, held_out = (data._rows(split).numbers for split in ("train", "validation"))
    assert (data.size("train"), data.size("validation"), data.size("test")) == (12, 3, 12)
    assert not set(train.tolist()) & set(held_out.tolist())
    assert (train // 8).bincount().tolist() == [4, 4, 4]
    assert (held_out // 8).bincount().tolist() == [1, 1, 1]
    assert torch.equal(build(limit=15, validation=0.2)._rows("train").numbers, train)
    assert not torch.equal(build(limit=15, validation=0.2, seed=1)._rows("train").numbers, train)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "detection"),
        ("limit", 0),
        ("limit", 25),
        ("validation", 1.0),
        ("validation", 0.01),
        ("validation", "official"),
        ("batch_size", 0),
        ("workers", -1),
        ("size", 0),
        ("resize", 23),
        ("classes", 1),
    ],
)
def test_values_out_of_range_are_one_line(build: Callable[..., ImageFolder], key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.{key}=.*: .+$"):
        build(**{key: value})


def test_asking_for_a_validation_split_that_is_not_there_is_one_line(
    build: Callable[..., ImageFolder],
) -> None:
    data = build()
    assert not data.has_validation
    with pytest.raises(UserError, match=r"dataset\.validation=0\.0"):
        data.size("validation")


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_synthetic_examples_without_files(make: Callable[..., Any], name: str) -> None:
    data: StreamedData = make(name, source="synthetic", batch_size=3)
    data.setup()
    before = children()
    inputs, targets = data.ready(taken(data.loader(seed=0), 1)[0])
    assert children() == before
    assert inputs.shape == (3, *data.shape)
    assert inputs.std() > 0.5
    assert targets is not None
    assert targets.dtype == torch.int64
    shape = {"image_classification": (), "multi_label": (40,), "segmentation": data.shape[1:]}[data.KIND]
    assert targets.shape == (3, *shape)
    highest = 2 if data.KIND == "multi_label" else data.classes
    assert highest is not None
    assert ((targets >= 0) & (targets < highest) | (targets == 255) & (data.KIND == "segmentation")).all()
    assert len(targets.unique()) > 1
    assert data.size("train") == min(512, data.TRAIN_SIZE)
    again = make(name, source="synthetic")
    again.setup()
    for first, second in zip(
        again.batch("test", slice(2), False), data.batch("test", slice(2), False), strict=True
    ):
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


def test_synthetic_sets_are_as_large_as_the_limit_asks_for(make: Callable[..., Any]) -> None:
    data = make("imagenet", source="synthetic", limit=2000, validation=0.1)
    data.setup()
    assert (data.size("train"), data.size("validation")) == (1800, 200)
    with pytest.raises(UserError, match=r"dataset\.limit=1281168"):
        make("imagenet", source="synthetic", limit=1_281_168).setup()


def test_a_set_can_be_handed_to_workers_that_start_afresh(build: Callable[..., ImageFolder]) -> None:
    data = build()
    data.trainer = object()  # type: ignore[assignment]
    # what a worker gets that is no copy of this process; nothing of a file is ever unpickled
    copy = pickle.loads(pickle.dumps(data))
    assert copy.trainer is None
    assert torch.equal(copy.batch("test", slice(2), False)[0], data.batch("test", slice(2), False)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_rest_of_one_image_joins_the_batch_before_it(
    build: Callable[..., ImageFolder], workers: int
) -> None:
    loader = build(batch_size=23, workers=workers).loader(seed=7)
    assert loader.steps_per_epoch == 1
    assert [len(batch.images) for batch in taken(loader, 3)] == [24, 24, 24]
