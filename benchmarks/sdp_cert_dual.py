"""One target's SDP by the interior-point method against cvxpy's solvers, and PGD-NN's first target.

Run as `python -m benchmarks.sdp_cert_dual [d=24] [hidden=12]`, on one core. Goals: on a 24-12-10 network at
least 5 times faster a target than the faster of Clarabel and SCS at a bound within 1e-3, at least 20 times
where targets are batched (on d=64 hidden=32, which papers/sdp_cert/README.md tells of, the two take 5 to 12
minutes a target); on the paper's PGD-NN (needs data_dir/sdp_cert and MNIST) a certified bound below 0 within
4 minutes where the LP has about +40.
"""

import os
import time
from pathlib import Path

import torch

from benchmarks.figures import Figure, command
from common.data.images.mnist import Mnist
from papers.sdp_cert.bounds import Objective, input_box, interval_bounds, margins, optimised_linear_bounds
from papers.sdp_cert.dual import certified_bound, solve
from papers.sdp_cert.network import read_network, relu_network
from papers.sdp_cert.networks import OfficialNetwork
from papers.sdp_cert.reference import reference_bound
from papers.sdp_cert.relaxation import Relaxation, relax

BATCH = 27
INPUTS, HIDDEN = 24, 12


def digits_like(d: int, hidden: int) -> Relaxation:
    """BATCH targets of three inputs of a random network from d inputs to 10 classes."""
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(n, m, generator=generator).double() / m**0.5 for n, m in ((hidden, d), (10, hidden))
    ]
    network = relu_network(weights, [torch.zeros(hidden), torch.zeros(10)])
    x = torch.rand(3, d, generator=generator).double()
    box = input_box(x, 0.1, True)
    goal = margins(network, network(x).argmax(1))
    return relax(network, interval_bounds(network, box), box, goal, linear_cut=False, layerwise=False)


def against_cvxpy(d: int, hidden: int) -> dict[str, Figure]:
    """Seconds a target, each solver in turn on the same target, then the batch."""
    r = digits_like(d, hidden)
    one = r.take(torch.tensor([0]))
    solve(one, tolerance=1e-3, max_steps=3, decide=False)
    seconds, bounds = {}, {}
    for name in ("interior", "clarabel", "scs"):
        began = time.perf_counter()
        if name == "interior":
            bounds[name] = float(solve(one, tolerance=1e-4, max_steps=100, decide=False).bound)
        else:
            bounds[name] = float(reference_bound(one, name)[0])  # type: ignore[arg-type]
        seconds[name] = time.perf_counter() - began
        print(
            f"{name:<10} N={r.variables} {seconds[name]:8.3f} s a target, bound {bounds[name]:.5f}",
            flush=True,
        )
    began = time.perf_counter()
    solve(r, tolerance=1e-4, max_steps=100, decide=False)
    batched = (time.perf_counter() - began) / len(r)
    print(f"batch of {len(r)} {batched:.4f} s a target")
    what = f"sdp_cert: SDP bound of a {d}-{hidden}-10 network"
    peers = {name: f"cvxpy with {solver}" for name, solver in (("clarabel", "Clarabel"), ("scs", "SCS"))}
    together = f"{what}, a target of {len(r)} at once"
    return {
        name: Figure(
            seconds[name] / seconds["interior"], "x as fast", f"{what}, one target", peer, at_least=5.0
        )
        for name, peer in peers.items()
    } | {
        f"{name}_batched": Figure(seconds[name] / batched, "x as fast", together, peer, at_least=20.0)
        for name, peer in peers.items()
    }


def pgd_nn() -> dict[str, Figure]:
    """The first image's target 0 of the paper's PGD-NN: until the bound is below 0."""
    folder = os.environ.get("DATA_DIR", "data")
    model = OfficialNetwork(
        shape=(1, 28, 28), classes=10, hidden=[200, 100, 50], file="pgd_nn.npz", data_dir=folder
    )
    model.load()
    order = model.order()
    assert order is not None
    network = read_network(model, (1, 28, 28))
    data = Mnist(
        kind="image_classification", data_dir=folder, seed=0, source="real", limit=None, validation=0.0,
        normalise="unit_interval", verify=True, batch_size=1, positive=None, augment="none",
    )  # fmt: skip
    test = data.read("test")
    assert test.targets is not None
    x = test.inputs[order[:1]].flatten(1).double() / 255
    box, goal = input_box(x, 0.1, True), margins(network, test.targets[order[:1]])
    goal = Objective(goal.rows[:, :1], goal.constants[:, :1], goal.targets[:, :1])
    layers = interval_bounds(network, box)
    lp = float(optimised_linear_bounds(network, layers, box, goal, steps=200, lr=0.1, stop_below=None))
    began, worked = time.perf_counter(), time.process_time()
    bound, _, _ = certified_bound(network, layers, box, goal, decide=True)
    spent = time.perf_counter() - began
    print(
        f"PGD-NN, image 0, target 0: LP {lp:.2f}; SDP certified {float(bound):.3f} after {spent:.0f} s "
        f"({time.process_time() - worked:.0f} s of one core)"
    )
    return {
        "pgd_nn": Figure(spent, "s", "sdp_cert: first target of PGD-NN certified", at_most=240.0),
        "pgd_nn_bound": Figure(float(bound), "", "sdp_cert: bound of PGD-NN's first target", at_most=0.0),
    }


def main(tiny: bool = False, d: int = INPUTS, hidden: int = HIDDEN) -> dict[str, Figure]:
    """Against cvxpy on a d-hidden-10 network; PGD-NN where its files are."""
    torch.set_num_threads(1)
    if tiny:
        return against_cvxpy(6, 4)
    figures = against_cvxpy(d, hidden)
    if Path(os.environ.get("DATA_DIR", "data"), "sdp_cert").exists():
        return figures | pgd_nn()
    print("PGD-NN: no data_dir/sdp_cert here, not measured")
    return figures


if __name__ == "__main__":
    command(main)
