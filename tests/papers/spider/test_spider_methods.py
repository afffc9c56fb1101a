"""All methods: against slow loops, replicate by replicate, resumed, counted, converging."""

import math

import numpy as np
import pytest
import torch
from spider_toys import BASELINES, METHODS, any_method, baseline, logistic, oracle, quadratics, spider

from common.base.errors import UserError
from papers.spider.method import Method, UniformIterate
from papers.spider.problems.protocol import Oracle
from papers.spider.torch_method import TorchMethod

SIGNED = logistic().rows.numpy()


def slow_gradient(x: np.ndarray, rows: np.ndarray, alpha: float = 0.1) -> np.ndarray:
    """grad of mean log(1 + exp(-z)) + alpha sum w^2 / (1 + w^2), one row at a time."""
    total = np.zeros_like(x)
    for row in rows:
        total += -row / (1 + math.exp(float(row @ x)))
    return total / len(rows) + 2 * alpha * x / (1 + x * x) ** 2


class Recorder:
    """Draws through a real sampler, remembering the samples of each draw."""

    def __init__(self, o: Oracle) -> None:
        self.drawn: list[np.ndarray] = []
        draw = o.problem.draw

        def recording(*arguments):  # type: ignore[no-untyped-def]
            batch = draw(*arguments)
            self.drawn.append(batch.inputs[0].numpy())
            return batch

        o.problem.draw = recording  # type: ignore[method-assign]


def run(method: Method, steps: int, replicates: int = 1, seed: int = 0) -> Oracle:
    problem = logistic()
    o = oracle(problem, replicates, seed)
    method.start(o, problem.start(replicates), own_stop=False)
    for _ in range(steps):
        method.step()
    return o


def test_svrg_agrees_with_a_slow_loop() -> None:
    problem = logistic()
    o = oracle(problem)
    recorder, method = Recorder(o), baseline("svrg", batch_size=5, epoch_length=4, step_size=0.7)
    method.start(o, problem.start(1), own_stop=False)
    for _ in range(10):
        method.step()
    x, batches = np.zeros(4), iter(recorder.drawn)
    for k in range(10):
        if k % 4 == 0:
            snapshot, anchor = x, slow_gradient(x, SIGNED)
        rows = next(batches)
        x = x - 0.7 * (slow_gradient(x, rows) - slow_gradient(snapshot, rows) + anchor)
    np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)
    assert o.counter.ifo == [3 * 60 + 10 * 2 * 5]


def test_sarah_agrees_with_a_slow_loop() -> None:
    problem = logistic()
    o = oracle(problem)
    recorder, method = Recorder(o), baseline("sarah", batch_size=5, epoch_length=4, step_size=0.7)
    method.start(o, problem.start(1), own_stop=False)
    for _ in range(10):
        method.step()
    x, batches = np.zeros(4), iter(recorder.drawn)
    for k in range(10):
        if k % 4 == 0:
            v = slow_gradient(x, SIGNED)
        else:
            rows = next(batches)
            v = slow_gradient(x, rows) - slow_gradient(previous, rows) + v  # noqa: F821
        previous = x  # noqa: F841
        x = x - 0.7 * v
    np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)


def test_snvrg_agrees_with_a_slow_loop() -> None:
    problem = logistic()
    o = oracle(problem)
    recorder, method = Recorder(o), baseline("snvrg", step_size=0.7)
    method.start(o, problem.start(1), own_stop=False)
    T1, T2, B1, B2 = 2, 4, 34, 11
    for _ in range(20):
        method.step()
    x, batches = np.zeros(4), iter(recorder.drawn)
    for k in range(20):
        if k % (T1 * T2) == 0:
            outer = inner = x
            outer_gradient, inner_gradient = slow_gradient(x, SIGNED), np.zeros(4)
        elif k % T2 == 0:
            inner, rows = x, next(batches)
            assert len(rows) == B1
            inner_gradient = slow_gradient(inner, rows) - slow_gradient(outer, rows)
        rows = next(batches)
        assert len(rows) == B2
        last = slow_gradient(x, rows) - slow_gradient(inner, rows)
        x = x - 0.7 * (outer_gradient + inner_gradient + last)
    np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)
    assert o.counter.ifo == [3 * 60 + 2 * 2 * B1 + 20 * 2 * B2]


