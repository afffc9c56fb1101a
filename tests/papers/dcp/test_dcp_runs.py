"""The runs of dcp: what each leaves, says, refuses, and hands on."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.runs import own
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.inheritance import stage_run, stage_words
from common.runs.request import Outcome
from common.runs.runner import execute
from common.runs.trained import find, trained
from papers.dcp import selection_module
from papers.dcp.selection import Selection, SelectionFailed
from papers.dcp.selection_module import PICTURE
from papers.dcp.selectors import Greedy, Target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]

OWN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.stem = nn.Conv2d(shape[0], 4, 3, padding=1)
        branch = [nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
        self.branch = nn.Sequential(*branch, nn.Conv2d(6, 4, 3, padding=1))
        self.head = nn.Linear(4, classes)

    def forward(self, images):
        low = self.stem(images)
        return self.head((low + self.branch(low)).relu().mean((2, 3)))
"""
SMALL = [
    *("dataset=digits", "scale=smoke", "dataset.limit=80", "dataset.batch_size=40", "model=convnet_digits"),
    *("model.widths=[4, 4, 6, 6]", "paper.epochs=1", "logger=none", "trainer=cpu"),
]
DCP = ["paper=dcp", *SMALL]
PRUNED = ["method.samples=40"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of these tests lie, which share their pre-training."""
    return tmp_path_factory.mktemp("runs")


def made(folder: Path, *words: str) -> Outcome:
    return execute(*compose([*words, f"output_dir={folder}"]))


def weights(outcome: Outcome) -> dict[str, Any]:
    return torch.load(outcome.path.parent / "last.ckpt", weights_only=True)["state_dict"]


def test_one_command_trains_prepares_selects_and_fine_tunes(folder: Path) -> None:
    """Widths 4, 4, 6, 6 of which half go, but for the last, whose outputs the classifier takes."""
    outcome = made(folder, *DCP, *PRUNED)
    result, metrics = outcome.result, outcome.result["metrics"]
    selection = result["stages"]["selection"]
    assert selection["choices"]["method"] == "selection/dcp"
    assert result["stages"]["start"]["choices"]["method"] == "optimizer/sgd"
    assert metrics["kept_channels"] == [2, 2, 3]
    assert [metrics[f"kept_{number}"] for number in range(4)] == [1, 2, 2, 3]
    whole, small = (
        sum(9 * i * o + 2 * o for i, o in pairwise(w)) for w in ((1, 4, 4, 6, 6), (1, 2, 2, 3, 6))
    )
    assert metrics["parameters"] == small + 7 * 10
    assert metrics["params_reduction"] == (whole + 70) / (small + 70)
    assert metrics["err_gap"] == pytest.approx(metrics["test_error"] - metrics["start_test_error"])
    assert selection["metrics"]["start_test_error"] == metrics["start_test_error"]
    shapes = [tuple(value.shape) for name, value in weights(outcome).items() if value.ndim == 4]
    assert shapes == [(2, 1, 3, 3), (2, 2, 3, 3), (3, 2, 3, 3), (6, 3, 3, 3)]


def test_a_selection_is_judged_by_itself_and_says_the_loss_of_each_pick(folder: Path) -> None:
    result = made(folder, *DCP, "method=selection/dcp", *PRUNED).result
    metrics, history = result["metrics"], result["history"]
    assert history["step"] == [1, 2, 3, 4, 5, 6, 7]
    assert history["layer"] == [1, 1, 2, 2, 3, 3, 3]
    assert history["kept"] == [1, 2, 1, 2, 1, 2, 3]
    assert history["loss"][1] == pytest.approx(history["reconstruction"][1] + history["discrimination"][1])
    assert metrics["layer_losses"] == [history["loss"][i] for i in (1, 3, 6)]
    assert metrics["picks"] == 7
    assert 0 <= metrics["test_error"] <= 100
    assert metrics["err_gap"] == pytest.approx(metrics["test_error"] - metrics["start_test_error"])


def test_only_where_it_is_asked_for_a_selection_leaves_a_picture(folder: Path) -> None:
    plain = made(folder, *DCP, "method=selection/dcp", *PRUNED)
    drawn = made(folder, *DCP, "method=selection/dcp_drawn", *PRUNED)
    assert [(outcome.path.parent / PICTURE).exists() for outcome in (plain, drawn)] == [False, True]
    assert plain.result["metrics"]["layer_losses"] == drawn.result["metrics"]["layer_losses"]


def test_the_pruned_network_of_a_run_is_found_again_and_gives_what_was_judged(folder: Path) -> None:
    words = [*DCP, "method=selection/dcp", *PRUNED, f"output_dir={folder}"]
    result = execute(*compose(words)).result
    found = trained(find(words))
    plan: Any = found.network.pruning
    assert plan["keep"].keys() == {"layers.0.0", "layers.1.0", "layers.2.0"}
    data = found.module.data
    data.setup()
    inputs, targets = data.batch("test", slice(0, data.size("test")), augment=False)
    assert targets is not None
    with torch.no_grad():
        wrong = (found.network(inputs).argmax(1) != targets).float().mean()
    assert 100 * float(wrong) == pytest.approx(result["metrics"]["test_error"], abs=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        ["selection/random_dcp", "method.reconstruction=0"],
        ["selection/dcp", "method.discrimination=0", "method.step=least_squares"],
        ["selection/dcp", "method.direction=backward", "method.score=code"],
        ["selection/dcp", "method.finetune=per_stage"],
        ["selection/thinet"],
        ["selection/channel_lasso"],
        ["selection/apoz", "method.step=backtracking"],
    ],
    ids="_".join,
)
def test_every_selection_keeps_the_channels_that_the_rate_says(words: list[str], folder: Path) -> None:
    metrics = made(folder, *DCP, f"method={words[0]}", *words[1:], *PRUNED).result["metrics"]
    assert metrics["kept_channels"] == [2, 2, 3]
    assert metrics["err_gap"] == pytest.approx(metrics["test_error"] - metrics["start_test_error"])
    assert len(metrics["layer_losses"]) == 3


@pytest.mark.parametrize(
    "method", ["dcp", "random_dcp", "thinet", "channel_lasso", "slimming", "weight_sum", "apoz"]
)
def test_a_pruning_hands_its_settings_to_its_selection(method: str) -> None:
    words = ["method.rate=0.25", "method.samples=null", "method.layers=[layers.1, layers.2]"]
    config, request = compose([*DCP, f"method=pruning/{method}", *words])
    check_config(config)
    named = stage_words(config, "method", "selection")
    assert named is not None
    selection, asked = stage_run(named, "selection", config, request)
    check_config(selection)
    assert asked.choices["method"] == f"selection/{method}".replace("random_dcp", "dcp")
    its = selection.method
    assert (its.rate, its.samples, list(its.layers)) == (0.25, None, ["layers.1", "layers.2"])
    shared = {"score", "step", "steps", "strength", "outputs", "epsilon", "losses"} & config.method.keys()
    assert {key: its[key] for key in shared} == {key: config.method[key] for key in shared}
    assert selection.start == config.start


def test_a_null_that_words_refer_to_is_a_null_in_the_stage() -> None:
    config, _ = compose([*DCP, "method.samples=null"])
    words = stage_words(config, "method", "selection")
    assert words is not None and "method.samples=null" in words and "None" not in words


def test_slimming_removes_a_part_of_all_channels_together(folder: Path) -> None:
    result = made(folder, *DCP, "method=selection/slimming", *PRUNED).result
    assert sum(result["metrics"]["kept_channels"]) == 14 - 7
    assert result["stages"]["prepared"]["choices"]["method"] == "pruning/sparse_scales"


def test_a_width_multiplier_has_the_widths_of_pruning_and_learns_from_new_weights(folder: Path) -> None:
    pruned = made(folder, *DCP, *PRUNED).result["metrics"]
    for method in ("width_multiplier", "width_multiplier_plus"):
        metrics = made(folder, *DCP, f"method=pruning/{method}").result["metrics"]
        sizes = ("parameters", "macs", "kept_channels", "params_reduction", "flops_reduction")
        assert [metrics[name] for name in sizes] == [pruned[name] for name in sizes]
        assert metrics["err_gap"] == metrics["test_error"] - metrics["start_test_error"]


def test_fewer_channels_stay_the_larger_the_tolerance_is(folder: Path) -> None:
    words = [*DCP, "method=selection/dcp", *PRUNED]
    results = [made(folder, *words, f"method.epsilon={epsilon}").result for epsilon in (0, 10)]
    kept = [sum(result["metrics"]["kept_channels"]) for result in results]
    assert kept[0] > kept[1] == 3


def test_another_paper_prunes_and_distils_from_the_unpruned_network_in_one_string(folder: Path) -> None:
    result = made(
        folder,
        *("paper=moonshine", *SMALL, "method=pruning/dcp", "inner=distillation/kd", *PRUNED),
        *("start='paper=yogi method=optimizer/adam'", "teacher=${start}"),
    ).result
    assert result["stages"]["start"]["paper"] == "yogi"
    assert result["stages"]["inner.teacher"]["key"] == result["stages"]["start"]["key"]
    assert result["stages"]["selection"]["paper"] == "dcp"
    assert result["metrics"]["kept_channels"] == [2, 2, 3]
    assert result["metrics"]["err_gap"] == pytest.approx(
        result["metrics"]["test_error"] - result["metrics"]["start_test_error"]
    )


def test_a_file_of_weights_is_pruned(folder: Path, tmp_path: Path) -> None:
    first = made(folder, *DCP, "method=optimizer/adam", "start=null")
    torch.save(
        {name.removeprefix("model."): value for name, value in weights(first).items()}, tmp_path / "net.pt"
    )
    result = made(folder, *DCP, "method=selection/weight_sum", *PRUNED, f"start={tmp_path}/net.pt").result
    assert result["metrics"]["start_test_error"] == first.result["metrics"]["test_error"]
    assert result["metrics"]["kept_channels"] == [2, 2, 3]


def test_a_network_of_the_users_own_is_pruned(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch and its shortcut joined by a sum; only what lies within the branch can go."""
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_opted", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    own.opt_in("own_nets")
    words = ["paper=dcp", "dataset=digits", "scale=smoke", "dataset.limit=80", "logger=none", "trainer=cpu"]
    words += ["import=own_nets", "model._target_=own_nets.Net", *PRUNED]
    metrics = made(folder, *words).result["metrics"]
    assert metrics["kept_channels"] == [3]
    assert metrics["parameters"] == 40 + 4 * 3 * 9 + 3 * 2 + 3 * 4 * 9 + 4 + 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.rate=1"], "method.rate=1; valid: 0 <= rate < 1"),
        (["method.rate=-0.1"], "method.rate=-0.1; valid: 0 <= rate < 1"),
        (["start=null"], "start=null: channels are selected of a trained network"),
        (["method.losses=4"], r"method.losses=4: 4 blocks have no place .*\(valid: 0, 1, 2\)"),
        (["method.layers=[layers.7]"], r"method.layers: .*layers.7 .*layers.1.0, layers.2.0, layers.3.0"),
        (["method.step=exact"], "method.step=exact: Input should be 'backtracking', "),
        (["method.step=least_squares"], "layer layers.1.0: least_squares minimises reconstruction alone"),
        (["method.reconstruction=0", "method.discrimination=0"], "leave no loss"),
        (["debug=one_step"], "takes no minibatch steps"),
        (["clip=1"], "clip=1.0: SelectionModule trains no network by minibatches"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused_in_one_line(
    words: list[str], message: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        made(folder, *DCP, "method=selection/dcp", *PRUNED, *words)
    assert "\n" not in str(caught.value)


def test_a_layer_that_would_lose_all_its_channels_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"layer layers\.\d\.0: would lose all its"):
        made(folder, *DCP, "method=selection/slimming", *PRUNED, "method.rate=0.99")


def test_a_network_of_which_no_channel_can_go_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no two layers have channels between them that are theirs alone"):
        made(
            folder,
            *("paper=dcp", "dataset=digits", "scale=smoke", "model=mlp", "model.hidden=[8]", "trainer=cpu"),
            *("method=selection/weight_sum", "logger=none"),
        )


def test_a_selection_of_another_rate_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"method.rate=0.5: the selection was made with 0.25"):
        made(folder, *DCP, "method.selection='paper=dcp method=selection/weight_sum method.rate=0.25'")


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third layer fails; the command says so, and goes on from the second when it no longer does."""
    words = [*DCP, "method=selection/dcp", *PRUNED, "seed=3", "checkpoint_every=0"]
    whole = Greedy.passes

    def failing(self: Greedy, target: Target, *rest: Any) -> Iterator[Selection]:
        if target.layer == "layers.3.0":
            raise SelectionFailed("layer layers.3.0: its loss is not finite", None)
        yield from whole(self, target, *rest)

    monkeypatch.setattr(selection_module, "ROUND_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(Greedy, "passes", failing)
        with pytest.raises(
            UserError, match=r"layers\.3\.0.*2 of 3 layers are done.*last checkpoint: .*last.ckpt"
        ):
            made(folder, *words)
    outcome = made(folder, *words)
    assert outcome.result["metrics"]["picks"] == 7
    assert len(outcome.result["history"]["step"]) == 7


@pytest.mark.parametrize(("finetune", "stop"), [("joint", 4), ("per_stage", 3)])
def test_a_selection_that_goes_on_ends_with_the_same_bits(
    finetune: str, stop: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the midst of a layer, and from the midst of a stage's fine-tuning."""

    class Stopped(Exception):
        pass

    words = [*DCP, "method=selection/dcp", *PRUNED, f"method.finetune={finetune}", "paper.epochs=12"]
    unbroken = made(folder, *words)
    rounds, count = selection_module.SelectionModule._round, 0

    def counted(self: selection_module.SelectionModule) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise Stopped
        rounds(self)

    monkeypatch.setattr(selection_module, "ROUND_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(selection_module.SelectionModule, "_round", counted)
        with pytest.raises(Stopped):
            made(folder / "stopped", *words, "checkpoint_every=0")
    again = made(folder / "stopped", *words)
    assert again.result["history"] == unbroken.result["history"]
    assert all(torch.equal(weights(again)[name], value) for name, value in weights(unbroken).items())
    for result in (again.result, unbroken.result):
        del result["metrics"]["selection_seconds"]
    assert again.result["metrics"] == unbroken.result["metrics"]
