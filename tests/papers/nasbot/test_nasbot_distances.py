"""OTMANN against linear programming, POT's own front and closed forms; what a user's own two networks get."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nasbot_toys import cnn, mlp, relabelled, sampled
from scipy.optimize import linprog

from common.base.errors import UserError
from papers.nasbot import otmann as command
from papers.nasbot.distances import STRUCTURAL_WEIGHTS, Otmann, label_penalties
from papers.nasbot.graph import LABELS, Kind, Layer, Network
from papers.nasbot.transport import SWITCHES, balanced, least_cost

KINDS: list[Kind] = ["cnn", "mlp"]


def costs(one: Network, other: Network, weight: float) -> np.ndarray:
    """C, written from the paper."""
    order = {label: n for n, label in enumerate(LABELS[one.kind])}
    penalties = label_penalties(one.kind)
    found = np.zeros((len(one), len(other)))
    for i, first in enumerate(one.layers):
        for j, second in enumerate(other.layers):
            apart = np.abs(one.path_lengths[i] - other.path_lengths[j])
            structure = 0.5 * (apart[0].mean() + apart[1].mean())
            found[i, j] = penalties[order[first.label], order[second.label]] + weight * structure
    return found


def by_programming(one: Network, other: Network, weight: float) -> float:
    """The least cost by HiGHS, of the problem with inequalities; in shares of the whole mass."""
    m1, m2 = one.masses, other.masses
    total = m1.sum() + m2.sum()
    C = np.where(np.isfinite(c := costs(one, other, weight)), c, 7.65432e5)
    n, m = C.shape
    A = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    bounds = np.concatenate([m1, m2]) / total
    found = linprog((C - 2).ravel(), A_ub=A, b_ub=bounds, method="highs")
    assert found.status == 0
    return float((found.fun + 1) * total)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_linear_programming(kind: Kind) -> None:
    networks = sampled(kind, 4, seed=5)
    d, normalised = Otmann().within(networks)
    for i in range(4):
        for j in range(i):
            total = networks[i].masses.sum() + networks[j].masses.sum()
            for w, weight in enumerate(STRUCTURAL_WEIGHTS):
                expected = by_programming(networks[i], networks[j], weight)
                assert d[w, i, j] == pytest.approx(expected, rel=1e-9)
                assert normalised[w, i, j] == pytest.approx(expected / total, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_symmetric_within_bounds_and_d_keeps_the_triangle_inequality(kind: Kind) -> None:
    networks = sampled(kind, 20, seed=2)
    d, normalised = Otmann().between(networks, networks)
    np.testing.assert_allclose(d, d.transpose(0, 2, 1), rtol=1e-9, atol=1e-6)
    assert (d.diagonal(axis1=1, axis2=2) == 0).all()
    assert normalised.min() >= 0 and normalised.max() <= 1 + 1e-12
    violation = (d[:, :, None, :] - d[:, :, :, None] - d[:, None, :, :]).max()
    assert violation <= 1e-8 * d.max()
    # larger weights of structure make every pair dearer
    assert (np.diff(d, axis=0) >= -1e-6).all()


def test_within_and_between_agree_and_what_is_kept_is_the_same() -> None:
    networks = sampled("mlp", 6)
    otmann = Otmann()
    whole = otmann.between(networks, networks)
    for part, expected in zip(otmann.within(networks, keep=True), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-9)
    again = otmann.within([networks[4], networks[1]], keep=True)
    np.testing.assert_array_equal(again[0][:, 0, 1], otmann.within(networks, keep=True)[0][:, 1, 4])


def test_a_split_layer_and_another_order_are_at_distance_zero() -> None:
    layers = [
        Layer("ip"), Layer("conv3", 16, 1), Layer("conv3", 8, 1), Layer("conv3", 8, 1), Layer("conv3", 32, 1),
        Layer("softmax"), Layer("op"),
    ]  # fmt: skip
    edges = ((0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6))
    split = Network("cnn", tuple(layers), edges)
    whole = cnn(Layer("conv3", 16, 1), Layer("conv3", 16, 1), Layer("conv3", 32, 1))
    assert split.key != whole.key
    np.testing.assert_allclose(Otmann().pair(split, whole), 0.0, atol=1e-12)
    for network in sampled("cnn", 5):
        other = relabelled(network, np.random.default_rng(1))
        np.testing.assert_allclose(Otmann().pair(network, other)[1], 0.0, atol=1e-14)


def test_another_label_costs_its_layers_mass_times_the_penalty() -> None:
    one = cnn(Layer("conv3", 64, 1), Layer("conv3", 64, 1))
    for label, penalty in (("conv5", 0.2), ("conv7", 0.2 * math.sqrt(2)), ("res3", 0.1), ("res5", 0.28)):
        other = cnn(Layer("conv3", 64, 1), Layer(label, 64, 1))
        d, _ = Otmann().pair(one, other)
        np.testing.assert_allclose(d, 64 * 64 * penalty, rtol=1e-12)


def test_layers_that_cannot_be_matched_cost_their_mass_on_both_sides() -> None:
    one, other = cnn(Layer("conv3", 20, 1), Layer("max-pool"), Layer("fc", 10)), cnn(Layer("conv3", 20, 1))
    matching = Otmann([0.0]).match(one, other, 0.0)
    alone = 20 + 0.1 * 20 * 10
    assert matching.distance == pytest.approx(alone, rel=1e-12)
    assert matching.unmatched[0].sum() == pytest.approx(alone, rel=1e-12)
    np.testing.assert_allclose(matching.unmatched[1], 0.0, atol=1e-10)


def test_penalties_are_the_papers() -> None:
    order = {label: n for n, label in enumerate(LABELS["cnn"])}
    found = label_penalties("cnn")
    assert found[order["conv3"], order["conv5"]] == pytest.approx(0.2)
    assert found[order["res3"], order["res7"]] == pytest.approx(0.2 * math.sqrt(2))
    assert found[order["conv3"], order["res3"]] == pytest.approx(0.1)
    assert found[order["max-pool"], order["avg-pool"]] == 0.5
    assert math.isinf(found[order["conv3"], order["fc"]]) and math.isinf(found[order["ip"], order["op"]])
    mlps = {label: n for n, label in enumerate(LABELS["mlp"])}
    found = label_penalties("mlp")
    assert found[mlps["relu"], mlps["elu"]] == found[mlps["tanh"], mlps["logistic"]] == 0.1
    assert found[mlps["relu"], mlps["tanh"]] == 0.25
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_masses_times_a_factor_multiply_d_and_leave_the_normalised_distance(factor: float) -> None:
    one, other = sampled("mlp", 2, seed=4)
    d, normalised = Otmann().pair(one, other)
    copies = []
    for network in (one, other):
        copy = Network(network.kind, network.layers, network.edges)
        copy.__dict__["masses"] = network.masses * factor
        copies.append(copy)
    scaled = Otmann().pair(*copies)
    np.testing.assert_allclose(scaled[0], d * factor, rtol=1e-9)
    np.testing.assert_allclose(scaled[1], normalised, rtol=1e-9)


def test_the_solver_is_pots_emd() -> None:
    ot = pytest.importorskip("ot")
    random = np.random.default_rng(0)
    for n, m in ((2, 3), (15, 20)):
        a, b, C = random.random(n), random.random(m), random.random((n, m))
        a, b = a / a.sum(), b / b.sum()
        value, plan = balanced(a, b, C)
        assert value == pytest.approx(float(ot.emd2(a, b, C)), rel=1e-12)
        np.testing.assert_allclose(plan.sum(1), a, atol=1e-15)


def test_switches_that_keep_backends_away_are_put_back() -> None:
    balanced(np.ones(1), np.ones(1), np.zeros((1, 1)))
    assert not set(SWITCHES) & set(os.environ)


@pytest.mark.slow
def test_a_distance_loads_no_library_of_tensors() -> None:
    code = (
        "import sys\n"
        "from papers.nasbot.distances import Otmann\n"
        "from papers.nasbot.pools import vgg\n"
        "Otmann().pair(vgg(1), vgg(2))\n"
        "print([name for name in ('torch', 'jax', 'tensorflow', 'cupy') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_two_kinds_and_wrong_weights_get_one_line() -> None:
    with pytest.raises(UserError, match="cnn and mlp"):
        Otmann().pair(cnn(Layer("conv3", 8, 1)), mlp(Layer("relu", 8)))
    for weights in ([], [-1.0], [math.nan]):
        with pytest.raises(UserError, match="structural weights"):
            Otmann(weights)


# --- the command


def written(path: Path, network: Network) -> str:
    path.write_text(json.dumps(network.to_json()))
    return str(path)


def test_the_command_tells_distances_and_draws_the_matching(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = written(tmp_path / "a.json", cnn(Layer("conv3", 64, 1), Layer("fc", 16)))
    other = written(tmp_path / "b.json", cnn(Layer("conv5", 64, 1), Layer("max-pool"), Layer("fc", 16)))
    picture = tmp_path / "m.svg"
    assert command.main([one, other, "--picture", str(picture), "--weight", "0.4"]) == 0
    said = capsys.readouterr().out
    d, _ = Otmann([0.4]).pair(*(Network.from_json(json.loads(Path(p).read_text())) for p in (one, other)))
    assert f"{d[0]:.6g}" in said and "max-pool" in said and "stays alone" in said
    assert picture.read_text().startswith("<?xml") and "conv5 64" in picture.read_text()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{", "no JSON"), ('{"kind": "cnn"}', "is told as")]
)
def test_the_command_says_what_is_wrong_with_a_file_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert command.main([str(path), str(path)]) == 1
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and "a.json" in told


def test_a_list_of_pairs_gives_the_value_of_all_of_them() -> None:
    random = np.random.default_rng(0)
    for share in (0.1, 0.3, 0.9):
        n, m = 12, 9
        supplies, demands = random.random(n), random.random(m)
        supplies, demands = np.append(supplies, demands.sum()), np.append(demands, supplies.sum())
        costs = np.where(random.random((n + 1, m + 1)) < share, random.random((n + 1, m + 1)), 3.0)
        costs[-1], costs[:, -1] = 1.0, 1.0
        costs[-1, -1] = 0.0
        supplies, demands = supplies / supplies.sum(), demands / demands.sum()
        expected, _ = balanced(supplies, demands, costs)
        assert least_cost(supplies, demands, costs, 2.0) == pytest.approx(expected, rel=1e-12)
