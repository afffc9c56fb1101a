"""A search for a cell: trainings on cached maps against whole networks, two processes against two threads.

    python -m benchmarks.dpc_search

Cells are trained for the same steps on the same images of 128x128 with a MobileNet v2: on its cached maps,
and as whole networks end to end; one process, in turn, by the median. Then 16 cells are trained by two
processes of one thread that share the memory-mapped cache, and by one process of two threads, in turn; the
processes are up before.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.figures import Figure, command, elapsed
from common.architectures.evaluate import Job, Workers, evaluate_all
from common.data.segmentation.camvid import CamVid
from papers.dpc.backbones import padded
from papers.dpc.cached_features import CacheFacts, array_path, write_facts
from papers.dpc.cell import Cell
from papers.dpc.cell_training import CellObjective, NetworkObjective, Recipe, train_briefly
from papers.dpc.network import DeepLab
from papers.dpc.space import CellSpace

SIDE, IMAGES, CELLS, TURNS = 128, 32, 16, 3
# the goals
FASTER, SHARE = 5.0, 0.85


def images(side: int, count: int, batch: int) -> CamVid:
    """Random images with random masks, from memory."""
    data = CamVid(
        size=[side, side], augment="none", crop=None, kind="segmentation", data_dir="data", seed=0,
        source="synthetic", limit=count, validation=0.0, normalise="standard", verify=True, batch_size=batch,
        workers=0,
    )  # fmt: skip
    data.setup()
    return data


def network(side: int, backbone: str, stride: int, filters: int) -> DeepLab:
    """A network with random weights."""
    torch.manual_seed(0)
    return DeepLab(
        shape=(3, side, side), classes=CamVid.CLASSES, backbone=backbone, width=12, output_stride=stride,
        head="top1", filters=filters, decoder=False, pooling="official", pooling_crop=None, dropout=0.1,
        momentum=0.1, weight_decay=0.0, class_weights=None, test_scales=[1.0], test_flip=False,
    )  # fmt: skip


def make_cache(folder: Path, data: CamVid, template: DeepLab) -> None:
    """The maps of all training images, as both splits."""
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    with torch.no_grad():
        maps = template.backbone.eval()(padded(inputs, template.backbone.output_stride))
    for split in ("train", "test"):
        np.save(array_path(folder, "features", split), maps.numpy())
        np.save(array_path(folder, "targets", split), targets.to(torch.uint8).numpy())
    side, sizes = targets.shape[1], {"train": len(maps), "test": len(maps)}
    maps_shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    write_facts(
        folder, CacheFacts("random", CamVid.CLASSES, (side, side), maps_shape, sizes, "float32", None)
    )


def recipe(steps: int, batch: int) -> Recipe:
    """Adam, judged by the test split."""
    return Recipe(partial(torch.optim.Adam, lr=0.01), 0.9, steps, batch, 0, 0.0, None, "test", "cpu")


def cells_a_minute(folder: Path, side: int, steps: int, batch: int, turns: int) -> float:
    """How many times as fast a cell is trained on cached maps as within a whole network."""
    data, template = images(side, IMAGES, batch), network(side, "mobilenet_v2", 16, 256)
    make_cache(folder, data, template)
    settings = recipe(steps, batch)
    cached = CellObjective(CellSpace(), template, folder, settings, measure_test=False)
    whole = NetworkObjective(CellSpace(), template, data, settings, measure_test=False)
    random, times = np.random.default_rng(0), []
    for _ in range(turns):
        cell = CellSpace().sample(random)
        pair = [
            elapsed(partial(train_briefly, side_.build(cell), side_.data, side_.task(), settings, steps))
            for side_ in (cached, whole)
        ]
        times.append(pair[1] / pair[0])
    return statistics.median(times)


def two_processes(folder: Path, steps: int, count: int, turns: int, processes: int = 2) -> float:
    """The time of two processes of one thread over that of one process of two threads, for the same cells."""
    data, template = images(48, 96, 16), network(48, "small", 4, 16)
    make_cache(folder, data, template)
    space = CellSpace(5, [1, 2, 3, 4, 6], [1, 2, 4])
    objective = CellObjective(space, template, folder, recipe(steps, 16), measure_test=False)
    random = np.random.default_rng(1)
    cells = [space.sample(random) for _ in range(count)]

    def jobs(name: str) -> list[Job[Cell]]:
        return [Job(objective, cell, steps, folder / name / f"{k}.json") for k, cell in enumerate(cells)]

    pair = Workers(processes=processes, threads=1)
    evaluate_all(jobs("warm")[:2], pair)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ratios = [
            elapsed(lambda: evaluate_all(jobs(f"two {turn}"), pair))  # noqa: B023
            / elapsed(lambda: evaluate_all(jobs(f"one {turn}"), Workers()))  # noqa: B023
            for turn in range(turns)
        ]
    finally:
        torch.set_num_threads(threads)
    return statistics.median(ratios)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Both ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("large", "small")]
        for folder in folders:
            folder.mkdir()
        if tiny:
            faster = cells_a_minute(folders[0], 33, 1, 2, 1)
            # to start processes takes longer than all the rest
            share = two_processes(folders[1], 1, 2, 1, processes=1)
        else:
            faster = cells_a_minute(folders[0], SIDE, 3, 8, TURNS)
            share = two_processes(folders[1], 20, CELLS, 2)
    return {
        "cached": Figure(
            faster,
            "x as fast",
            "dpc: a cell on the cached maps of a MobileNet v2, 128x128",
            "the whole network, end to end, equal steps",
            at_least=FASTER,
        ),
        "processes": Figure(
            share,
            "x its time",
            "dpc: 16 cells by two processes of one thread on one memory-mapped cache",
            "one process of two threads",
            at_most=SHARE,
        ),
    }


if __name__ == "__main__":
    command(main)
