"""The Yogi optimizer: a float64 reference, its peers, its invariants, and two claims of the paper."""

import copy
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from common.base.errors import UserError
from papers.yogi import yogi as yogi_file
from papers.yogi.yogi import Yogi

SHAPES = [(3, 4), (5,), ()]


def make_start(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in SHAPES]


def make_gradients(steps: int, seed: int = 1) -> list[list[Tensor]]:
    """Gradients whose size changes from step to step, so that v both rises and falls."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            torch.randn(s, generator=generator, dtype=torch.float64) * 10.0 ** (math.cos(2 * t) - 1)
            for s in SHAPES
        ]
        for t in range(steps)
    ]


def run(optimizer: torch.optim.Optimizer, gradients: list[list[Tensor]]) -> list[Tensor]:
    """Steps with given gradients; the final parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.to(parameter.dtype).clone()
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def reference(
    start: list[np.ndarray], gradients: list[list[np.ndarray]], o: dict[str, Any]
) -> list[np.ndarray]:
    """Algorithm 2 as printed, with every option, one array after the other."""
    mean_square = np.concatenate([g.ravel() ** 2 for g in gradients[0]]).mean()
    b1, b2 = o["betas"]
    finals = []
    for i, x in enumerate(start):
        first = gradients[0][i] ** 2
        v = {"grad_sq": first, "mean_grad_sq": np.full_like(first, mean_square)}.get(o["v_init"])
        v = np.full_like(x, o["v_init"]) if v is None else v
        m = np.full_like(x, o["m_init"])
        for t, step in enumerate(gradients, start=1):
            g = step[i]
            if o["decoupled_weight_decay"]:
                x = x - o["lr"] * o["weight_decay"] * x
            else:
                g = g + o["weight_decay"] * x
            m = b1 * m + (1 - b1) * g
            z = v - g**2
            v = v - (1 - b2) * (np.sign(z) if o["activation"] == "sign" else np.tanh(10 * z)) * g**2
            c1, c2 = 1 - b1**t, 1 - b2**t
            p = {
                "none": lambda v: o["lr"] / (np.sqrt(v) + o["eps"]),
                "outside": lambda v, c1=c1, c2=c2: o["lr"] * np.sqrt(c2) / c1 / (np.sqrt(v) + o["eps"]),
                "inside": lambda v, c1=c1, c2=c2: o["lr"] / c1 / (np.sqrt(v / c2) + o["eps"]),
            }[o["bias_correction"]](v)
            x = x - p * m
            x = np.sign(x) * np.maximum(np.abs(x) - o["l1"] * p, 0) / (1 + o["l2"] * p)
        finals.append(x)
    return finals


CORRECTIONS = ["inside", "outside", "none"]
V_INITS = [1e-6, 0.1, "grad_sq", "mean_grad_sq"]
PROXES = list(itertools.product([0.0, 0.3], [0.0, 0.2]))
DECAYS = [(0.0, False), (0.05, False), (0.05, True)]


@pytest.mark.parametrize("bias_correction", CORRECTIONS)
@pytest.mark.parametrize("v_init", V_INITS)
@pytest.mark.parametrize("activation", ["sign", "tanh"])
def test_every_combination_of_options_follows_the_float64_reference(
    bias_correction: Any, v_init: Any, activation: Any
) -> None:
    gradients = make_gradients(steps=6)
    arrays = [[g.numpy() for g in step] for step in gradients]
    for (l1, l2), (decay, decoupled), m_init in itertools.product(PROXES, DECAYS, [0.0, 1e-2]):
        options = {
            "lr": 0.05,
            "betas": (0.8, 0.9),
            "eps": 1e-2,
            "bias_correction": bias_correction,
            "m_init": m_init,
            "v_init": v_init,
            "l1": l1,
            "l2": l2,
            "weight_decay": decay,
            "decoupled_weight_decay": decoupled,
            "activation": activation,
        }
        measured = run(Yogi(make_start(), **options), gradients)
        expected = reference([p.detach().numpy() for p in make_start()], arrays, options)
        for x, y in zip(measured, expected, strict=True):
            np.testing.assert_allclose(x.numpy(), y, rtol=1e-12, atol=1e-14, err_msg=str(options))


