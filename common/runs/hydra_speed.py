"""Two steps of Hydra's composition without work that nothing uses; importing this module puts them in place.

They take 40% of its time. Hydra makes, for each config file, a map of all choices made so far, for defaults
that name their choice by an interpolation (`recipe: ${paper}/${dataset}`), of which most files have none. And
it copies its ConfigStore, with all that stands in it, to be able to replace the list of sources. What is
composed is the same (a test compares both); it is Hydra 1.3's own code that is stood in for.
"""

import copy
from typing import Any

from hydra._internal import config_repository, defaults_list
from hydra.core.default_element import InputDefault
from omegaconf import DictConfig

_map_of_choices = defaults_list._create_interpolation_map


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


defaults_list._create_interpolation_map = _map_where_used  # type: ignore[assignment]
config_repository.CachingConfigRepository.__init__ = _share_sources  # type: ignore[method-assign]
