"""Every key of every config is used by something: one that is not is refused."""

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from common.base.errors import UserError
from common.runs.check import BUILT, check_config
from common.runs.compose import compose

BASE = ["paper=yogi", "dataset=digits", "scale=smoke"]


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return compose(BASE)[0]


@pytest.mark.parametrize("group", BUILT)
def test_a_misspelt_key_of_a_group_is_refused_by_name(group: str, config: DictConfig) -> None:
    changed = OmegaConf.create(OmegaConf.to_container(config))
    assert isinstance(changed, DictConfig)
    with open_dict(changed):
        changed[group]["learning_rats"] = 1
    with pytest.raises(UserError, match=f"{group}.learning_rats"):
        check_config(changed)


def test_a_misspelt_key_at_the_top_is_refused_by_name(config: DictConfig) -> None:
    changed = OmegaConf.create(OmegaConf.to_container(config))
    assert isinstance(changed, DictConfig)
    with open_dict(changed):
        changed["seeds"] = 1
    with pytest.raises(UserError, match="unknown key=seeds; did you mean seed"):
        check_config(changed)


def test_what_is_composed_passes_whole(config: DictConfig) -> None:
    check_config(config)
