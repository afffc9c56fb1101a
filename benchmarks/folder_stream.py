"""A folder of JPEG images through the loader's 2 workers, against Pillow's own decoding in 2 processes.

    python -m benchmarks.folder_stream

5,000 JPEG files of 224x224 pixels (sums of smooth random waves and noise, quality 90, about 20 KB each) are
written to a temporary folder. Pillow's rate: `Image.open(path).convert("RGB")` of every file, half of them in
each of two processes, and nothing else. Ours: uint8 batches out of the loader, shuffled, as training gets
them. The two are measured in turn; the ratios are medians over the turns.
"""

import argparse
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

from common.data.images.image_folder import ImageFolder

IMAGES, SIZE, CLASSES, WORKERS, BATCH, TURNS = 5_000, 224, 10, 2, 100, 5


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


def stream_rate(folder: Path, augment: Literal["none", "flip", "resized_crop"]) -> float:
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
        batch_size=BATCH,
        workers=WORKERS,
        folder="images",
        classes=CLASSES,
        size=SIZE,
        resize=256,
        augment=augment,
    )
    data.setup()
    loader = data.loader(seed=0)
    blocks = iter(loader)
    # two batches a worker are decoded ahead: those that are waiting when the clock starts are made up for
    # by those that are waiting when it stops
    for _ in range(2 * WORKERS):
        next(blocks)
    seen, start = 0, time.perf_counter()
    while seen < data.size("train"):
        seen += sum(len(item.images) for item in next(blocks))
    return seen / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.images)
        paths = sorted(folder.glob("images/train/*/*.jpg"))
        rates: dict[str, Callable[[], float]] = {
            "Pillow, open and convert": lambda: pillow_rate(paths),
            "loader, evaluation geometry": lambda: stream_rate(folder, "none"),
            "loader, random resized crop": lambda: stream_rate(folder, "resized_crop"),
        }
        turns = [{what: rate() for what, rate in rates.items()} for _ in range(arguments.turns)]
    for what in rates:
        rate = statistics.median(turn[what] for turn in turns)
        ratio = statistics.median(turn[what] / turn["Pillow, open and convert"] for turn in turns)
        print(f"{what:30} {rate:8,.0f} images/s   {ratio:5.2f} x")


if __name__ == "__main__":
    main()
