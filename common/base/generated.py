"""Data sets without files: what is generated, and functions, which have no examples at all."""

from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from common.base.dataset import Batch, DataSet, SplitName
from common.base.errors import UserError
from common.base.loader import BlockLoader


class Generated(DataSet):
    """A set that is made as it is asked for: nothing is read, and there is nothing to validate or test on."""

    CLASSES: ClassVar = None
    TEST_SIZE: ClassVar = 0

    def setup(self, stage: str | None = None) -> None:
        """Nothing to read."""

    def move(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    @property
    def has_validation(self) -> bool:
        return False


class Function(Generated):
    """A function in the place of a data set; asking it for examples is a UserError."""

    TRAIN_SIZE: ClassVar = 0

    def size(self, split: SplitName) -> int:
        return 0

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        self._no_examples()

    def loader(self, seed: int) -> BlockLoader:
        self._no_examples()

    def ready(self, item: Any) -> Batch:
        self._no_examples()

    def _no_examples(self) -> NoReturn:
        raise UserError(f"dataset: {self.NAME} is a function, it has no examples")
