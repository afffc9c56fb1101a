"""Networks in torch, trainings, the table that they share, and the functions of shape."""

import json
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nasbot_toys import cnn, mlp, relabelled, sampled, space
from torch import nn

from common.base.errors import UserError
from common.data.tables.bundled import Diabetes
from papers.nasbot.graph import Kind, Layer, Network
from papers.nasbot.network import GraphClassifier, GraphNetwork, GraphRegression, Residual
from papers.nasbot.objectives import Recipe, ShapeObjective, TrainedObjective
from papers.nasbot.pools import initial_networks, vgg
from papers.nasbot.synthetic import NetworkFunction, cnn_function, mlp_function
from papers.nasbot.trainings import Trainings

KINDS: list[Kind] = ["cnn", "mlp"]


# --- networks


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_of_the_space_runs_on_odd_sizes_too(kind: Kind) -> None:
    shape = (3, 9, 9) if kind == "cnn" else (7,)
    for network in sampled(kind, 4):
        small = Network(
            kind,
            tuple(layer if layer.units is None else layer._replace(units=4) for layer in network.layers),
            network.edges,
        )
        module = GraphNetwork(small, shape, 5).eval()
        assert module(torch.randn(2, *shape)).shape == (2, 5)


def test_layers_are_concatenated_and_decisions_averaged() -> None:
    layers = (Layer("ip"), Layer("relu", 3), Layer("tanh", 2), Layer("linear"), Layer("linear"), Layer("op"))
    network = Network("mlp", layers, ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5)))
    torch.manual_seed(0)
    module = GraphNetwork(network, (4,), 1).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    maps: list[Any] = [next(m for m in part.modules() if isinstance(m, nn.Linear)) for part in module.layers]
    relu, tanh = maps[0](x).relu(), maps[1](x).tanh()
    expected = (maps[2](torch.cat([relu, tanh], 1)) + maps[3](tanh)) / 2
    torch.testing.assert_close(module(x), expected)


def test_a_chain_of_convolutions_is_the_same_as_nn_sequential() -> None:
    network = cnn(Layer("conv5", 6, 2), Layer("max-pool"), Layer("fc", 4))
    module = GraphNetwork(network, (3, 8, 8), 2).eval()
    first, _, dense, decision = module.layers
    x = torch.randn(2, 3, 8, 8)
    maps = nn.functional.max_pool2d(first(x), 2)
    torch.testing.assert_close(module(x), decision(dense(maps.mean((2, 3)))))
    assert isinstance(first, nn.Sequential) and first[0].kernel_size == (5, 5)  # type: ignore[union-attr]


def test_the_residual_shortcut_is_averaged_padded_or_cut() -> None:
    for units, stride in ((5, 2), (2, 1), (3, 1)):
        layer = Residual(3, units, 3, stride).eval()
        for part in layer.layers:
            if isinstance(part, nn.Conv2d):
                nn.init.zeros_(part.weight)
        x = torch.rand(1, 3, 4, 4)
        kept = nn.functional.avg_pool2d(x, 2) if stride == 2 else x
        out = layer(x)
        torch.testing.assert_close(out[:, : min(units, 3)], kept[:, : min(units, 3)])
        assert not out[:, 3:].any()


def test_crelu_has_twice_its_units() -> None:
    module = GraphNetwork(mlp(Layer("crelu", 3), Layer("relu", 2)), (4,), 1)
    (inner,) = [m for m in module.layers[1].modules() if isinstance(m, nn.Linear)]
    assert inner.in_features == 6


def test_a_found_network_is_built_from_its_file(tmp_path: Path) -> None:
    network = sampled("mlp", 1)[0]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(network.to_json()))
    for told in (str(path), list(network.code), network.to_json()):
        model = GraphRegression(shape=(9,), classes=None, network=told, loss="l1")  # type: ignore[arg-type]
        assert model.graph == network and model(torch.zeros(2, 9)).shape == (2,)
    with pytest.raises(UserError, match="valid here: cnn and softmax"):
        GraphClassifier(shape=(3, 8, 8), classes=10, kind="cnn", network=str(path))
    with pytest.raises(UserError, match="needs classes"):
        GraphClassifier(shape=(3, 8, 8), classes=None, kind="cnn", network=None)
    with pytest.raises(UserError, match="reads images"):
        GraphClassifier(shape=(9,), classes=2, kind="cnn", network=None)


