"""Sets with several tasks: MultiMNIST, quadratics, and Cityscapes with instances and disparity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from common.training.multi_task import MultiTask
from papers.mgda.cityscapes_tasks import View, offsets, turned
from papers.mgda.multi_mnist import overlaid

Make = Callable[..., Any]
SIZE = (64, 128)


def test_pairs_of_mnist_are_pillows_nearest_neighbour_of_the_larger_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randint(256, (2, 3, 28, 28), generator=generator, dtype=torch.uint8)
    for one, other, found in zip(left.numpy(), right.numpy(), overlaid(left, right).numpy(), strict=True):
        canvas = np.zeros((2, 36, 36), np.uint8)
        canvas[0, :28, :28], canvas[1, 6:34, 6:34] = one, other
        shrunk = Image.fromarray(canvas.max(0)).resize((28, 28), Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(shrunk), found)


def test_multi_mnist_names_its_own_digits(need: Callable[[str], Path], data_dir: Path, make: Make) -> None:
    need("mnist")
    data, mnist = make("multi_mnist", data_dir=str(data_dir)), make("mnist", data_dir=str(data_dir))
    data.setup()
    mnist.setup()
    assert (data.size("train"), data.size("test")) == (60_000, 10_000)
    assert torch.equal(data.train.targets[:, 0], mnist.train.targets)
    assert (data.train.targets[:, 1].bincount(minlength=10) > 5000).all()
    # the top left corner is the left digit's alone
    assert torch.equal(
        data.train.inputs[:50, 0, :4, :4], mnist.train.inputs[:50, 0][:, [0, 1, 3, 4]][..., [0, 1, 3, 4]]
    )


def test_multi_mnist_without_files_says_what_to_do(make: Make) -> None:
    with pytest.raises(UserError, match="take dataset=multi_digits, which is bundled"):
        make("multi_mnist").setup()
    with pytest.raises(UserError, match=r"dataset.positive=\[1\]: multi_mnist has many labels an image"):
        make("multi_mnist", positive=[1])


@pytest.mark.parametrize("encoder", ["identity", "orthonormal", "gaussian"])
def test_quadratics_are_problems_of_their_own(make: Make, encoder: str) -> None:
    parameters = 4 if encoder == "identity" else 6
    data = make("pareto_quadratics", problems=5, latent=4, parameters=parameters, encoder=encoder)
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert inputs.shape == (5, 4, parameters) and targets.shape == (5, 3, 2, 4)
    assert (targets[:, :, 0] >= 0.25).all() and (targets[:, :, 0] <= 4).all()
    if encoder != "gaussian":
        torch.testing.assert_close(inputs @ inputs.mT, torch.eye(4).expand(5, 4, 4))
    with pytest.raises(UserError, match=r"dataset.latent=7: give 1 to dataset.parameters=6"):
        make("pareto_quadratics", latent=7, parameters=6)


# ---- Cityscapes


def put(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def make_cityscapes(folder: Path) -> None:
    """Two training images and one for testing: road (7), one car (26, instance 1), sky without disparity."""
    for part, city, number in (("train", "ulm", 0), ("train", "aachen", 1), ("val", "munster", 2)):
        name = f"{city}_00000{number}_000019"
        labels = np.full(SIZE, 7, np.uint8)
        labels[:16] = 23
        labels[32:48, 64:96] = 26
        instances = labels.astype(np.uint16)
        instances[32:48, 64:96] = 26_001
        disparity = np.full(SIZE, 1000 + 100 * number, np.uint16)
        disparity[:16] = 0
        image = np.repeat(labels[..., None] * 5, 3, axis=2)
        put(image, folder / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png")
        put(labels, folder / "gtFine" / part / city / f"{name}_gtFine_labelIds.png")
        put(instances, folder / "gtFine" / part / city / f"{name}_gtFine_instanceIds.png")
        put(disparity, folder / "disparity" / part / city / f"{name}_disparity.png")


def cityscapes(make: Make, folder: Path, **overrides: Any) -> Any:
    make_cityscapes(folder / "cityscapes")
    data = make("cityscapes_tasks", **{"size": list(SIZE), "workers": 0, "batch_size": 2} | overrides)
    data.setup()
    return data


def test_targets_are_of_the_squares_of_8_pixels(make: Make, tmp_path: Path) -> None:
    data = cityscapes(make, tmp_path)
    _, targets = data.batch("test", slice(None), augment=False)
    assert targets.shape == (1, 4, 8, 16) and targets.dtype == torch.float32
    classes, dy, dx, disparity = targets[0]
    assert classes[:2].unique().tolist() == [10] and classes[2].unique().tolist() == [0]
    assert classes[4:6, 8:12].unique().tolist() == [13]
    # the car's centre is (40, 80); its first square's middle (36, 68)
    assert (dy[4, 8].item(), dx[4, 8].item()) == (4.0, 12.0)
    assert dy.isfinite().sum() == dx.isfinite().sum() == 8
    assert disparity[:2].isnan().all()
    # the mean over the training images is 1050, this image has 1200
    torch.testing.assert_close(disparity[2:], torch.full((6, 16), 150 / 2729.068))
    assert [path.name for path in (tmp_path / "cityscapes").glob("*.npy")] == ["disparity_mean_2_8x16.npy"]


def test_a_view_turns_image_and_targets_together(make: Make, tmp_path: Path) -> None:
    data = cityscapes(make, tmp_path, normalise="none")
    torch.manual_seed(0)
    inputs, targets = data.batch("train", slice(None), augment=True)
    middles = inputs[:, 0, 4::8, 4::8]
    known = targets[:, 0] != 255
    wanted = torch.tensor([{0: 35, 10: 115, 13: 130}.get(int(c), 0) for c in targets[:, 0].flatten()])
    near = ((middles - wanted.view_as(middles)).abs() < 30)[known].float().mean()
    assert near > 0.8 and not known.all()


def test_a_mirrored_view_is_the_mirror_image() -> None:
    image = torch.randint(256, (3, 8, 12), dtype=torch.uint8)
    assert torch.equal(turned(image, View(0.0, True), torch.zeros(3)), image.flip(-1))
    assert torch.equal(turned(image, View(0.0, False), torch.zeros(3)), image)


def test_offsets_lead_to_the_mean_place_of_the_instance() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    instances = torch.full((4, 5), 7)
    instances[1:3, 1:4] = 24_000
    found = offsets(instances, y, x)
    assert torch.equal(found[0][1:3, 1:4] + y[1:3, 1:4], torch.full((2, 3), 1.5))
    assert torch.equal(found[1][1:3, 1:4] + x[1:3, 1:4], torch.full((2, 3), 2.0))
    assert found.isfinite().sum() == 12


def test_damaged_and_missing_files_are_named(make: Make, tmp_path: Path) -> None:
    data = cityscapes(make, tmp_path)
    path = next((tmp_path / "cityscapes/disparity/val").rglob("*.png"))
    put(np.zeros((4, 4), np.uint16), path)
    with pytest.raises(UserError, match="4x4 pixels; its image has 128x64"):
        data.batch("test", slice(None), augment=False)
    path.unlink()
    with pytest.raises(UserError, match=r"_disparity.png is missing: Cityscapes needs a login"):
        cityscapes_again = make("cityscapes_tasks", size=list(SIZE), workers=0)
        cityscapes_again.setup()


def test_a_minibatch_without_instances_has_loss_zero_with_a_graph(make: Make, tmp_path: Path) -> None:
    data = cityscapes(make, tmp_path)
    _, targets = data.batch("test", slice(None), augment=False)
    outputs = [torch.randn(1, n, 8, 16, requires_grad=True) for n in (19, 2, 1)]
    for regression in ("l1", "mse"):
        losses = MultiTask(data.TASKS, regression).losses(
            outputs, torch.cat([targets[:, :1].fill_(255), targets[:, 1:].fill_(torch.nan)], 1)
        )
        assert losses.tolist() == [0, 0, 0]
        gradients = torch.autograd.grad(losses.sum(), outputs)
        assert all(not gradient.any() for gradient in gradients)
