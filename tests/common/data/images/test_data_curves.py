"""CURVES: the same images in every run, drawn through their three points with an even stroke."""

from collections.abc import Callable

import torch

from common.data.images.curves import Curves, control_points, draw
from common.data.shared.in_memory import TensorData
from common.data.shared.subsets import stratified_subset

Make = Callable[..., TensorData]


def test_a_stroke_equals_the_slow_line_integral() -> None:
    points = control_points("train")[:3].double()
    time = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    centres = torch.arange(28, dtype=torch.float64) + 0.5
    for start, middle, end in points:
        place = (
            (1 - time)[:, None] * (1 - 2 * time)[:, None] * start
            + 4 * (time * (1 - time))[:, None] * middle
            + (time * (2 * time - 1))[:, None] * end
        )
        length = (place[1:] - place[:-1]).norm(dim=1)
        x, y = ((place[1:] + place[:-1]) / 2).T
        image = torch.zeros(28, 28, dtype=torch.float64)
        for row in range(28):
            distance = (x[:, None] - centres) ** 2 + (y[:, None] - centres[row]) ** 2
            image[row] = (torch.exp(-distance / (2 * 0.49)) * length[:, None]).sum(0)
        expected = (image / (0.7 * (2 * torch.pi) ** 0.5)).clamp(max=1) * 255
        drawn = draw(torch.stack([start, middle, end])[None].float())[0, 0]
        assert (drawn.double() - expected).abs().max() < 2


def test_the_pen_is_dark_at_all_three_points() -> None:
    points = control_points("test")[:200]
    images = draw(points)[:, 0].float()
    for index in range(3):
        column, row = points[:, index].floor().long().T
        # worst case: the pixel's centre lies 0.71 pixels (one radius) beyond the end: Phi(-1) = 0.16
        assert images[torch.arange(200), row, column].min() > 255 * 0.15


def test_curves_stay_inside_the_frame() -> None:
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    ink = draw(control_points("train")[:2000])[:, 0].float()
    assert ink[:, border].sum() < 1e-3 * ink.sum()


def test_the_set_is_the_same_whatever_the_run_seed(make: Make) -> None:
    first, other = make("curves", limit=64, seed=0), make("curves", limit=64, seed=1)
    first.setup()
    other.setup()
    everything = {image.numpy().tobytes() for image in Curves.read(first, "train").inputs}  # type: ignore[arg-type]
    assert not torch.equal(first.train.inputs, other.train.inputs)
    for data in (first, other):
        assert {image.numpy().tobytes() for image in data.train.inputs} <= everything


def test_limit_draws_what_choosing_from_the_whole_set_gives(make: Make) -> None:
    data = make("curves", limit=50, seed=7)
    data.setup()
    chosen = stratified_subset(None, 20_000, 50, torch.Generator().manual_seed(7))
    assert torch.equal(data.train.inputs, draw(control_points("train")[chosen]))


def test_the_full_set_has_the_published_sizes_and_the_pinned_moments(make: Make) -> None:
    data = make("curves", normalise="standard")
    data.setup()
    assert (data.size("train"), data.size("test")) == (20_000, 10_000)
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is None
    assert abs(inputs.mean()) < 1e-2 and abs(inputs.std() - 1) < 1e-2


def test_no_test_curve_is_a_training_curve() -> None:
    both = torch.cat([control_points("train"), control_points("test")]).flatten(1)
    assert len(both.unique(dim=0)) == 30_000