# --- functions of shape


def test_the_synthetic_functions_are_the_codes() -> None:
    # vgg(1): 18 layers in a row, 7 convolutions of kernel 3, stride 1, units 64 64 128 128 128 256 512 128
    # 256 512
    units = np.mean([64, 64, 128, 128, 128, 256, 512, 128, 256, 512])
    common = [
        -0.002 * abs(units - 1000), -0.4 * abs(17 / 18 - 5), -0.2 * abs(17 - 10), -0.5 * abs(1 - 3),
        -0.5 * abs(1 - 4), -0.1 * abs(18 - 30), -0.05 * abs(17 - 100),
    ]  # fmt: skip
    own = [-0.001 * abs(units - 500), -0.3 * abs(18 - 50), -3 * abs(1 - 1.5)]
    assert cnn_function(vgg(1)) == pytest.approx(np.exp(common + own).sum() + 7 / 8, rel=1e-12)
    network = mlp(Layer("relu", 100), Layer("logistic", 300), Layer("tanh", 200))
    common = [
        -0.002 * 800, -0.4 * abs(5 / 6 - 5), -0.2 * 5, -0.5 * 2, -0.5 * 3, -0.1 * 24, -0.05 * 95
    ]  # fmt: skip
    own = [-0.1 * 45, -0.001 * 1800]
    assert mlp_function(network) == pytest.approx(np.exp(common + own).sum() + 2 / 4, rel=1e-12)


def test_the_pools_best_value_of_the_convolutional_function_is_the_specs() -> None:
    values = [cnn_function(network) for network in initial_networks("cnn", "softmax", "fixed")[:10]]
    assert max(values) == pytest.approx(4.13, abs=0.005)


def test_a_function_counts_and_values_networks_of_its_kind() -> None:
    objective = ShapeObjective(space("cnn"), NetworkFunction(kind="network_function", function="cnn"))
    network = vgg(1)
    assert objective.train(network, 1) == {"score": cnn_function(network)}
    counted = objective.count(network)
    assert counted["layers"] == 18 and counted["edges"] == 17 and counted["mass"] == network.masses.sum()
    with pytest.raises(UserError):
        NetworkFunction(kind="network_function", function="rnn")  # type: ignore[arg-type]


# --- trainings


def diabetes(**changes: Any) -> Diabetes:
    settings: dict[str, Any] = {
        "kind": "regression", "data_dir": "data", "seed": 0, "source": "real", "limit": 100,
        "validation": 0.25, "normalise": "standard", "verify": True, "batch_size": 16, "positive": None,
    }  # fmt: skip
    return Diabetes(**(settings | changes))


def objective(folder: Path | None, **changes: Any) -> TrainedObjective:
    settings: dict[str, Any] = {
        "optimizer": partial(torch.optim.Adam, lr=0.01), "seed": 0, "checks": 3, "device": "cpu",
    }  # fmt: skip
    data = diabetes(**changes.pop("data", {}))
    return TrainedObjective(space("mlp"), data, "l1", Recipe(**(settings | changes)), folder)


NETWORK = mlp(Layer("relu", 16), Layer("tanh", 8))


def numbers(measures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if name != "minutes"}


def test_a_training_depends_on_its_network_and_seed_alone() -> None:
    torch.manual_seed(1)
    first = numbers(objective(None).train(NETWORK, 9))
    torch.manual_seed(2)
    assert numbers(objective(None).train(relabelled(NETWORK, np.random.default_rng(0)), 9)) == first
    assert numbers(objective(None, seed=1).train(NETWORK, 9)) != first


def test_the_score_is_minus_the_mean_squared_error_of_the_best_check() -> None:
    whole = objective(None, checks=1)
    seen: list[float] = []
    score = whole._score

    def watched(module: nn.Module, split: Any) -> float:
        found = score(module, split)
        inputs, targets = whole.data.batch(split, slice(0, whole.data.size(split)), augment=False)
        assert targets is not None
        error = (module(inputs) - targets).square().mean().detach()
        assert found == pytest.approx(-float(error), rel=1e-5)
        seen.append(found)
        return found

    whole._score = watched  # type: ignore[method-assign]
    whole.recipe = whole.recipe._replace(checks=4)
    measures = whole.train(NETWORK, 8)
    *checks, test = seen
    assert len(checks) == 4 and measures["score"] == max(checks) and measures["test"] == test


