"""Small problems with several quadratic losses, whose Pareto sets are known."""

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.task_spec import TaskSpec
from common.data.shared.in_memory import Options, Part, Split, TensorData


class ParetoQuadratics(TensorData):
    """L_t(z) = sum_i d_ti (z_i - c_ti)^2 / 2 of a representation z = J x: an example is a whole problem.

    d_ti is log-uniform in [1/4, 4], c_t standard normal. Inputs float32 [n, latent, parameters]: J. Targets
    float32 [n, tasks, 2, latent]: d and c. What is tested on is what is trained on.

    Args:
        problems: n, unless `limit` says fewer.
        tasks: T >= 1.
        latent, parameters: numbers of z and of x, with latent <= parameters, so that J has full rank.
        encoder: J: "identity" (needs latent = parameters), "orthonormal" rows, or "gaussian" entries.
        The others as in `TensorData`; `seed` draws the problems.

    Raises:
        UserError: a number out of range.
    """

    NAME: ClassVar = "pareto_quadratics"
    KIND: ClassVar = "multi_task"
    SHAPE: ClassVar[tuple[int, ...]]
    CLASSES: ClassVar = None
    TRAIN_SIZE: ClassVar = 1_000_000
    TEST_SIZE: ClassVar = 1_000_000

    def __init__(
        self,
        *,
        problems: int,
        tasks: int,
        latent: int,
        parameters: int,
        encoder: Literal["identity", "orthonormal", "gaussian"],
        **options: Unpack[Options],
    ) -> None:
        check("problems", problems, problems >= 1, "give at least 1")
        check("tasks", tasks, tasks >= 1, "give at least 1")
        check("latent", latent, 1 <= latent <= parameters, f"give 1 to dataset.parameters={parameters}")
        square = latent == parameters or encoder != "identity"
        check("encoder", encoder, square, "the identity needs dataset.latent = dataset.parameters")
        self.SHAPE = (latent, parameters)  # type: ignore[misc]
        super().__init__(**options)
        self.problems, self.encoder = problems, encoder
        names = (f"task{number}" for number in range(tasks))
        self.TASKS = tuple(TaskSpec(name, "quadratic", latent) for name in names)  # type: ignore[misc]

    def read(self, part: Part) -> Split:
        """All problems."""
        generator = torch.Generator().manual_seed(self.seed)
        latent, parameters = self.shape
        normal = torch.randn(self.problems, latent, parameters, generator=generator)
        shape = (self.problems, len(self.TASKS), latent)
        curvatures = 4 ** (2 * torch.rand(shape, generator=generator) - 1)
        centres = torch.randn(shape, generator=generator)
        return Split(self._encoders(normal), torch.stack([curvatures, centres], dim=2))

    def _encoders(self, normal: Tensor) -> Tensor:
        if self.encoder == "identity":
            return torch.eye(self.shape[0]).expand_as(normal).clone()
        if self.encoder == "orthonormal":
            return torch.linalg.qr(normal.transpose(1, 2)).Q.transpose(1, 2).contiguous()
        return normal

    def _synthetic(self, part: Part) -> Split:
        """The same: there are no files to do without."""
        return self.read(part)
