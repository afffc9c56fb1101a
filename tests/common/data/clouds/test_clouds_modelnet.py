"""ModelNet40 from small files in its makers' three formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.base.errors import UserError
from common.data.clouds.modelnet import NAMES

Make = Callable[..., Any]
RANDOM = np.random.default_rng(0)


@pytest.fixture
def h5() -> Any:
    return pytest.importorskip("h5py", reason="HDF5 is an extra: pip install -e '.[clouds]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "modelnet40").mkdir()
    return tmp_path / "modelnet40"


def deepsets(h5: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    arrays = {
        "tr_cloud": RANDOM.normal(size=(6, 50, 3)), "tr_labels": np.arange(6),
        "test_cloud": RANDOM.normal(size=(4, 50, 3)), "test_labels": np.arange(36, 40), **changes,
    }  # fmt: skip
    with h5.File(folder / "modelnet40_cloud.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return arrays


def test_of_deepsets_file_the_same_points_of_all_clouds_are_taken(make: Make, h5: Any, folder: Path) -> None:
    arrays = deepsets(h5, folder)
    data = make("modelnet40", points=20, verify=False)
    data.setup()
    found = data.train.inputs.numpy()
    places = [int((arrays["tr_cloud"][0].astype(np.float32) == point).all(1).argmax()) for point in found[0]]
    assert len(set(places)) == 20
    assert np.array_equal(found, arrays["tr_cloud"][:, places].astype(np.float32))
    assert np.array_equal(data.test.inputs, arrays["test_cloud"][:, places].astype(np.float32))
    assert data.test.targets.tolist() == [36, 37, 38, 39] and data.class_names() == list(NAMES)
    assert (
        set(data.sources()) == {"modelnet40"} and data.sources()["modelnet40"].name == "modelnet40_cloud.h5"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tr_cloud": np.full((6, 50, 3), np.nan)}, "train cloud 1 is one point, or not finite"),
        ({"tr_cloud": np.ones((6, 50, 3))}, "train cloud 1 is one point, or not finite"),
        ({"tr_labels": np.arange(5)}, "6 train clouds and 5 classes"),
        ({"tr_labels": np.arange(36, 42)}, "a class 41, not 0 to 39"),
    ],
)
def test_a_damaged_file_is_one_line(make: Make, h5: Any, folder: Path, changes: Any, told: str) -> None:
    deepsets(h5, folder, **changes)
    with pytest.raises(UserError, match=told):
        make("modelnet40", points=20, verify=False).setup()


def test_more_points_than_there_are_and_other_numbers_of_clouds_are_refused(
    make: Make, h5: Any, folder: Path
) -> None:
    deepsets(h5, folder)
    with pytest.raises(UserError, match=r"dataset.points=51: .* has 50 points of each cloud; give 2 to 50"):
        make("modelnet40", points=51).setup()
    with pytest.raises(UserError, match="6 train clouds instead of 9843"):
        make("modelnet40", points=20).setup()
    (folder / "modelnet40_cloud.h5").write_bytes(b"none")
    with pytest.raises(UserError, match=r"is damaged \(no HDF5 file"):
        make("modelnet40").setup()


def test_pointnets_files_are_turned_so_that_up_is_z(make: Make, h5: Any, folder: Path) -> None:
    where = folder / "modelnet40_ply_hdf5_2048"
    where.mkdir()
    clouds = RANDOM.normal(size=(5, 30, 3)).astype(np.float32)
    for name, rows in (("train0", slice(0, 2)), ("train1", slice(2, 4)), ("test0", slice(4, 5))):
        with h5.File(where / f"ply_data_{name}.h5", "w") as file:
            file["data"], file["label"] = clouds[rows], np.arange(5, dtype=np.uint8)[rows, None]
    data = make("modelnet40", points=30, verify=False)
    data.setup()
    turned = np.stack([clouds[..., 0], -clouds[..., 2], clouds[..., 1]], -1)
    assert np.array_equal(data.train.inputs, turned[:4]) and data.train.targets.tolist() == [0, 1, 2, 3]
    assert np.array_equal(data.test.inputs, turned[4:])


def test_surfaces_are_sampled_once_and_seeded(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.data.clouds.modelnet.DRAWN", 60)
    for n, name in enumerate(NAMES):
        for part in ("train", "test"):
            (folder / "ModelNet40" / name / part).mkdir(parents=True)
            path = folder / "ModelNet40" / name / part / f"{name}_0001.off"
            path.write_text(
                f"OFF4 4 6\n0 0 0\n{n + 1} 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
            )
    data, again = (make("modelnet40", points=40, verify=False) for _ in range(2))
    data.setup()
    assert data.train.targets.tolist() == list(range(40)) and data.train.inputs.shape == (40, 40, 3)
    kept = (folder / "sampled" / "train_clouds.npy").stat().st_mtime_ns
    again.setup()
    assert torch.equal(data.train.inputs, again.train.inputs)
    assert (folder / "sampled" / "train_clouds.npy").stat().st_mtime_ns == kept


def test_without_files_one_line_says_what_to_put_where(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds none of modelnet40_cloud.h5, ModelNet40, .*dataset=solids"
    ) as caught:
        make("modelnet40").setup()
    assert "\n" not in str(caught.value)
    data = make("modelnet40", source="synthetic", points=10)
    data.setup()
    assert data.train.inputs.shape == (512, 10, 3)
