"""Runs that start from the network of another one, or from a file of weights (`start=`)."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.inheritance import stage_run
from common.runs.keys import identity, run_key
from common.runs.request import Outcome
from common.runs.runner import execute
from common.runs.trained import find, trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SMALL = ["paper=yogi", "dataset=digits", "model=mlp", "dataset.limit=100", "logger=none", "trainer=cpu"]
FIRST = ["method=optimizer/adam", "paper.epochs=1"]
START = " ".join(FIRST)
NOTHING_MORE = ["method=optimizer/sgd", "method.lr=1e-30", "paper.epochs=1"]


def made(folder: Path, *words: str) -> Outcome:
    return execute(*compose([*SMALL, *words, f"output_dir={folder}"]))


def weights(outcome: Outcome) -> dict[str, Any]:
    return torch.load(outcome.path.parent / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_starts_from_the_weights_that_the_run_it_names_ends_with(tmp_path: Path) -> None:
    first = made(tmp_path, *FIRST)
    second = made(tmp_path, *NOTHING_MORE, f"start='{START}'")
    assert second.result["stages"]["start"]["key"] == f"yogi/{first.path.parent.name}"
    assert second.result["metrics"]["start_test_accuracy"] == first.result["metrics"]["test_accuracy"]
    theirs = weights(first)
    assert all(torch.equal(theirs[name], value) for name, value in weights(second).items())


def test_the_network_of_a_run_that_started_from_another_is_found_again(tmp_path: Path) -> None:
    words = [*NOTHING_MORE, f"start='{START}'", f"output_dir={tmp_path}"]
    second = made(tmp_path, *words)
    network = trained(find([*SMALL, *words])).network
    kept = weights(second)
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in network.state_dict().items())


def test_the_path_of_a_runs_checkpoint_is_a_start(tmp_path: Path) -> None:
    first = made(tmp_path, *FIRST)
    by_path = made(tmp_path, *NOTHING_MORE, f"start={first.path.parent}/last.ckpt")
    theirs = weights(first)
    assert all(torch.equal(theirs[name], value) for name, value in weights(by_path).items())


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_file_of_bare_weights_is_a_start_for_the_runs_own_model(tmp_path: Path, prefix: str) -> None:
    first = made(tmp_path, *FIRST)
    theirs = {name.removeprefix("model."): value for name, value in weights(first).items()}
    (tmp_path / "files").mkdir()
    torch.save({prefix + name: value for name, value in theirs.items()}, tmp_path / "files/net.pt")
    second = made(tmp_path, *NOTHING_MORE, f"start={tmp_path}/files/net.pt")
    kept = weights(second)
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in theirs.items())
    assert second.result["stages"]["start"]["words"] == f"{tmp_path}/files/net.pt"


def test_a_start_takes_the_model_and_its_settings_from_the_run(tmp_path: Path) -> None:
    config, request = compose(
        [*SMALL, "model=convnet_digits", "model.widths=[4, 4, 6, 6]", *NOTHING_MORE, f"start='{START}'"]
    )
    its, asked = stage_run(str(config.start), "start", config, request)
    assert asked.choices["model"] == "convnet_digits"
    assert its.model == config.model
    assert its.start is None


def test_a_start_of_the_users_own_network_need_not_name_it_again() -> None:
    own = ["model=own", "model._target_=common.models.mlp.MLP", "model.hidden=[4]", "model.activation=relu"]
    config, request = compose(["paper=yogi", "dataset=digits", *own, f"start='{START}'"])
    its, asked = stage_run(str(config.start), "start", config, request)
    assert asked.choices["model"] == "own"
    assert its.model == config.model


def test_a_start_of_another_size_of_the_runs_architecture_is_another_model() -> None:
    config, request = compose([*SMALL, "model=resnet8", "start='model=resnet20'"])
    with pytest.raises(UserError, match=r"it has model\.depth=20, and this run model\.depth=8"):
        stage_run(str(config.start), "start", config, request)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model=resnet8 method=optimizer/adam", "it is of model=resnet8, and this run has model=mlp"),
        ("method=optimizer/adam model.hidden=[7]", r"it has model.hidden=\[7\], and this run model.hidden"),
        ("method=optimizer/adam dataset.normalise=none", "dataset.normalise"),
        ("nowhere.pt", "nowhere.pt: no such file"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        made(tmp_path, *NOTHING_MORE, f"start='{words}'")
    assert str(caught.value).startswith(f"start={words}: ")


@pytest.mark.parametrize("content", [[1, 2], {"x": 1}, {"state_dict": {"0.weight": "a"}}])
def test_a_file_that_holds_no_weights_of_the_model_is_no_start(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"holds a list|is of another network"):
        made(tmp_path, *NOTHING_MORE, f"start={tmp_path}/net.pt")


def test_a_paper_that_trains_no_network_refuses_a_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start: paper=saddle trains no network by minibatches"):
        execute(*compose(["paper=saddle", f"start='{START}'", f"output_dir={tmp_path}", "logger=none"]))


def test_the_key_of_a_run_without_a_start_is_what_it_was_before_there_were_any() -> None:
    config, _ = compose([*SMALL, *FIRST])
    assert "start" not in identity(config)
    assert run_key(compose([*SMALL, *FIRST, f"start='{START}'"])[0]) != run_key(config)