def test_the_proximal_step_of_l1_makes_exact_zeros() -> None:
    final = run(Yogi(make_start(), l1=5.0), make_gradients(steps=100))
    assert all((x == 0).any() for x in final[:2])


@pytest.mark.parametrize(("decay", "decoupled"), DECAYS)
def test_it_equals_the_yogi_of_pytorch_optimizer(decay: float, decoupled: bool) -> None:
    gradients = make_gradients(steps=200)
    ours = Yogi(make_start(), m_init=1e-6, weight_decay=decay, decoupled_weight_decay=decoupled)
    peer = pytorch_optimizer.Yogi(make_start(), weight_decay=decay, weight_decouple=decoupled)
    for x, y in zip(run(ours, gradients), run(peer, gradients), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-14, atol=1e-14)


def test_with_adams_change_of_v_in_place_of_the_sign_it_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    def adam_second_moment(vs: list[Tensor], gs: list[Tensor], beta2: float, _: str) -> None:
        for v, g in zip(vs, gs, strict=True):
            v.sub_((1 - beta2) * ((v - g**2) / g**2) * g**2)

    monkeypatch.setattr(yogi_file, "_update_second_moment", adam_second_moment)
    gradients = make_gradients(steps=100)
    ours = run(Yogi(make_start(), v_init=0.0), gradients)
    adam = run(torch.optim.Adam(make_start(), lr=1e-2, eps=1e-3), gradients)
    for x, y in zip(ours, adam, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


def test_with_a_huge_eps_and_lr_it_is_gradient_descent_on_the_first_moment() -> None:
    gradients = make_gradients(steps=20)
    final = run(Yogi(make_start(), lr=0.1 * 1e12, eps=1e12, bias_correction="none"), gradients)
    for i, (x, start) in enumerate(zip(final, make_start(), strict=True)):
        moment = torch.zeros_like(start)
        expected = start.detach().clone()
        for step in gradients:
            moment = 0.9 * moment + 0.1 * step[i]
            expected -= 0.1 * moment
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)


def test_with_beta2_one_v_stays_what_it_was() -> None:
    optimizer = Yogi(make_start(), betas=(0.9, 1.0), bias_correction="none", v_init=0.25)
    run(optimizer, make_gradients(10))
    assert all((state["v"] == 0.25).all() for state in optimizer.state.values())


@pytest.mark.parametrize("v_init", [9.0, 0.0])
def test_under_a_constant_gradient_v_moves_linearly_towards_its_square(v_init: float) -> None:
    optimizer = Yogi(make_start(), betas=(0.9, 0.99), v_init=v_init)
    g, k = 2.0, 40
    run(optimizer, [[torch.full(s, g, dtype=torch.float64) for s in SHAPES]] * k)
    towards = -1 if v_init > g**2 else 1
    for state in optimizer.state.values():
        torch.testing.assert_close(
            state["v"], torch.full_like(state["v"], v_init + towards * k * 0.01 * g**2)
        )


def test_a_second_moment_equal_to_the_squared_gradient_stays() -> None:
    optimizer = Yogi(make_start(dtype=torch.float32), v_init="grad_sq")
    gradients = make_gradients(steps=1)
    run(optimizer, gradients)
    for state, g in zip(optimizer.state.values(), gradients[0], strict=True):
        assert torch.equal(state["v"], g.float().square())


@settings(max_examples=60, deadline=None)
@given(
    gradients=hnp.arrays(np.float32, (12, 8), elements=st.floats(-1e3, 1e3, width=32)),
    v_init=st.floats(0, 1e6),
    beta2=st.floats(0, 0.999),
    activation=st.sampled_from(["sign", "tanh"]),
)
def test_v_is_never_negative(gradients: np.ndarray, v_init: float, beta2: float, activation: Any) -> None:
    parameter = nn.Parameter(torch.zeros(8))
    optimizer = Yogi([parameter], v_init=v_init, betas=(0.9, beta2), activation=activation)
    for gradient in torch.from_numpy(gradients):
        parameter.grad = gradient
        optimizer.step()
        assert (optimizer.state[parameter]["v"] >= 0).all()


