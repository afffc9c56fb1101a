"""What is left out of Hydra's composition changes nothing of what is composed."""

import importlib.util
from types import ModuleType

import pytest
from hydra._internal import config_repository, defaults_list
from omegaconf import OmegaConf

from common.runs import hydra_speed
from common.runs.compose import compose

WORDS = [
    ["paper=spider", "scale=smoke", "seed=2"],
    ["paper=factor_transfer", "dataset=digits", "inner=distillation/kd", "method/optimizer=adam"],
    ["entry=yogi.table_ae.mnist_yogi", "scale=laptop", "recipe=${paper}/mnist"],
    ["paper=yogi", "model._target_=my_nets.Net", "stop=early", "trainer=cpu"],
]


def as_hydra_has_it(name: str) -> ModuleType:
    """A module of Hydra, loaded once more."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_config_is_what_hydra_alone_composes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config, request = compose(words)
    fresh = as_hydra_has_it("hydra._internal.config_repository").CachingConfigRepository.__init__
    monkeypatch.setattr(config_repository.CachingConfigRepository, "__init__", fresh)
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", hydra_speed._map_of_choices)
    expected, its = compose(words)
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected)
    assert (request.choices, request.overrides) == (its.choices, its.overrides)
