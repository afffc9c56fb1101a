"""SSD's augmentation of photographs in the loader's 2 workers, against Pillow's bare decoding in 2 processes.

    python -m benchmarks.detection_stream [images=600] [turns=3]

JPEG files of 500x375 pixels (sums of smooth random waves and noise, quality 90), with 1 to 5 boxes each, are
written to a temporary folder in VOC's layout. Pillow's rate: `Image.open(path).convert("RGB")` of every file,
half of them in each of two processes. Ours: uint8 batches of 304x304 with their boxes out of the loader,
without augmentation, by the batch sampler, and with distorted colours and larger canvases too. All are
measured in turn; the ratios are medians over the turns.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, command
from benchmarks.folder_stream import WORKERS, images_a_second, pillow_rate
from common.data.detection.detection_data import Augment
from common.data.detection.voc import Bccd

IMAGES, WIDTH, HEIGHT, SIZE, BATCH, TURNS = 600, 500, 375, 304, 32, 3
HALF = 0.5


def write_images(folder: Path, count: int) -> None:
    """`count` JPEG files with annotations in the layout of VOC, the same for training and testing."""
    generator = np.random.default_rng(0)
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    names = [f"{number:05}" for number in range(count)]
    for name in names:
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, np.float32) + generator.normal(0, 8, (HEIGHT, WIDTH, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        (folder / "Annotations" / f"{name}.xml").write_text(annotation(generator))
    for part in ("trainval", "test"):
        (folder / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(names))


def annotation(generator: np.random.Generator) -> str:
    """1 to 5 random boxes as VOC writes them."""
    objects = []
    for _ in range(generator.integers(1, 6)):
        x0, x1 = np.sort(generator.choice(np.arange(1, WIDTH + 1), 2, replace=False))
        y0, y1 = np.sort(generator.choice(np.arange(1, HEIGHT + 1), 2, replace=False))
        corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        objects.append(f"<object><name>RBC</name><bndbox>{corners}</bndbox></object>")
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def stream_rate(data_dir: Path, augment: Augment, batch: int) -> float:
    """Images a second out of one epoch of the training loader, after its first batches."""
    data = Bccd(
        kind="detection",
        data_dir=str(data_dir),
        seed=0,
        source="real",
        limit=None,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=batch,
        workers=WORKERS,
        size=[SIZE, SIZE],
        augment=augment,
    )
    data.setup()
    return images_a_second(data)


def main(tiny: bool = False, images: int = IMAGES, turns: int = TURNS) -> dict[str, Figure]:
    """Measure all four in turn."""
    images, turns, batch = (24, 1, 4) if tiny else (images, turns, BATCH)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "bccd" / "BCCD", images)
        paths = sorted(folder.glob("bccd/BCCD/JPEGImages/*.jpg"))
        rates: dict[str, Callable[[], float]] = {
            "pillow": lambda: pillow_rate(paths),
            "none": lambda: stream_rate(folder, "none", batch),
            "ssd": lambda: stream_rate(folder, "ssd", batch),
            "ssd_distort": lambda: stream_rate(folder, "ssd_distort", batch),
        }
        found = [{what: rate() for what, rate in rates.items()} for _ in range(turns)]
    for what in rates:
        print(f"{what:14} {statistics.median(turn[what] for turn in found):8,.0f} images/s")
    how = {"none": "", "ssd": ", SSD's batch sampler", "ssd_distort": ", SSD's whole augmentation"}
    return {
        name: Figure(
            statistics.median(turn[name] / turn["pillow"] for turn in found),
            "x the images a second",
            f"{images:,} JPEG images of {WIDTH}x{HEIGHT} with boxes, {WORKERS} workers{more}",
            f"Pillow alone, open and convert, {WORKERS} processes",
            at_least=None if name == "none" else HALF,
        )
        for name, more in how.items()
    }


if __name__ == "__main__":
    command(main)
