"""What is left out of Hydra's composition changes nothing of what is composed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import omegaconf._utils
import pytest
import yaml
from hydra._internal import config_repository, defaults_list
from omegaconf import OmegaConf

from common.runs import hydra_speed
from common.runs.compose import compose
from common.tables.tables import ROOT

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
    monkeypatch.setattr(omegaconf._utils, "get_yaml_loader", hydra_speed._new_loader)
    expected, its = compose(words)
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected)
    assert (request.choices, request.overrides) == (its.choices, its.overrides)


def test_every_config_file_is_read_as_omegaconf_alone_reads_it() -> None:
    paths = sorted((ROOT / "conf").rglob("*.yaml"))
    assert len(paths) > 300
    for path in paths:
        text = path.read_text()
        slow = yaml.load(text, Loader=hydra_speed._new_loader())
        # as text, since a path of nan equals no other
        assert repr(yaml.load(text, Loader=hydra_speed._loader())) == repr(slow), path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        ("-.inf", float("-inf")),
        ("2026-11-30", "2026-11-30"),
        ("1_000", 1000),
        ("on", True),
        ("1:30", 90),
        ("${a.b}", "${a.b}"),
        ("'é \U0001f600'", "é \U0001f600"),
        ("!!python/object/apply:pathlib.Path [a, b]", Path("a/b")),
    ],
)
def test_a_value_is_read_by_omegaconfs_rules(text: str, value: object) -> None:
    for loader in (hydra_speed._loader(), hydra_speed._new_loader()):
        read = yaml.load(f"key: {text}", Loader=loader)["key"]
        assert read == value and type(read) is type(value)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "a: [1", "a: 1\n\tb: 2", "a: b: c", "a: !nothing 3"])
def test_what_omegaconf_alone_refuses_is_refused_with_its_line(text: str) -> None:
    lines = []
    for loader in (hydra_speed._loader(), hydra_speed._new_loader()):
        with pytest.raises(yaml.MarkedYAMLError) as caught:
            yaml.load(text, Loader=loader)
        assert caught.value.problem_mark is not None
        lines.append(caught.value.problem_mark.line)
    # a list that is not closed ends at the line after it
    assert lines[0] - lines[1] in (0, 1)
