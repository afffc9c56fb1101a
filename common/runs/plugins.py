"""Launchers and sweepers that are plugins of Hydra: imported where they are chosen, named where missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from common.base.errors import UserError
from common.runs.words import MULTIRUN
from common.tables.tables import unknown

GROUPS = ("hydra/launcher", "hydra/sweeper")
# choice -> (Hydra's plugin, the extra that installs it)
PLUGINS = {
    "hydra/launcher=ray": ("hydra_ray_launcher", "cluster"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "sweep"),
}
# choice -> Hydra's plugin, of all that this package knows
KNOWN = {choice: plugin for choice, (plugin, _) in PLUGINS.items()} | {
    "hydra/launcher=joblib": "hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "hydra_submitit_launcher",
    "hydra/launcher=submitit_slurm": "hydra_submitit_launcher",
}


def choices_of(group: str) -> list[str]:
    """What `hydra/launcher=` or `hydra/sweeper=` may choose."""
    return ["basic", *(word.removeprefix(f"{group}=") for word in KNOWN if word.startswith(f"{group}="))]


def check_plugins(words: list[str]) -> None:
    """Refuse a launcher or a sweeper that does not exist, or whose extra is not installed.

    Raises:
        UserError: the valid ones, or the command that installs it.
    """
    for word in words:
        group, _, choice = word.lstrip("+").partition("=")
        if group in GROUPS and choice not in choices_of(group) and "," not in choice and not _others():
            raise UserError(unknown(group, choice, choices_of(group)))
    for word in set(words) & set(PLUGINS):
        plugin, extra = PLUGINS[word]
        if not _installed(plugin):
            raise UserError(f"{word} is not installed: pip install -e '.[{extra}]'")


def _others() -> bool:
    """Whether plugins of Hydra are installed that this package does not know: what they offer is theirs."""
    spec = find_spec("hydra_plugins")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return bool({module.name for module in iter_modules(places)} - set(KNOWN.values()))


def _installed(plugin: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def load_plugins(words: list[str]) -> None:
    """Let Hydra import its plugins, but for the launchers and sweepers that a command line does not choose.

    By itself Hydra imports all that are installed. It does so for an option, which may list them, and for a
    launcher or a sweeper that is not known here.

    Args:
        words: of the command line.
    """
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton

    wanted = {KNOWN[word] for word in set(words) & set(KNOWN)}
    chosen = [word for word in words if word.lstrip("+").startswith(("hydra/launcher=", "hydra/sweeper="))]
    if any(word.startswith("-") and word not in MULTIRUN for word in words) or set(chosen) - set(KNOWN):
        wanted = set(KNOWN.values())
    if Plugins not in Singleton._instances:
        with _hidden(set(KNOWN.values()) - wanted):
            Plugins.instance()
        return
    for plugin in wanted:
        _add(plugin)


@contextmanager
def _hidden(plugins: set[str]) -> Iterator[None]:
    """Let plugins seem missing: Python imports no module that stands as None in `sys.modules`."""
    names = [name for name in (f"hydra_plugins.{plugin}" for plugin in plugins) if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _add(plugin: str) -> None:
    """Make known to Hydra a plugin that was hidden when it imported the others."""
    from hydra.core.plugins import Plugins

    if _installed(plugin):
        package = import_module(f"hydra_plugins.{plugin}")
        for found in Plugins._scan_all_plugins([package])[0]:
            Plugins.instance().register(found)
