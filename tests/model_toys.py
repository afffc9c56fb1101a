"""What the tests of models share: a model from its config, and small real photographs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional

from common.models.weightless import weightless

CONF = Path(__file__).parents[1] / "conf" / "model"


@pytest.fixture(scope="session")
def build_model() -> Callable[..., nn.Module]:
    """conf/model/<name>.yaml on the meta device unless told; further keywords overwrite its keys."""

    def build(
        name: str, shape: tuple[int, ...], classes: int, device: str = "meta", **keys: Any
    ) -> nn.Module:
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | keys
        with weightless() if device == "meta" else torch.device(device):
            return get_object(config.pop("_target_"))(shape=shape, classes=classes, **config)

    return build


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """Eight pieces of 32x32 pixels of scikit-learn's photograph of a flower, 0..1: [8, 3, 32, 32]."""
    image = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1).float().div(255)
    return torch.stack([image[:, 200:232, x : x + 32] for x in range(200, 456, 32)])


@pytest.fixture(scope="session")
def photographs_pass(photographs: Tensor) -> Callable[[nn.Module], bool]:
    """Whether a model's gradients in training and its logits in evaluation on photographs are finite."""

    def finite(model: nn.Module) -> bool:
        loss = functional.cross_entropy(model.train()(photographs), torch.arange(len(photographs)))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return all(tensor.isfinite().all() for tensor in (*gradients, model.eval()(photographs)))

    return finite
