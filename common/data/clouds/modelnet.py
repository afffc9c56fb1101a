"""ModelNet40: clouds of 40 classes of CAD models, from any of the three forms in which they are handed on."""

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.base.dataset import Part, check
from common.base.errors import UserError
from common.base.phases import counted
from common.data.clouds.cloud_data import SEED_OF_POINTS, PointClouds
from common.data.clouds.cloud_file import read_points
from common.data.clouds.own_clouds import generator_of, listed
from common.data.shared.download import DamagedError, describe
from common.data.shared.in_memory import Split
from common.data.shared.prepare import prepare

# points that are drawn from each surface, as many as the authors of DeepSets had
DRAWN = 10_000
# clouds that are read at once
SLAB = 256
NAMES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup"),
    *("curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp"),
    *("laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood"),
    *("sink", "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)


class Stored(NamedTuple):
    """Arrays of clouds [n, P, 3], in memory or in files, and their classes [n]."""

    clouds: Any
    labels: NDArray[np.int64]


class ModelNet40(PointClouds):
    """CAD models as clouds (Wu et al., "3D ShapeNets", CVPR 2015), all of them in memory with their points.

    What lies in `data_dir/modelnet40` is read, the first of:

    - `modelnet40_cloud.h5`, 10,000 points of each model, as the code of DeepSets reads it;
    - `ModelNet40/CLASS/train/*.off` and `.../test/*.off`, the makers' surfaces, of which 10,000 points each
      are drawn uniformly by area, once, and kept in `sampled`;
    - `modelnet40_ply_hdf5_2048/ply_data_*.h5`, PointNet's 2,048 points (of three models fewer), whose
      y axis points up and is turned to be z.

    Of the points of each cloud the same `points` are taken, by numbers drawn once for all, as in the code of
    DeepSets.

    Raises:
        UserError: none of them, a damaged one, more points than it has, and without `verify=false` other
            numbers of clouds than the makers'; in `setup`.
    """

    NAME: ClassVar = "modelnet40"
    CLASSES: ClassVar = 40
    CLASS_NAMES: ClassVar = NAMES
    TRAIN_SIZE: ClassVar = 9843
    TEST_SIZE: ClassVar = 2468
    # of PointNet's files
    POINTNET_TRAIN_SIZE: ClassVar = 9840

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.data_dir / "modelnet40"

    @cached_property
    def _form(self) -> tuple[Path, Callable[[Part], Stored]]:
        forms: dict[str, Callable[[Part], Stored]] = {
            "modelnet40_cloud.h5": self._deepsets,
            "ModelNet40": self._surfaces,
            "modelnet40_ply_hdf5_2048": self._pointnet,
        }
        for name, read in forms.items():
            if (self.folder / name).exists():
                return self.folder / name, read
        raise UserError(
            f"{self.folder.resolve()} holds none of {', '.join(forms)}: put ModelNet40.zip (2 GB) of "
            "https://modelnet.cs.princeton.edu there, unpacked, or modelnet40_ply_hdf5_2048.zip (0.4 GB) of "
            "https://shapenet.cs.stanford.edu/media; or take dataset.source=synthetic, or dataset=solids"
        )

    def sources(self) -> dict[str, Path]:
        """The file or folder that is read."""
        try:
            return {"modelnet40": self._form[0]}
        except UserError:
            return {"modelnet40": self.folder}

    def read(self, part: Part) -> Split:
        """All clouds of one part, with `points` points each."""
        path, form = self._form
        stored = form(part)
        count, available = stored.clouds.shape[:2]
        advice = f"{path.name} has {available} points of each cloud; give 2 to {available}"
        check("points", self.points, self.points <= available, advice)
        chosen = np.sort(np.random.default_rng(SEED_OF_POINTS).permutation(available)[: self.points])
        clouds = np.empty((count, self.points, 3), np.float32)
        starts = range(0, count, SLAB)
        for start in counted(starts, f"reading {self.NAME}", len(starts), "slabs"):
            clouds[start : start + SLAB] = stored.clouds[start : start + SLAB][:, chosen]
        self._check(path, part, clouds, stored.labels)
        return Split(torch.from_numpy(clouds), torch.from_numpy(stored.labels))

    def _check(self, path: Path, part: Part, clouds: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        bad = (~np.isfinite(clouds).all((1, 2)) | ~(np.ptp(clouds, axis=1).max(1) > 0)).nonzero()[0]
        fault = ""
        if len(labels) != len(clouds):
            fault = f"{len(clouds)} {part} clouds and {len(labels)} classes of them"
        elif len(bad):
            fault = f"{part} cloud {bad[0] + 1} is one point, or not finite"
        elif len(labels) and not (labels.min() >= 0 and labels.max() < len(NAMES)):
            fault = f"a class {labels.max() if labels.max() >= len(NAMES) else labels.min()}, not 0 to 39"
        if fault:
            raise UserError(describe(path, DamagedError(fault)))
        sizes = {self.TRAIN_SIZE, self.POINTNET_TRAIN_SIZE} if part == "train" else {self.TEST_SIZE}
        if len(labels) not in sizes:
            told = f"{path.resolve()}: {len(labels)} {part} clouds instead of {max(sizes)}"
            if self.verify:
                raise UserError(f"{told} (dataset.verify=false takes it as it is)")
            print(f"{told}; taken as it is (dataset.verify=false)", file=sys.stderr)

    def _deepsets(self, part: Part) -> Stored:
        path, key = self._form[0], "tr" if part == "train" else "test"
        return Stored(_h5(path, f"{key}_cloud"), np.int64(_h5(path, f"{key}_labels")).reshape(-1))

    def _pointnet(self, part: Part) -> Stored:
        files = sorted(self._form[0].glob(f"ply_data_{part}*.h5"))
        if not files:
            raise UserError(f"{self._form[0].resolve()} holds no ply_data_{part}*.h5")
        clouds = np.concatenate([_h5(file, "data")[:] for file in files])
        labels = np.concatenate([np.int64(_h5(file, "label")).reshape(-1) for file in files])
        # turned about x, so that up is z: (x, y, z) becomes (x, -z, y)
        return Stored(np.stack([clouds[..., 0], -clouds[..., 2], clouds[..., 1]], -1), labels)

    def _surfaces(self, part: Part) -> Stored:
        folder = prepare(self.folder / "sampled", self._sample)
        return Stored(
            np.load(folder / f"{part}_clouds.npy", mmap_mode="r"), np.load(folder / f"{part}_labels.npy")
        )

    def _sample(self, scratch: Path) -> None:
        """Draw points of all surfaces, once."""
        for part in ("train", "test"):
            files = listed([self._form[0] / name / part for name in NAMES], NAMES)
            clouds = np.lib.format.open_memmap(
                scratch / f"{part}_clouds.npy", "w+", np.float32, (len(files), DRAWN, 3)
            )
            for n, (path, name, _) in enumerate(
                counted(files, f"sampling the {part} surfaces", len(files), "files")
            ):
                points, _ = read_points(path, DRAWN, generator_of(name))
                clouds[n] = points - points.mean(0)
            clouds.flush()
            np.save(scratch / f"{part}_labels.npy", np.array([label for _, _, label in files], np.int64))


def _h5(path: Path, key: str) -> Any:
    """An array in an HDF5 file, read as it is sliced.

    Raises:
        UserError: h5py is not installed, the file is missing or damaged, or has no such array.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("an HDF5 file needs the package h5py: pip install -e '.[clouds]'") from error
    try:
        return h5py.File(path, "r")[key]
    except KeyError as error:
        raise UserError(describe(path, DamagedError(f"no array {key} in it"))) from error
    except OSError as error:
        fault = error if error.errno else DamagedError("no HDF5 file")
        raise UserError(describe(path, fault)) from error
