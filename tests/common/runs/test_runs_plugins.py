import sys

import pytest

from common.base.errors import UserError
from common.runs import plugins


def test_installed_launchers_pass() -> None:
    plugins.check_plugins(["-m", "hydra/launcher=joblib", "hydra/launcher=ray", "hydra/sweeper=optuna"])


@pytest.mark.parametrize(
    ("word", "extra"), [("hydra/launcher=ray", "cluster"), ("hydra/sweeper=optuna", "sweep")]
)
def test_a_missing_plugin_is_named_with_the_extra_that_installs_it(
    word: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hydra has loaded its plugins wherever an earlier test composed a config
    for name in [name for name in sys.modules if name.startswith("hydra_plugins.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra_plugins", None)
    with pytest.raises(UserError, match=rf"{word} is not installed: pip install -e '\.\[{extra}\]'"):
        plugins.check_plugins(["-m", word])


@pytest.mark.parametrize(
    ("word", "near"), [("hydra/launcher=jobllib", "joblib"), ("hydra/sweeper=optna", "optuna")]
)
def test_a_launcher_that_does_not_exist_is_refused_before_hydra_is_asked(word: str, near: str) -> None:
    with pytest.raises(UserError, match=f"unknown {word}; did you mean {near}"):
        plugins.check_plugins(["-m", word])


def test_launchers_of_other_packages_are_left_to_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_others", lambda: True)
    plugins.check_plugins(["hydra/launcher=my_own"])
