"""The dogs of ImageNet: which classes, found among others, and what is said of those that are missing."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.base.errors import UserError
from papers.pelee.dogs import WNIDS, StanfordDogsIlsvrc


def dogs(data_dir: Path, **changed: Any) -> StanfordDogsIlsvrc:
    settings: dict[str, Any] = {
        "kind": "image_classification",
        "data_dir": str(data_dir),
        "seed": 0,
        "source": "real",
        "limit": None,
        "validation": 0.0,
        "normalise": "none",
        "verify": True,
        "batch_size": 4,
        "workers": 0,
        "folder": "imagenet",
        "size": 8,
        "resize": 8,
        "augment": "none",
    }
    return StanfordDogsIlsvrc(**(settings | changed))


def lay_out(folder: Path, wnids: list[str]) -> None:
    for part in ("train", "val"):
        for number, wnid in enumerate(wnids):
            (folder / part / wnid).mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / part / wnid / f"{wnid}_0.png")


def test_the_classes_are_120_dogs_of_wordnet_without_dalmatian() -> None:
    assert len(set(WNIDS)) == 120 and list(WNIDS) == sorted(WNIDS)
    assert {"n02085620", "n02115641", "n02115913", "n02116738"} <= set(WNIDS)
    assert "n02110341" not in WNIDS


def test_dogs_are_read_from_among_other_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    lay_out(tmp_path / "imagenet", ["n01440764", *reversed(WNIDS), "n02110341"])
    data = dogs(tmp_path)
    data.setup()
    assert (data.size("train"), data.size("test"), data.classes) == (120, 120, 120)
    assert data.class_names() == list(WNIDS)
    inputs, targets = data.batch("train", slice(0, 120), augment=False)
    assert targets is not None and targets.tolist() == list(range(120))
    # the red of a picture tells its folder: the first class was laid out last
    reds = inputs[:, 0].mean(dim=(1, 2))
    assert bool((reds.diff() < 0).all())


def test_a_missing_class_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path / "imagenet", list(WNIDS[:-2]))
    with pytest.raises(UserError, match=r"lacks 2 of the 120 class folders of dogs, as n02115913: ImageNet"):
        dogs(tmp_path).setup()


def test_synthetic_dogs_need_no_file(tmp_path: Path) -> None:
    data = dogs(tmp_path, source="synthetic", limit=4)
    data.setup()
    assert data.size("train") == 4