def test_all_parameters_at_once_equal_one_optimizer_for_each() -> None:
    gradients = make_gradients(steps=10)
    together = run(Yogi(make_start(), l1=0.1, weight_decay=0.1), gradients)
    for i, parameter in enumerate(make_start()):
        alone = run(Yogi([parameter], l1=0.1, weight_decay=0.1), [[step[i]] for step in gradients])
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_size_of_the_blocks_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format
) -> None:
    def final() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, 3, 5, 2, generator=generator, dtype=torch.float64).to(memory_format=layout)
        parameter = nn.Parameter(x)
        gradients = [
            [torch.randn(x.shape, generator=generator, dtype=torch.float64), *small]
            for small in make_gradients(steps=5)
        ]
        return run(Yogi([parameter, *make_start()]), gradients)[0]

    whole = final()
    monkeypatch.setattr(yogi_file, "BLOCK_ELEMENTS", 7)
    torch.testing.assert_close(final(), whole, rtol=1e-15, atol=1e-15)


def test_a_parameter_that_gets_gradients_later_has_its_own_bias_correction() -> None:
    gradients = make_gradients(steps=8)
    parameters = make_start()
    optimizer = Yogi(parameters)
    for t, step in enumerate(gradients):
        for i, p in enumerate(parameters):
            p.grad = None if i == 0 and t < 3 else step[i].clone()
        optimizer.step()
    late = run(Yogi(make_start()[:1]), [step[:1] for step in gradients[3:]])
    early = run(Yogi(make_start()[1:]), [step[1:] for step in gradients])
    assert all(torch.equal(p, q) for p, q in zip(parameters, late + early, strict=True))


def test_parameter_groups_have_their_own_options() -> None:
    gradients = make_gradients(steps=5)
    a, b, c = make_start()
    groups = [{"params": [a], "lr": 0.5, "v_init": "grad_sq"}, {"params": [b, c], "bias_correction": "none"}]
    together = run(Yogi(groups), gradients)
    a, b, c = make_start()
    first = run(Yogi([a], lr=0.5, v_init="grad_sq"), [step[:1] for step in gradients])
    rest = run(Yogi([b, c], bias_correction="none"), [step[1:] for step in gradients])
    assert all(torch.equal(x, y) for x, y in zip(together, first + rest, strict=True))


def test_bfloat16_parameters_keep_float32_moments_and_round_once_a_step() -> None:
    gradients = [[g.bfloat16() for g in step] for step in make_gradients(steps=30)]
    narrow = Yogi(make_start(dtype=torch.bfloat16))
    wide = Yogi([nn.Parameter(p.detach().float()) for p in make_start(dtype=torch.bfloat16)])
    first = run(narrow, gradients[:1]), run(wide, gradients[:1])
    assert all(torch.equal(x, y.bfloat16()) for x, y in zip(*first, strict=True))
    run(narrow, gradients[1:])
    run(wide, gradients[1:])
    for x, y in zip(narrow.state.values(), wide.state.values(), strict=True):
        assert x["v"].dtype == x["m"].dtype == torch.float32
        assert torch.equal(x["v"], y["v"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_resumed_from_a_saved_state_equals_an_uninterrupted_one(dtype: torch.dtype) -> None:
    gradients = make_gradients(steps=20)
    whole = Yogi(make_start(dtype=dtype), v_init="mean_grad_sq")
    expected = run(whole, gradients)
    parameters = make_start(dtype=dtype)
    killed = Yogi(parameters, v_init="mean_grad_sq")
    run(killed, gradients[:9])
    file = io.BytesIO()
    torch.save(killed.state_dict(), file)
    file.seek(0)
    resumed = Yogi([nn.Parameter(p.detach().clone()) for p in parameters])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(x, y) for x, y in zip(run(resumed, gradients[9:]), expected, strict=True))
    for x, y in zip(resumed.state.values(), whole.state.values(), strict=True):
        assert torch.equal(x["m"], y["m"])
        assert torch.equal(x["v"], y["v"])


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = Yogi([parameter])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert parameter.item() < 1.0


def test_a_sparse_gradient_is_refused_in_one_line() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match=r"\(4, 2\) is sparse") as error:
        Yogi(embedding.parameters()).step()
    assert "\n" not in str(error.value)