def test_nothing_is_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    real = TrainedObjective._train

    def counted(self: TrainedObjective, architecture: Network, budget: int) -> dict[str, float]:
        trained.append(architecture.key)
        return real(self, architecture, budget)

    monkeypatch.setattr(TrainedObjective, "_train", counted)
    first = objective(tmp_path).train(NETWORK, 4)
    assert objective(tmp_path).train(relabelled(NETWORK, np.random.default_rng(0)), 4) == first
    # where the files lie does not matter
    assert objective(tmp_path, data={"data_dir": "elsewhere"}).train(NETWORK, 4) == first
    assert len(trained) == 1
    for other in (
        objective(tmp_path, seed=1),
        objective(tmp_path, optimizer=partial(torch.optim.Adam, lr=0.02)),
        objective(tmp_path, data={"limit": 90}),
    ):
        other.train(NETWORK, 4)
    objective(tmp_path).train(NETWORK, 5)
    assert len(trained) == 5
    table = list(Trainings(tmp_path))
    assert len(table) == 5 and {row["network"] for row in table} == {NETWORK.key}


def test_a_training_that_diverges_is_no_score_and_is_kept(tmp_path: Path) -> None:
    wild = objective(tmp_path, optimizer=partial(torch.optim.SGD, lr=1e30))
    assert math.isnan(wild.train(NETWORK, 6)["score"])
    assert math.isnan(wild.train(NETWORK, 6)["score"])
    assert len(list(Trainings(tmp_path))) == 1


def test_what_raises_is_not_kept(tmp_path: Path) -> None:
    table = Trainings(tmp_path)

    def fails() -> dict[str, float]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        table.get({"a": 1}, fails)
    assert table.get({"a": 1}, lambda: {"score": 2.0}) == {"score": 2.0}


WRITER = """
import sys, time
from pathlib import Path
from papers.nasbot.trainings import Trainings
folder, mark, slow = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def train():
    with mark.open("a") as file:
        file.write(slow + "\\n")
    print("training", flush=True)
    if slow == "hangs":
        time.sleep(600)
    sys.stdin.readline()
    return {"score": 1.0}
print("started", flush=True)
print(Trainings(folder).get({"network": "x"}, train), flush=True)
"""


def writer(folder: Path, mark: Path, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), str(mark), how]
    root = Path(__file__).resolve().parents[3]
    return subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_once_and_a_killed_one_leaves_nothing_broken(tmp_path: Path) -> None:
    folder, mark = tmp_path / "table", tmp_path / "mark"
    killed = writer(folder, mark, "hangs")
    assert killed.stdout is not None
    assert [killed.stdout.readline() for _ in range(2)][1] == "training\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    one, other = (writer(folder, mark, name) for name in ("one", "other"))
    assert one.stdout is not None and other.stdout is not None
    assert one.stdout.readline() == other.stdout.readline() == "started\n"
    # whichever has the lock waits for a line; the other waits for the lock
    for process in (one, other):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    # not by `communicate`, which misses what a readline has read ahead
    outs = [out.read() for out in (one.stdout, other.stdout)]
    assert [process.wait() for process in (one, other)] == [0, 0]
    assert sum("training" in out for out in outs) == 1
    assert all("{'score': 1.0}" in out for out in outs)
    assert len(mark.read_text().split()) == 2
    assert [row["measures"] for row in Trainings(folder)] == [{"score": 1.0}]


def test_an_objective_travels_without_its_data() -> None:
    import pickle

    whole = objective(None)
    before = len(pickle.dumps(whole))
    whole.train(NETWORK, 1)
    assert len(pickle.dumps(whole)) == before


def test_images_are_classified() -> None:
    from common.data.images.digits import Digits

    data = Digits(
        kind="image_classification", data_dir="data", seed=0, source="real", limit=60, validation=0.25,
        normalise="standard", verify=True, batch_size=16, positive=None, augment="none",
    )  # fmt: skip
    recipe = Recipe(partial(torch.optim.SGD, lr=0.1), 0, 2, "cpu")
    whole = TrainedObjective(space("cnn"), data, "cross_entropy", recipe, None)
    measures = whole.train(cnn(Layer("conv3", 8, 1), Layer("max-pool"), Layer("fc", 8)), 4)
    assert 0 <= measures["score"] <= 1 and 0 <= measures["test"] <= 1
