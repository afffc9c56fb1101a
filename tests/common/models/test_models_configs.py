"""Every model of conf/model: it builds and runs, its file states its size, its features are its stages."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from common.models.features import forward_features

CONF = Path(__file__).parents[3] / "conf" / "model"
# networks that are built upon another one or read words, sets and priors, which are no networks, are tested
# elsewhere
OTHERS = re.compile(
    r"\$\{teacher\}|\?\?\?"
    r"|_target_: (papers\.(saddle\.sets|sdp_cert\.random_signs|mgda\.networks\.LinearEncoder)"
    r"|papers\.(pelee\.detector|pmf_automl|transfer_automl|nao\.recurrent)|common\.(search\.surrogate|detection\.ssd)"
    r"|common\.training\.answering|common\.models\.(char_lstm_crf|transformer))"
)
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if not OTHERS.search(path.read_text()))

# (shape, classes) of CIFAR, MNIST, digits, a table, regression, ImageNet, maps of many channels, clouds of
# points: a model takes one or more
DATA: list[tuple[tuple[int, ...], int | None]] = [
    ((3, 32, 32), 10),
    ((1, 28, 28), 10),
    ((1, 8, 8), 10),
    ((123,), 2),
    ((10,), None),
    ((3, 224, 224), 1000),
    ((16, 4, 4), 2),
    ((100, 3), 40),
]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def fitting(build_model: Callable[..., nn.Module], name: str) -> tuple[tuple[int, ...], nn.Module]:
    """The first shape of DATA that the model takes, and the model for it, in eval mode."""
    return next(fits(build_model, name))


def fits(build_model: Callable[..., nn.Module], name: str) -> Iterator[tuple[tuple[int, ...], nn.Module]]:
    for shape, classes in DATA:
        with suppress(UserError):
            yield shape, build_model(name, shape, classes).eval()


def test_a_model_has_as_many_parameters_as_its_file_says(
    build_model: Callable[..., nn.Module], name: str, fitting: Any
) -> None:
    said = re.search(r"([\d,]+) parameters", (CONF / f"{name}.yaml").read_text().splitlines()[0])
    if said is None:
        pytest.skip("its size follows from the data")
    size = int(said[1].replace(",", ""))
    others = (model for _, model in fits(build_model, name))
    assert any(count_parameters(model) == size for model in chain([fitting[1]], others))


def test_a_model_has_its_size_asserted_by_name(name: str) -> None:
    here = Path(__file__).parent
    texts = [path.read_text() for path in here.glob("test_*.py") if path.name != Path(__file__).name]
    # those of a paper are counted in the paper's tests; some are as large as the data say
    elsewhere = re.search(
        r"_target_: (papers\.|.*analytic|.*hinge|.*lp_)", (CONF / f"{name}.yaml").read_text()
    )
    assert any(f'"{name}"' in text for text in texts) or elsewhere


def test_a_models_features_come_in_order_from_submodules_and_are_not_written_over(fitting: Any) -> None:
    shape, model = fitting
    inputs = torch.empty(2, *shape, device="meta")
    if not getattr(model, "features", ()):
        assert model.task == "analytic" or model(inputs).shape[0] == 2
        return
    runs: list[str] = []
    with ExitStack() as hooks:
        for tap in model.features:
            note = partial(lambda tap, *_: runs.append(tap), tap)
            hooks.enter_context(model.get_submodule(tap).register_forward_hook(note))
        output, features = forward_features(model, inputs)
    assert output.shape[0] == 2
    assert tuple(features) == model.features == tuple(runs)
    assert all(feature.shape[0] == 2 for feature in features.values())
