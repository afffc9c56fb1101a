"""The networks that are certified: the paper's own three, and those that a run of ours has trained."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.stages import Stage, require_stage
from common.models.mlp import MLP

# the paper's image number k is MNIST test image order[k]
ORDER = "test_order.npy"


class OfficialNetwork(MLP):
    """One of the paper's networks, with its weights from `data_dir/sdp_cert/<file>` (read by `load`).

    The file holds float32 arrays weight0 [n_1, n_0], bias0 [n_1], weight1, ...

    Args:
        shape, classes: of the data; the networks are for MNIST in [0, 1].
        hidden: sizes of the hidden layers.
        file: its name.
        data_dir: the folder of data.

    Raises:
        UserError: data of another shape.
    """

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, hidden: list[int], file: str, data_dir: str
    ) -> None:
        if int(torch.Size(shape).numel()) != 784 or classes != 10:
            raise UserError(
                f"model: {file} takes 784 inputs of 10 classes, not {tuple(shape)} (valid: dataset=mnist)"
            )
        super().__init__(shape=shape, classes=classes, hidden=hidden, activation="relu")
        self.path = Path(data_dir).expanduser() / "sdp_cert" / file

    @torch.no_grad()
    def load(self) -> None:
        """Read the weights.

        Raises:
            UserError: the file is missing, damaged, or of another network.
        """
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        try:
            with np.load(self.path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
        except FileNotFoundError as error:
            raise UserError(
                f"{self.path.resolve()} is missing: it holds the paper's network (arrays weight0 [out, in], "
                "bias0, ...; alwaysbyx/NN-verification has them as TensorFlow checkpoints); or take "
                "model=trained teacher='model=mlp method=robust/pgd'"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.path.resolve()} is damaged ({error})") from error
        for i, layer in enumerate(linear):
            for name, target in ((f"weight{i}", layer.weight), (f"bias{i}", layer.bias)):
                found = arrays.get(name)
                if found is None or found.shape != tuple(target.shape) or not np.isfinite(found).all():
                    raise UserError(
                        f"{self.path.resolve()} is of another network: {name} is not {tuple(target.shape)}"
                    )
                target.copy_(torch.from_numpy(found))

    def order(self) -> Tensor | None:
        """The order in which the paper takes the test images, where its file is there."""
        path = self.path.parent / ORDER
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64)) if path.exists() else None


class TrainedNetwork(nn.Module):
    """The network of another run, as it was trained.

    Args:
        shape, classes: of the data.
        teacher: the run that trains it.

    Raises:
        UserError: no run was named, or its network is for other data.
    """

    task: ClassVar[Literal["classification"]] = "classification"
    features: ClassVar[tuple[str, ...]] = ()
    STAGES: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, teacher: Stage | str | None) -> None:
        super().__init__()
        self.network = require_stage(teacher, "teacher").model
        with torch.no_grad():
            try:
                found = self.network.eval()(torch.zeros(1, *shape)).shape
            except RuntimeError as error:
                raise UserError(
                    f"teacher: its network does not take inputs of shape {tuple(shape)}"
                ) from error
        if found != (1, classes):
            raise UserError(f"teacher: its network gives {tuple(found)[1:]}, not {classes} logits")

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to logits [b, classes]."""
        return self.network(inputs)