def test_spider_option_2_agrees_with_a_slow_loop() -> None:
    problem = logistic()
    o = oracle(problem)
    eps, L = 0.05, problem.smoothness
    recorder, method = Recorder(o), spider(2, eps, S2=5, q=4)
    method.start(o, problem.start(1), own_stop=False)
    for _ in range(10):
        method.step()
    x, batches = np.zeros(4), iter(recorder.drawn)
    for k in range(10):
        if k % 4 == 0:
            v = slow_gradient(x, SIGNED)
        else:
            rows = next(batches)
            v = slow_gradient(x, rows) - slow_gradient(previous, rows) + v  # noqa: F821
        previous = x  # noqa: F841
        x = x - min(eps / (L * np.linalg.norm(v)), 1 / (2 * L)) * v
    np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)


def test_sgd_agrees_with_a_slow_loop_with_both_step_rules() -> None:
    for decay in ("constant", "inverse_sqrt"):
        problem = logistic()
        o = oracle(problem)
        recorder, method = Recorder(o), baseline("sgd", batch_size=5, step_size=0.7, decay=decay)
        method.start(o, problem.start(1), own_stop=False)
        for _ in range(6):
            method.step()
        x = np.zeros(4)
        for k, rows in enumerate(recorder.drawn):
            x = x - 0.7 / (math.sqrt(k + 1) if decay == "inverse_sqrt" else 1) * slow_gradient(x, rows)
        np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)
        assert o.counter.ifo == [30]


def test_gradient_descent_takes_steps_of_1_over_l() -> None:
    method = baseline("gd")
    o = run(method, 2)
    x = np.zeros(4)
    for _ in range(2):
        x = x - slow_gradient(x, SIGNED) / o.problem.smoothness
    np.testing.assert_allclose(method.x[0].numpy(), x, rtol=1e-11)
    assert o.counter.ifo == [120]


def test_scsg_epochs_are_geometric_with_mean_b_over_b() -> None:
    method = baseline("scsg", batch_size=2, checkpoint_size=30, step_size=1e-6)
    problem = logistic()
    o = oracle(problem, 20)
    method.start(o, problem.start(20), own_stop=False)
    for _ in range(600):
        method.step()
    inner = 600 * 2 * 2
    checkpoints = [(ifo - inner) / 30 for ifo in o.counter.ifo]
    assert all(c == int(c) for c in checkpoints)
    # epochs of mean length 15: 20 replicates of 600 steps hold 800 + 20, give or take 5 deviations
    assert 820 - 150 < sum(checkpoints) < 820 + 150
    assert len(set(checkpoints)) > 5


def test_scsg_takes_its_settings_from_eps_and_sigma() -> None:
    method = baseline("scsg", eps=0.5)
    o = run(method, 1)
    assert math.ceil(o.problem.sigma**2 / 0.25) == method.B
    assert method.eta == pytest.approx((1 / method.B) ** (2 / 3) / (6 * o.problem.smoothness))
    whole = baseline("scsg", eps=1e-3)
    run(whole, 1)
    assert whole.B == 60 and whole.whole


def test_spiderboost_is_option_2_with_its_cap_active() -> None:
    boost, capped = baseline("spiderboost"), spider(2, 1e6)
    run(boost, 12)
    run(capped, 12)
    torch.testing.assert_close(boost.x, capped.x, rtol=1e-13, atol=1e-13)


def test_sarah_with_spiderboosts_settings_is_spiderboost() -> None:
    boost, sarah = (
        baseline("spiderboost", S2=7, q=9, step_size=0.8),
        baseline("sarah", batch_size=7, epoch_length=9, step_size=0.8),
    )
    run(boost, 20)
    run(sarah, 20)
    assert torch.equal(boost.x, sarah.x)


def test_sarah_step_is_the_formula() -> None:
    method = baseline("sarah", batch_size=3, epoch_length=12)
    o = run(method, 1)
    assert method.eta == pytest.approx(2 / (o.problem.smoothness * (math.sqrt(17) + 1)))