def test_a_sparse_gradient_after_dense_ones_changes_nothing() -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(4, 2))
    optimizer = Yogi([first, second])
    run(optimizer, [[torch.ones(2), torch.ones(4, 2)]] * 3)
    before = copy.deepcopy(optimizer.state_dict())
    values = first.detach().clone(), second.detach().clone()
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        second.grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(UserError, match="sparse"):
        optimizer.step()
    assert str(optimizer.state_dict()) == str(before)
    assert torch.equal(first, values[0])
    assert torch.equal(second, values[1])
    assert [state["step"] for state in optimizer.state.values()] == [3, 3]


@pytest.mark.parametrize(
    "peer",
    [
        lambda p: torch.optim.Adam(p),
        lambda p: torch.optim.SGD(p, momentum=0.9),
        lambda p: torch.optim.SGD(p),
        lambda p: pytorch_optimizer.Yogi(p),
    ],
)
def test_the_state_of_another_optimizer_is_refused_before_anything_is_replaced(
    peer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    gradients = make_gradients(steps=6)
    other = peer(make_start())
    run(other, gradients[:3])
    optimizer = Yogi(make_start(), lr=0.5)
    run(optimizer, gradients[:3])
    with pytest.raises(UserError, match=r"yogi: the saved state is of another optimizer.*valid: ") as error:
        optimizer.load_state_dict(other.state_dict())
    assert "\n" not in str(error.value)
    unbroken = run(Yogi(make_start(), lr=0.5), gradients)
    assert all(torch.equal(x, y) for x, y in zip(run(optimizer, gradients[3:]), unbroken, strict=True))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", -1.0),
        ("lr", math.nan),
        ("betas", (1.0, 0.9)),
        ("betas", (0.9, 1.1)),
        ("betas", (0.9, 1.0)),
        ("eps", -1e-3),
        ("bias_correction", "both"),
        ("m_init", math.inf),
        ("v_init", -1.0),
        ("v_init", "zero"),
        ("l1", -1.0),
        ("l2", -1.0),
        ("weight_decay", -1.0),
        ("activation", "relu"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    named = "bias_correction" if value == (0.9, 1.0) else key
    with pytest.raises(UserError, match=rf"yogi: {named}=.*valid: ") as error:
        Yogi(make_start(), **{key: value})
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=rf"yogi: {named}="):
        Yogi([{"params": make_start(), key: value}])


def final_point_of_reddis_example(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Reddi, Kale, Kumar 2018: f_t(x) = 3x every third step, else -x, on [-1, 1]; the best point is -1."""
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([x])
    for t in range(1, 3001):
        x.grad = torch.full_like(x, 3.0 if t % 3 == 1 else -1.0)
        optimizer.param_groups[0]["lr"] = 0.1 / math.sqrt(t)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
    return x.item()


def test_yogi_converges_where_adam_diverges_to_the_worst_point() -> None:
    options: dict[str, Any] = {"betas": (0.0, 0.1), "eps": 1e-8}
    assert final_point_of_reddis_example(lambda x: torch.optim.Adam(x, **options)) == 1.0
    assert final_point_of_reddis_example(lambda x: Yogi(x, **options)) < -0.9


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_the_floor_of_the_gradient_norm_falls_with_the_batch_and_ever_faster(name: str) -> None:
    """f(x) = sum x²/2 - cos(3x)/4 in 50 dimensions, gradient noise N(0, 1/b); the update is elementwise,
    so all batch sizes b and three seeds are rows of one parameter."""
    generator = torch.Generator().manual_seed(0)
    batches = torch.tensor([1.0, 4.0, 16.0, 64.0, 256.0]).view(5, 1, 1)
    x = nn.Parameter(torch.randn(1, 3, 50, generator=generator).repeat(5, 1, 1))
    optimizer = Yogi([x]) if name == "yogi" else torch.optim.Adam([x], lr=1e-2, eps=1e-3)
    floor = torch.zeros(5)
    for t in range(4000):
        gradient = x.detach() + 0.75 * torch.sin(3 * x.detach())
        if t >= 2000:
            floor += gradient.square().sum(dim=2).mean(dim=1) / 2000
        x.grad = gradient + torch.randn(x.shape, generator=generator) / batches.sqrt()
        optimizer.step()
    slopes = floor.log().diff() / math.log(4)
    assert (slopes < 0).all()
    assert -1.2 < slopes.mean() < -0.4
    assert slopes[2:].mean() < slopes[:2].mean()
