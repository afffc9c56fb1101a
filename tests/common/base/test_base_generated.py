"""What sets without files have in common."""

import pytest
import torch

from common.base.errors import UserError
from common.base.generated import Function
from common.base.objective import Objective
from papers.accelegrad.regression import SyntheticRegression
from papers.saddle.problems import SaddleProblem
from papers.yogi.online import OnlineData


class Square(Function):
    NAME = "square"
    KIND = "objective"


def test_a_function_has_no_examples_and_says_so_whatever_is_asked() -> None:
    data = Square()
    data.setup()
    data.move("cpu")
    assert (data.size("train"), data.has_validation, data.device) == (0, False, torch.device("cpu"))
    for ask in (
        lambda: data.batch("test", slice(None), False),
        lambda: data.loader(0),
        lambda: data.ready(0),
    ):
        with pytest.raises(UserError, match=r"^dataset: square is a function, it has no examples$"):
            ask()


@pytest.mark.parametrize("kind", [Objective, SaddleProblem])
def test_functions_of_every_kind_have_this_base(kind: type) -> None:
    assert issubclass(kind, Function)
    assert not {"batch", "loader", "ready", "size", "has_validation"} & set(vars(kind))


@pytest.mark.parametrize("kind", [OnlineData, SyntheticRegression])
def test_what_is_generated_has_no_part_to_validate_on(kind: type) -> None:
    assert "has_validation" not in vars(kind)
    assert kind.TEST_SIZE == 0  # type: ignore[attr-defined]
