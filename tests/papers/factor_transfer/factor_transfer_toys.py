"""Small teachers, students and paraphrasers, untrained, as stages."""

import torch
from torch import Tensor, nn

from common.base.stages import Stage
from common.data.images.digits import Digits
from common.models.resnet import ResNet
from common.training.tasks import Classification
from papers.factor_transfer.factor_transfer import FactorTransfer, ParaphraserModel


def digits() -> Digits:
    """Digits, small."""
    data = Digits(
        kind="image_classification",
        data_dir=".",
        seed=0,
        source="real",
        limit=50,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=10,
        positive=None,
        augment="none",
    )
    data.setup()
    return data


def net(width: int, seed: int, blocks: int = 2) -> ResNet:
    """A ResNet with a block in each stage."""
    torch.manual_seed(seed)
    return ResNet(shape=(1, 8, 8), classes=10, blocks=[1] * blocks, width=width, block="basic", shortcut="B")


def stage(model: nn.Module) -> Stage:
    """A model as the runner hands it over."""
    return Stage(words="words", key="key", metrics={}, model=model)


def paraphraser(
    teacher: nn.Module, rate: float = 0.5, feature: str | None = None, batch_norm: bool = False
) -> ParaphraserModel:
    """An untrained paraphraser of a teacher on digits."""
    torch.manual_seed(7)
    return ParaphraserModel(
        shape=(1, 8, 8),
        classes=10,
        teacher=stage(teacher),
        rate=rate,
        reconstruction="l1",
        feature=feature,
        batch_norm=batch_norm,
    )


def factor_transfer(of: nn.Module, model: nn.Module | None, **changes: object) -> FactorTransfer:
    """The method with the authors' values, and the task of digits."""
    options: dict[str, object] = {
        "optimizer": torch.optim.SGD,
        "rate": 0.5,
        "feature": None,
        "translator": True,
        "batch_norm": False,
        "p": 1,
        "reduction": "mean",
        "beta": 500.0,
        "beta_decay": "none",
        "reference_size": None,
        "ce_weight": 1.0,
        "kd_weight": 0.0,
        "temperature": 4.0,
        "kd_reduction": "sample",
    }
    options |= {"teacher": stage(of), "paraphraser": None if model is None else stage(model)}
    method = FactorTransfer(**(options | changes))  # type: ignore[arg-type]
    method.task = Classification(10)
    return method


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether all parameters and buffers are the same bits as before."""
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
