"""CIFAR augmentation: batched tensor code against DataLoader with per-sample transforms, on one core.

    python -m benchmarks.data_path

Both give normalised float32 batches of 128 from the same uint8 images, in random order, each cropped at
random after padding by 4 and mirrored at random. The two run in turn, in one process; the numbers are
medians over the turns. The images are random: their content makes no difference to the time.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.figures import Figure, command
from common.data.images.cifar import Cifar10

EXAMPLES, BATCH, TURNS = 2_560, 128, 15

Transform = Callable[[Tensor], Tensor]


def random_crop(image: Tensor) -> Tensor:
    """Pad by 4, cut 32x32 at random."""
    padded = functional.pad(image, (4, 4, 4, 4))
    top, left = int(torch.randint(0, 9, (1,))), int(torch.randint(0, 9, (1,)))
    return padded[:, top : top + 32, left : left + 32]


def random_flip(image: Tensor) -> Tensor:
    """Mirror every other image, on average."""
    return image.flip(-1) if torch.rand(1) < 0.5 else image


def to_float(image: Tensor) -> Tensor:
    """uint8 0..255 to float32 0..1."""
    return image.float().div(255)


class Normalise:
    """Subtract the mean and divide by the standard deviation of each channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        return image.sub(self.mean).div_(self.std)


class PerSample(Dataset[tuple[Tensor, Tensor]]):
    """The usual way: a list of transforms, one image at a time."""

    def __init__(self, images: Tensor, labels: Tensor, transforms: list[Transform]) -> None:
        self.images, self.labels, self.transforms = images, labels, transforms

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        image = self.images[number]
        for transform in self.transforms:
            image = transform(image)
        return image, self.labels[number]


def cifar_like(examples: int) -> Cifar10:
    """Random images of CIFAR-10's shape, augmented as in training."""
    data = Cifar10(
        kind="image_classification",
        data_dir="data",
        seed=0,
        source="synthetic",
        limit=examples,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=BATCH,
        positive=None,
        augment="crop_flip",
    )
    data.setup()
    return data


def samples_per_second(epoch: Callable[[], Iterable[object]], examples: int) -> float:
    """Go through one epoch of batches."""
    start = time.perf_counter()
    for _ in epoch():
        pass
    return examples / (time.perf_counter() - start)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure both in turn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    examples, turns = (BATCH, 1) if tiny else (EXAMPLES, TURNS)
    data = cifar_like(examples)
    assert data.train.targets is not None
    transforms: list[Transform] = [random_crop, random_flip, to_float, Normalise(Cifar10.MEAN, Cifar10.STD)]
    samples = PerSample(data.train.inputs, data.train.targets, transforms)
    loader = DataLoader(samples, BATCH, shuffle=True, num_workers=0)

    def batched() -> Iterable[object]:
        order = torch.randperm(examples).split(BATCH)
        return (data.batch("train", index, augment=True) for index in order)

    rates = [
        (samples_per_second(batched, examples), samples_per_second(lambda: loader, examples))
        for _ in range(turns)
    ]
    print(f"batched tensors    {statistics.median(ours for ours, _ in rates):10,.0f} samples/s")
    print(f"DataLoader, 1 core {statistics.median(theirs for _, theirs in rates):10,.0f} samples/s")
    ratio = statistics.median(ours / theirs for ours, theirs in rates)
    what = "CIFAR crop, flip and normalise on tensors"
    return {"ratio": Figure(ratio, "x as fast", what, "`DataLoader` with per-sample transforms", at_least=10)}


if __name__ == "__main__":
    command(main)