@pytest.mark.parametrize("name", METHODS)
def test_a_replicate_of_a_batch_equals_a_single_run(name: str) -> None:
    batched = any_method(name)
    together = run(batched, 25, replicates=3, seed=4)
    for r in range(3):
        single = any_method(name)
        alone = run(single, 25, replicates=1, seed=4 + r)
        torch.testing.assert_close(batched.x[r : r + 1], single.x, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(batched.returned[r : r + 1], single.returned, rtol=1e-10, atol=1e-12)
        assert together.counter.calls[r] == alone.counter.calls[0]
    assert not torch.allclose(batched.x[0], batched.x[1], rtol=1e-9, atol=0) or name == "gd"


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_is_bit_equal(name: str) -> None:
    unbroken = any_method(name)
    o = run(unbroken, 13, replicates=2)
    states = unbroken.state_dict(), o.state_dict()
    for _ in range(14):
        unbroken.step()
    resumed = any_method(name)
    again = run(resumed, 0, replicates=2, seed=99)
    resumed.load_state_dict(states[0])
    again.load_state_dict(states[1])
    for _ in range(14):
        resumed.step()
    assert torch.equal(resumed.x, unbroken.x)
    assert torch.equal(resumed.returned, unbroken.returned)
    assert again.counter.calls == o.counter.calls


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reaches_eps(name: str) -> None:
    problem = logistic()
    method, o = any_method(name, eps=0.03), oracle(problem, 2)
    method.start(o, problem.start(2), own_stop=False)
    start = float(problem.true_gradient(method.x).norm(dim=1).max())
    best = torch.full((2,), start, dtype=torch.float64)
    for _ in range(100):
        for _ in range(20):
            method.step()
        best = torch.minimum(best, problem.true_gradient(method.x).norm(dim=1))
        if float(best.max()) <= 0.03:
            break
    assert start > 0.1
    assert float(best.max()) <= 0.03


@pytest.mark.parametrize("name", ["gd", "svrg", "snvrg", "sarah", "spiderboost"])
def test_finite_sum_methods_refuse_a_stream(name: str) -> None:
    problem = logistic()
    o = oracle(problem)
    problem.n = None
    with pytest.raises(UserError, match=f"{name} needs a finite sum"):
        baseline(name).start(o, problem.start(1), own_stop=False)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_refuse_a_step_that_is_not_positive(name: str) -> None:
    with pytest.raises(UserError, match=r"method\.step_size=-1\.0"):
        baseline(name, step_size=-1.0)


def test_a_torch_optimizer_is_a_method() -> None:
    method = TorchMethod(lambda parameters: torch.optim.SGD(parameters, lr=0.7), 5)
    sgd = baseline("sgd", batch_size=5, step_size=0.7)
    o = run(method, 10, replicates=2)
    run(sgd, 10, replicates=2)
    torch.testing.assert_close(method.x, sgd.x, rtol=1e-12, atol=1e-12)
    assert o.counter.ifo == [50, 50]


def test_a_torch_optimizer_resumes_bit_equal() -> None:
    def make() -> TorchMethod:
        return TorchMethod(lambda parameters: torch.optim.Adam(parameters, lr=0.1), 5)

    unbroken = make()
    o = run(unbroken, 7)
    states = unbroken.state_dict(), o.state_dict()
    for _ in range(5):
        unbroken.step()
    resumed = make()
    again = run(resumed, 0, seed=9)
    resumed.load_state_dict(states[0])
    again.load_state_dict(states[1])
    for _ in range(5):
        resumed.step()
    assert torch.equal(resumed.x, unbroken.x)


def test_option_2_returns_a_uniform_iterate() -> None:
    problem, R, K = quadratics(4, 1), 4000, 8
    o = oracle(problem, R)
    kept = UniformIterate(o.sampler, problem.start(R), list(range(R)))
    for k in range(K):
        kept.see(k, torch.full((R, 1), float(k), dtype=torch.float64))
    counts = torch.bincount(kept.kept[:, 0].long(), minlength=K)
    # 5 deviations of a binomial with 4000 tries of 1/8
    assert bool(((counts - R / K).abs() < 5 * (R / K * (1 - 1 / K)) ** 0.5).all())


def test_option_1_stops_at_the_level_and_does_not_move_on() -> None:
    problem = logistic()
    o, method = oracle(problem, 2), spider(1, 0.02, eps_tilde_over_eps=1.0)
    method.start(o, problem.start(2), own_stop=True)
    for _ in range(2000):
        if not o.active_rows:
            break
        method.step()
    assert not o.active_rows
    assert float(problem.true_gradient(method.x).norm(dim=1).max()) <= 3 * 0.02
    kept, calls = method.x.clone(), list(o.counter.ifo)
    method.step()
    assert torch.equal(method.x, kept) and o.counter.ifo == calls


def test_option_2_stops_after_k_steps() -> None:
    problem = logistic()
    o, method = oracle(problem), spider(2, 0.3, gap=0.5)
    method.start(o, problem.start(1), own_stop=True)
    while o.active_rows:
        method.step()
    assert method.k == math.floor(4 * problem.smoothness * 0.5 / 0.09) + 1
