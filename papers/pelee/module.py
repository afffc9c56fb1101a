"""pelee as a LightningModule: supervised training of classifiers and detectors, and their speed."""

from typing import Any, Unpack

import torch
from torch import nn

from common.base.limits import require
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.training.made_optimizer import made_optimizer
from common.training.supervised import SupervisedModule, Training
from papers.pelee.drawing import draw_detections
from papers.pelee.speed import Speed, SpeedModule

# what tables print in percent, by the metric that it is made of
PERCENT = {"top1": "test_accuracy", "top5": "test_top5_accuracy"}


class PeleeSettings(Training):
    """What a `PeleeModule` takes beside what all supervised training takes.

    Attributes:
        bias_lr: biases of convolutions and linear layers have the learning rate times this, and no weight
            decay (Caffe's usual 2, in the paper's training of detectors); None: all parameters alike.
        pictures: of how many test images a detector's boxes are drawn at the end, into `pictures/` beside
            the result.
    """

    bias_lr: float | None
    pictures: int


class PeleeModule(SupervisedModule):
    """Wang, Li, Ling, "Pelee: A Real-Time Object Detection System on Mobile Devices", NeurIPS 2018.

    Classifiers and detectors are trained alike, by minibatches. With a method of kind `speed` it is a
    `SpeedModule`.

    Args:
        settings: see `PeleeSettings`.

    Raises:
        UserError: as SupervisedModule; a bias_lr that is not positive, pictures below 0.
    """

    def __new__(cls, **settings: Any) -> Any:
        """The module of the kind that the method asks for."""
        if isinstance(settings.get("method"), Speed):
            return SpeedModule(**settings)
        return super().__new__(cls)

    def __init__(self, **settings: Unpack[PeleeSettings]) -> None:
        self.bias_lr, self.pictures = settings.pop("bias_lr"), settings.pop("pictures")  # type: ignore[misc]
        require("positive", "paper", bias_lr=self.bias_lr)
        require("at least 0", "paper", pictures=self.pictures)
        super().__init__(**settings)  # type: ignore[misc]

    def _made_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """One with a group of its own for biases, where they are trained otherwise."""
        if self.bias_lr is None:
            return super()._made_optimizer(parameters)
        biases = {id(bias) for part in self._parts() for bias in biases_of(part)}
        own = [p for p in parameters if id(p) in biases]
        groups: list[Any] = [{"params": [p for p in parameters if id(p) not in biases]}]
        groups += [{"params": own, "weight_decay": 0.0}] if own else []
        optimizer = made_optimizer(self.training_method.optimizer, groups, self.optimizer_key)
        for group in optimizer.param_groups:
            if id(group["params"][0]) in biases:
                group["lr"] *= self.bias_lr
        return optimizer

    def results(self) -> dict[str, Any]:
        """The shared metrics, with `flops` and `params` in millions, as the paper's tables have them.

        Of classifiers `top1` and `top5` in percent. Of detectors boxes are drawn, see `PeleeSettings`.
        """
        found = super().results()
        found |= {name: 100 * found[metric] for name, metric in PERCENT.items() if metric in found}
        network = self.network()
        if self.pictures and getattr(network, "task", None) == "detection":
            draw_detections(network, self.data, self.pictures, self.trainer.default_root_dir)
        return found | {
            "flops": count_macs(network, self.data.shape) / 1e6,
            "params": count_parameters(network) / 1e6,
        }


def biases_of(module: nn.Module) -> list[nn.Parameter]:
    """The biases of a module's convolutions and linear layers; shifts of normalisations are none."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)]
    return [bias for layer in layers if isinstance(bias := layer.bias, nn.Parameter)]
