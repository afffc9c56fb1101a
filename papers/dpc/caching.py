"""Making the cache: a run that sends every image through a frozen backbone once and keeps the maps."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.data.segmentation.segmentation_data import IGNORE
from papers.dpc.backbones import padded
from papers.dpc.cached_features import (
    STORED,
    WHAT,
    CachedFeatures,
    CacheFacts,
    Precision,
    array_path,
    write_facts,
)
from papers.dpc.network import DeepLab


class FeatureCache:
    """How a cache is made.

    Args:
        calibrate: first set the running statistics of the backbone's batch normalisations to those of the
            training images: what makes random weights usable. Not for backbones that were trained.
        mirror: keep the mirror image of each training image too, as random mirroring has no place in a cache.
        precision: of the maps: `float32`, or `bfloat16`, half as large.
    """

    NAME: ClassVar = "caching/backbone"

    def __init__(self, *, calibrate: bool, mirror: bool, precision: Precision) -> None:
        self.calibrate, self.mirror, self.precision = calibrate, mirror, precision


class CacheModule(PaperModule):
    """Sends all splits through the backbone, batch by batch, into files that are memory-mapped.

    One training step is one batch. The place is in the checkpoint, and what lies behind it in the files is
    written again where a killed run goes on: the same numbers.

    Args:
        data: images with a class for each pixel.
        model: a `DeepLab`; what comes out is handed on with the cache.
        method: see `FeatureCache`.

    Raises:
        UserError: a network without a backbone.
    """

    STARTS = True

    def __init__(self, *, data: DataSet, model: nn.Module, method: FeatureCache, **_: Any) -> None:
        super().__init__()
        if not isinstance(model, DeepLab):
            raise UserError(
                f"method={method.NAME} keeps what a backbone gives, and {type(model).__name__} has none that "
                "it knows (valid: model=deeplab_small, deeplab_mobilenet_v2, ...)"
            )
        self.data, self.model, self.method = data, model, method
        self.phase = 0
        self.place = 0
        self._files: dict[tuple[str, str], np.memmap] = {}

    def network(self) -> nn.Module:
        return self.model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.data.move(self.device)
        return torch.optim.SGD(self.model.parameters(), lr=0.0)

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        self.data.size("test")
        self.splits: list[SplitName] = ["train"]
        self.splits += ["validation"] if self.data.has_validation else []
        self.splits += ["test"]
        self.phases: list[SplitName | None] = (
            [None, *self.splits] if self.method.calibrate else [*self.splits]
        )

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    @property
    def done(self) -> bool:
        """Whether all is written."""
        return self.phase >= len(self.phases)

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.done
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        if self.method.calibrate and (self.phase, self.place) == (0, 0):
            self._reset_statistics()

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [m for m in self.model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]

    def _reset_statistics(self) -> None:
        for layer in self._norms():
            layer.reset_running_stats()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One batch of the phase under way."""
        self.optimizers().step()  # type: ignore[union-attr]
        split = self.phases[self.phase]
        size = self.data.size(split or "train")
        end = min(size, self.place + self.data.evaluation_batch)
        images, targets = self.data.batch(split or "train", slice(self.place, end), augment=False)
        assert targets is not None
        if split is None:
            self._calibrate(images)
        else:
            self._keep(split, slice(self.place, end), images, targets)
        self.place = end
        if end == size:
            self.phase, self.place = self.phase + 1, 0
        self.trainer.should_stop = self.done

    def _calibrate(self, images: Tensor) -> None:
        """Let the running statistics be means over all batches so far."""
        self.model.backbone.train()
        own = [layer.momentum for layer in self._norms()]
        for layer in self._norms():
            layer.momentum = None
        with torch.no_grad():
            self._maps(images)
        for layer, momentum in zip(self._norms(), own, strict=True):
            layer.momentum = momentum

    def _maps(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.backbone(padded(images, self.model.backbone.output_stride))
        return found

    def _keep(self, split: SplitName, rows: slice, images: Tensor, targets: Tensor) -> None:
        self.model.eval()
        with torch.no_grad():
            maps = self._maps(images)
        self._write(split, rows, maps, targets)
        if split == "train" and self.method.mirror:
            with torch.no_grad():
                maps = self._maps(images.flip(3))
            size = self.data.size("train")
            self._write(split, slice(rows.start + size, rows.stop + size), maps, targets.flip(2))

    def _write(self, split: SplitName, rows: slice, maps: Tensor, targets: Tensor) -> None:
        maps = maps.cpu()
        if self.method.precision == "bfloat16":
            maps = maps.bfloat16().view(torch.uint16)
        height, width = targets.shape[1:]
        count = self._count(split)
        features = self._file("features", split, (count, *maps.shape[1:]), STORED[self.method.precision])
        features[rows] = maps.numpy()
        labels = self._file("targets", split, (count, height, width), np.dtype(np.uint8))
        labels[rows] = targets.clamp(max=IGNORE).to(torch.uint8).cpu().numpy()

    def _count(self, split: SplitName) -> int:
        return self.data.size(split) * (2 if split == "train" and self.method.mirror else 1)

    def _file(self, what: Any, split: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        if (what, split) not in self._files:
            path = array_path(self.folder, what, split)
            # a file that a killed run has begun is gone on with
            mode: Any = "r+" if path.exists() and self._fits(path, shape, dtype) else "w+"
            self._files[what, split] = np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=shape)
        return self._files[what, split]

    @staticmethod
    def _fits(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return False
        return found.shape == shape and found.dtype == dtype

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.trainer.default_root_dir)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for file in self._files.values():
            file.flush()
        super().on_save_checkpoint(checkpoint)

    def on_train_end(self) -> None:
        if not self.done:
            return
        for file in self._files.values():
            file.flush()
        self._files.clear()
        # read anew: a run that goes on when all is written has opened none
        maps, labels = (
            np.load(array_path(self.folder, what, "test"), mmap_mode="r").shape[1:] for what in WHAT
        )
        assert self.data.classes is not None
        facts = CacheFacts(
            self.data.NAME,
            self.data.classes,
            (labels[0], labels[1]),
            (maps[0], maps[1], maps[2]),
            {str(split): self._count(split) for split in self.splits},
            self.method.precision,
            self.data.class_names(),
        )
        write_facts(self.folder, facts)

    def progress(self) -> Progress:
        sizes = [self.data.size(split or "train") for split in self.phases]
        return Progress(sum(sizes[: self.phase]) + self.place, sum(sizes), "images", "")

    def results(self) -> dict[str, Any]:
        """Numbers of cached examples by split, channels and positions of a map, and bytes on disk."""
        cached = CachedFeatures(self.folder, 1)
        files = [array_path(self.folder, what, split) for what in WHAT for split in self.splits]
        channels, height, width = cached.stored.maps
        found = {f"cached_{split}": cached.size(split) for split in self.splits}
        return found | {
            "channels": channels,
            "positions": height * width,
            "megabytes": sum(path.stat().st_size for path in files) / 1e6,
        }

    def search_state(self) -> dict[str, Any]:
        return {"phase": self.phase, "place": self.place}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.phase, self.place = state["phase"], state["place"]
