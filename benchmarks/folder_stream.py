"""A folder of JPEG images through the loader's 2 workers, against Pillow's own decoding in 2 processes.

    python -m benchmarks.folder_stream [images=2000] [turns=5]

2,000 JPEG files of 224x224 pixels (sums of smooth random waves and noise, quality 90, about 20 KB each) are
written to a temporary folder. Pillow's rate: `Image.open(path).convert("RGB")` of every file, half of them in
each of two processes, and nothing else. Ours: uint8 batches out of the loader, shuffled, as training gets
them. The two are measured in turn; the ratios are medians over the turns.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, command
from common.data.images.image_folder import ImageFolder
from common.data.shared.streamed import StreamedData

IMAGES, SIZE, CLASSES, WORKERS, BATCH, TURNS = 2_000, 224, 10, 2, 100, 5


def write_images(folder: Path, count: int) -> None:
    """`count` JPEG files in the layout of ImageNet, the same in train and val."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32
        )
        noisy = smooth + generator.normal(0, 8, smooth.shape)
        path = folder / "images" / "train" / f"class{number % CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    (folder / "images" / "val").symlink_to("train")


def open_all(paths: list[Path]) -> None:
    """Decode every file, as a loop over Pillow does."""
    for path in paths:
        Image.open(path).convert("RGB")


def pillow_rate(paths: list[Path]) -> float:
    """Images a second of `WORKERS` processes that are warm when the clock starts."""
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(open_all, [paths[:20]] * WORKERS)
        start = time.perf_counter()
        pool.map(open_all, [paths[part::WORKERS] for part in range(WORKERS)], chunksize=1)
        return len(paths) / (time.perf_counter() - start)


def stream_rate(folder: Path, augment: Literal["none", "flip", "resized_crop"], batch: int) -> float:
    """Images a second out of one epoch of the training loader, after its first batches."""
    data = ImageFolder(
        kind="image_classification",
        data_dir=str(folder),
        seed=0,
        source="real",
        limit=None,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=batch,
        workers=WORKERS,
        folder="images",
        classes=CLASSES,
        size=SIZE,
        resize=256,
        augment=augment,
    )
    data.setup()
    return images_a_second(data)


def images_a_second(data: StreamedData) -> float:
    """Out of one epoch of the training loader of a set of images, after its first batches."""
    blocks = iter(data.loader(seed=0))
    # two batches a worker are decoded ahead: those that are waiting when the clock starts are made up for
    # by those that are waiting when it stops
    for _ in range(2 * WORKERS):
        next(blocks)
    seen, start = 0, time.perf_counter()
    while seen < data.size("train"):
        seen += sum(len(item.images) for item in next(blocks))
    return seen / (time.perf_counter() - start)


def main(tiny: bool = False, images: int = IMAGES, turns: int = TURNS) -> dict[str, Figure]:
    """Measure all three in turn."""
    images, turns, batch = (40, 1, 4) if tiny else (images, turns, BATCH)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, images)
        paths = sorted(folder.glob("images/train/*/*.jpg"))
        rates: dict[str, Callable[[], float]] = {
            "pillow": lambda: pillow_rate(paths),
            "evaluation": lambda: stream_rate(folder, "none", batch),
            "resized_crop": lambda: stream_rate(folder, "resized_crop", batch),
        }
        found = [{what: rate() for what, rate in rates.items()} for _ in range(turns)]
    for what in rates:
        print(f"{what:14} {statistics.median(turn[what] for turn in found):8,.0f} images/s")
    what = f"{images:,} JPEG images of {SIZE} px from a folder, {WORKERS} workers"
    peer = f"Pillow alone, open and convert, {WORKERS} processes"
    geometry = {"evaluation": "", "resized_crop": ", random resized crops"}
    return {
        name: Figure(
            statistics.median(turn[name] / turn["pillow"] for turn in found),
            "x the images a second",
            what + more,
            peer,
        )
        for name, more in geometry.items()
    }


if __name__ == "__main__":
    command(main)
