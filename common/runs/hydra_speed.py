"""Steps of Hydra's composition without work that nothing uses; importing this module puts them in place.

Two of them take 40% of its time. Hydra makes, for each config file, a map of all choices made so far, for
defaults that name their choice by an interpolation (`recipe: ${paper}/${dataset}`), of which most files have
none. And it copies its ConfigStore, with all that stands in it, to be able to replace the list of sources.
Of what is left OmegaConf's reader of YAML takes a quarter: it makes its class anew for each file, and reads
by Python alone; here the class is made once, upon libyaml where that is there. What is composed is the same
(tests compare both); it is Hydra 1.3's and OmegaConf 2.3's own code that is stood in for.
"""

import copy
from functools import cache
from importlib import import_module
from typing import Any

import omegaconf._utils
import yaml
from hydra._internal import config_repository, defaults_list
from hydra.core.default_element import InputDefault
from omegaconf import DictConfig

_map_of_choices = defaults_list._create_interpolation_map
_new_loader = omegaconf._utils.get_yaml_loader


def _map_where_used(
    overrides: defaults_list.Overrides, defaults: list[InputDefault], self_added: bool
) -> DictConfig | None:
    """The map of choices for a file of which a default is an interpolation; None for another."""
    if any(not default.is_self() and default.is_interpolation() for default in defaults):
        return _map_of_choices(overrides, defaults, self_added)
    return None


def _share_sources(self: Any, delegate: Any) -> None:
    """Keep a repository whose sources can be replaced, and are the same until then."""
    self.delegate = copy.copy(delegate)
    self.cache = {}


@cache
def _loader() -> Any:
    """OmegaConf's loader of YAML, with its rules of what is a number and its refusal of double keys."""
    own: Any = _new_loader()
    if not yaml.__with_libyaml__:
        return own
    parser: Any = import_module("yaml._yaml").CParser

    class Fast(parser, own):
        def __init__(self, stream: Any) -> None:
            parser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Fast


omegaconf._utils.get_yaml_loader = _loader
defaults_list._create_interpolation_map = _map_where_used  # type: ignore[assignment]
config_repository.CachingConfigRepository.__init__ = _share_sources  # type: ignore[method-assign]
