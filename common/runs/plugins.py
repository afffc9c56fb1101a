"""Launchers and sweepers that come with an extra of this package; one line says so where it is missing."""

from importlib.util import find_spec

from common.base.errors import UserError

# choice -> (Hydra's plugin, the extra that installs it)
PLUGINS = {
    "hydra/launcher=ray": ("hydra_ray_launcher", "cluster"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "sweep"),
}


def check_plugins(words: list[str]) -> None:
    """Refuse a launcher or a sweeper whose extra is not installed.

    Raises:
        UserError: the command that installs it.
    """
    for word in set(words) & set(PLUGINS):
        plugin, extra = PLUGINS[word]
        if not _installed(plugin):
            raise UserError(f"{word} is not installed: pip install -e '.[{extra}]'")


def _installed(plugin: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False
