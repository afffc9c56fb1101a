"""Compose a config as `run.py` would, without running it."""

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from common.runs import catalogue, hydra_speed, keys
from common.runs.request import Request
from common.runs.table_kind import with_table_kind
from common.runs.words import quoted

__all__ = ["compose", "hydra_speed", "keys"]


def compose(words: list[str]) -> tuple[DictConfig, Request]:
    """The config of a command line, and the request that goes with it.

    Raises:
        UserError: an unknown paper or entry.
    """
    words = with_table_kind(quoted(words))
    catalogue.register(words)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        config = hydra.compose("config", [*words, *catalogue.searched()], return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    HydraConfig.instance().cfg = None
    with open_dict(config):
        del config["hydra"]
    return config, Request(choices, list(words), " ".join(words), terminal=False)
