import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.shared import fingerprint as module
from common.data.shared.fingerprint import changes, fingerprint


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of three files in train, of one in val."""
    for part, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / part / name / f"{number}.png").write_bytes(f"{name} {number}".encode() * 10)
    return tmp_path


def of(folder: Path) -> object:
    return fingerprint({name: folder / name for name in ("train", "val")}, (".png",))


def exchange_labels(folder: Path) -> None:
    (folder / "train/cat").rename(folder / "train/x")
    (folder / "train/dog").rename(folder / "train/cat")
    (folder / "train/x").rename(folder / "train/dog")


def exchange_two(folder: Path) -> None:
    one, two = folder / "train/cat/0.png", folder / "train/dog/0.png"
    (kept := folder / "kept").write_bytes(one.read_bytes())
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept.read_bytes())
    kept.unlink()


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels exchanged": (
        exchange_labels,
        "train/cat holds files of other contents; train/dog holds files of other contents",
    ),
    "two images exchanged": (
        exchange_two,
        "train/cat holds files of other contents; train/dog holds files of other contents",
    ),
    "an image more": (
        lambda folder: (folder / "train/cat/9.png").write_bytes(b"new"),
        "train/cat holds 4 files instead of 3",
    ),
    "an image less": (
        lambda folder: (folder / "val/dog/0.png").unlink(),
        "val/dog is gone",
    ),
    "another of equal size": (
        lambda folder: (folder / "train/dog/1.png").write_bytes(b"cow 1" * 10),
        "train/dog holds files of other contents",
    ),
    "renamed": (
        lambda folder: (folder / "train/dog/1.png").rename(folder / "train/dog/7.png"),
        "train/dog holds files of other names or sizes",
    ),
    "a class more": (
        lambda folder: shutil.copytree(folder / "train/dog", folder / "train/wolf"),
        "train/wolf is new",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_files_is_seen_and_named(name: str, images: Path) -> None:
    change, text = CHANGES[name]
    before = of(images)
    change(images)
    assert changes(before, of(images)) == text  # type: ignore[arg-type]


def test_a_copy_with_other_times_and_foreign_files_is_the_same(images: Path, tmp_path: Path) -> None:
    before = of(images)
    copy = tmp_path / "elsewhere"
    shutil.copytree(images / "train", copy / "train")
    shutil.copytree(images / "val", copy / "val")
    os.utime(copy / "train/cat/0.png", (0, 0))
    for name in ("train/cat/.hidden.png", "train/notes.txt", "train/cat/Thumbs.db", "train/checksums.json"):
        (copy / name).write_text("x")
    assert of(copy) == before


def test_a_file_that_is_fetched_when_it_is_used_is_no_change_and_another_in_its_place_is(
    tmp_path: Path,
) -> None:
    sources = {f"set/{name}": tmp_path / name for name in ("train", "test")}
    sources["set/train"].write_text("1")
    before = fingerprint(sources)
    sources["set/test"].write_text("2")
    both = fingerprint(sources)
    assert changes(before, both) is None
    sources["set/test"].write_text("3")
    assert changes(both, fingerprint(sources)) == "set/test holds files of other contents"


def test_sets_without_files_and_files_that_are_all_gone_are_not_compared(images: Path) -> None:
    assert fingerprint({}) is None
    assert fingerprint({"train": images / "none"}) is None
    assert changes(of(images), None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [0, 500_000, 999_999])
def test_a_long_file_is_read_whole_within_the_budget(place: int, tmp_path: Path) -> None:
    content = bytearray(1_000_000)
    (tmp_path / "table.csv").write_bytes(content)
    before = fingerprint({"table.csv": tmp_path / "table.csv"})
    content[place] = 1
    (tmp_path / "table.csv").write_bytes(content)
    assert changes(before, fingerprint({"table.csv": tmp_path / "table.csv"})) is not None


def test_beyond_the_budget_head_and_tail_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 0)
    path, content = tmp_path / "a", bytearray(1_000_000)
    found = []
    for place in (None, 0, 999_999):
        changed = bytearray(content)
        if place is not None:
            changed[place] = 1
        path.write_bytes(changed)
        found.append(str(fingerprint({"a": path})))
    assert len(set(found)) == 3


def test_many_folders_are_told_apart_by_their_source(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"train/{number}").mkdir(parents=True)
        (tmp_path / f"train/{number}/0.png").write_text(str(number))
    before = of(tmp_path)
    assert list(before["folders"]) == ["train"]  # type: ignore[index]
    (tmp_path / "train/99/0.png").write_text("98")
    assert changes(before, of(tmp_path)) == "train holds files of other contents"  # type: ignore[arg-type]
