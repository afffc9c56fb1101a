"""S against Jacobians of single examples in float64, and the update against its closed forms."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional

from common.base.errors import UserError
from common.base.method import Pass
from common.models.lenet import LeNet5, LeNet5ReLU
from common.models.mlp import MLP
from common.training.tasks import Classification
from papers.sensitivity.sensitivity import Measure, Sensitivity

DEFAULTS: dict[str, Any] = {
    "optimizer": partial(torch.optim.SGD, lr=0.1),
    "decay": 0.01,
    "alpha": "unspecific",
    "output": "logits",
    "batch_reduce": "mean_of_abs",
    "rescale": "none",
    "outputs": "all",
    "directions": 4,
    "order": "simultaneous",
    "pruning": "none",
    "threshold": 0.01,
    "every": 0.1,
    "tolerance": 0.05,
    "patience": 0.1,
    "check": 0.1,
    "begin": 0.0,
    "parameters": "all",
}


class Mixed(nn.Module):
    """Grouped, circular and one-dimensional convolutions, norms, dropout, a layer used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 3, padding=1, stride=2, padding_mode="circular"),
            nn.GroupNorm(2, 6),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.twice = nn.Conv1d(6, 6, 1)
        self.norm = nn.LayerNorm(16)
        self.rows = nn.Linear(16, 5)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(30, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images).flatten(2)
        maps = self.twice(torch.tanh(self.twice(maps)))
        return self.head(self.rows(self.norm(maps)).flatten(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet_300_100": (
        lambda: MLP(shape=(1, 28, 28), classes=10, hidden=[300, 100], activation="relu"),
        (1, 28, 28),
        2,
    ),
    "lenet5": (lambda: LeNet5ReLU(shape=(1, 28, 28), classes=10), (1, 28, 28), 2),
    "mixed": (Mixed, (2, 8, 8), 5),
}


def small(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    network = MLP(shape=(6,), classes=4, hidden=[7, 5], activation="relu").double()
    return network, torch.randn(8, 6, dtype=torch.float64), torch.randint(4, (8,))


def jacobians(network: nn.Module, inputs: Tensor, softmax: bool) -> dict[str, Tensor]:
    """dy_bk / dw as [b, k, *w], example by example, in evaluation mode."""
    network = deepcopy(network).eval()
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def outputs(values: dict[str, Tensor], example: Tensor) -> Tensor:
        found = functional_call(network, values, (example[None],))[0]
        return found.softmax(0) if softmax else found

    return vmap(jacrev(outputs), (None, 0))(parameters, inputs)


def reference(network: nn.Module, inputs: Tensor, targets: Tensor, measure: Measure) -> dict[str, Tensor]:
    found = {}
    for name, each in jacobians(network, inputs, measure.output == "softmax").items():
        if measure.alpha == "specific":
            each = each[torch.arange(len(targets)), targets][:, None]
        mean = each.abs().mean(0) if measure.batch_reduce == "mean_of_abs" else each.mean(0).abs()
        found[name] = mean.mean(0)
        if measure.rescale == "max" and found[name].max() > 0:
            found[name] = found[name] / found[name].max()
    return found


@pytest.mark.parametrize("batch_reduce", ["mean_of_abs", "abs_of_mean"])
@pytest.mark.parametrize("alpha", ["unspecific", "specific"])
@pytest.mark.parametrize("name", NETWORKS)
def test_sensitivity_is_that_of_the_jacobians_of_single_examples(
    name: str, alpha: Any, batch_reduce: Any
) -> None:
    make, shape, examples = NETWORKS[name]
    torch.manual_seed(0)
    network = make().double()
    inputs = torch.randn(examples, *shape, dtype=torch.float64)
    targets = torch.randint(3, (examples,))
    output: Any = "softmax" if name == "mixed" else "logits"
    measure = Measure(alpha=alpha, output=output, batch_reduce=batch_reduce, rescale="none")
    found, expected = measure(network, inputs, targets), reference(network, inputs, targets, measure)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12 * float(value.max()))
    assert network.training and all(p.grad is None for p in network.parameters())


def test_a_tensor_rescaled_by_its_largest_spans_up_to_one_and_a_tensor_of_zeros_stays() -> None:
    torch.manual_seed(0)
    network, inputs = Mixed().double(), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    found = Measure(rescale="max")(network, inputs, None)
    assert not found["unused.weight"].any()
    for name, value in reference(
        network, inputs, torch.zeros(4, dtype=torch.long), Measure(rescale="max")
    ).items():
        torch.testing.assert_close(found[name], value)


def test_of_one_example_with_softmax_the_specific_form_is_the_probability_times_the_losss_gradient() -> None:
    network, inputs, targets = small()
    found = Measure(alpha="specific", output="softmax")(network, inputs[:1], targets[:1])
    logits = network(inputs[:1])
    functional.cross_entropy(logits, targets[:1]).backward()
    probability = logits.softmax(1)[0, targets[0]].detach()
    for name, p in network.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(found[name], probability * p.grad.abs(), rtol=1e-10, atol=1e-14)


def test_of_the_last_layer_it_is_the_hidden_unit_of_the_target_or_of_every_class_by_their_number() -> None:
    network, inputs, targets = small()
    hidden = network.get_submodule("layers")[:-1](inputs[:1])[0].detach()  # type: ignore[index]
    specific, unspecific = (
        Measure(alpha=a)(network, inputs[:1], targets[:1]) for a in ("specific", "unspecific")
    )
    expected = torch.zeros(4, 5, dtype=torch.float64)
    expected[targets[0]] = hidden
    torch.testing.assert_close(specific["layers.5.weight"], expected)
    torch.testing.assert_close(unspecific["layers.5.weight"], (hidden / 4).expand(4, 5))
    torch.testing.assert_close(unspecific["layers.5.bias"], torch.full((4,), 0.25, dtype=torch.float64))


def test_the_mean_of_absolutes_is_never_below_the_absolute_of_the_mean_nor_above_the_largest_derivative() -> (
    None
):
    network, inputs, targets = small(1)
    means = Measure(batch_reduce="mean_of_abs")(network, inputs, targets)
    signed = Measure(batch_reduce="abs_of_mean")(network, inputs, targets)
    for name, each in jacobians(network, inputs, softmax=False).items():
        assert (means[name] >= signed[name] - 1e-12).all()
        assert (means[name] <= each.abs().amax(1).mean(0) + 1e-12).all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_sensitivity_to_the_first_weights_has_the_unit_of_the_inputs(scale: float) -> None:
    network = nn.Linear(6, 4).double()
    inputs = torch.randn(8, 6, dtype=torch.float64)
    one, other = (Measure()(network, each, None)["weight"] for each in (inputs, scale * inputs))
    torch.testing.assert_close(other, scale * one, rtol=1e-10, atol=0.0)


def test_the_mean_over_drawn_outputs_is_an_unbiased_estimate() -> None:
    network, inputs, _ = small(2)
    exact = Measure()(network, inputs, None)
    torch.manual_seed(0)
    draws = [Measure(outputs="sample", directions=1)(network, inputs, None) for _ in range(144)]
    for name, value in exact.items():
        each = torch.stack([draw[name] for draw in draws])
        error = each.std(0) / 12
        assert ((each.mean(0) - value).abs() <= 5 * error + 1e-12).all()


def test_sign_vectors_estimate_between_a_root_half_and_one_root_mean_square() -> None:
    network, inputs, _ = small(2)
    torch.manual_seed(0)
    found = Measure(outputs="signs", directions=4)
    draws = [found(network, inputs[:1], None) for _ in range(100)]
    for name, each in jacobians(network, inputs[:1], softmax=False).items():
        size = each[0].square().mean(0).sqrt()
        mean = torch.stack([draw[name] for draw in draws]).mean(0)
        assert (mean <= 1.2 * size + 1e-12).all() and (mean >= 0.5**0.5 * size * 0.8 - 1e-12).all()


def test_the_specific_form_takes_one_backward_pass_and_the_unspecific_one_for_each_output() -> None:
    assert Measure(alpha="specific").passes(10) == 1
    assert Measure().passes(10) == 10
    assert Measure(outputs="signs", directions=8).passes(1000) == 8
    assert Measure(outputs="sample", directions=8).passes(4) == 4


class Inputless(nn.Module):
    """A weight that no layer's call can be told of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4).double()
        self.other = nn.Linear(6, 4).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) + functional.linear(inputs, self.other.weight)


class Rows(nn.Module):
    """A layer that sees more rows than examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs.reshape(-1, 3)).reshape(len(inputs), -1)


@pytest.mark.parametrize(
    ("network", "name"), [(Inputless(), r"other\.weight"), (Rows(), r"layer \(Linear\)")]
)
def test_a_layer_whose_single_examples_cannot_be_told_is_refused_by_name_and_taken_by_abs_of_mean(
    network: nn.Module, name: str
) -> None:
    inputs = torch.randn(5, 6, dtype=torch.float64)
    with pytest.raises(UserError, match=name):
        Measure()(network, inputs, None)
    measure = Measure(batch_reduce="abs_of_mean")
    found = measure(network, inputs, None)
    for key, value in reference(network, inputs, torch.zeros(5), measure).items():
        torch.testing.assert_close(found[key], value)


def test_the_specific_form_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.alpha=specific: needs a class"):
        Measure(alpha="specific")(nn.Linear(3, 1), torch.randn(4, 3), torch.randn(4))


# the update


def method(network: nn.Module, **keys: Any) -> Sensitivity:
    made = Sensitivity(**(DEFAULTS | keys))
    made.prepare(Classification(4), 1.0)
    data: Any = SimpleNamespace(shape=(6,), classes=4, has_validation=False)
    made.attach(network, lambda: network, data)
    return made


def stepped(network: nn.Module, inputs: Tensor, targets: Tensor, **keys: Any) -> dict[str, Tensor]:
    """The parameters after a step of SGD at 0.1 by the method."""
    network = deepcopy(network)
    made = method(network, **keys)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    made.loss(network, inputs, targets).backward()
    optimizer.step()
    made.end_step(network, 0.01)
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def sgd(network: nn.Module, inputs: Tensor, targets: Tensor, weight_decay: float = 0.0) -> dict[str, Tensor]:
    network = deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=weight_decay)
    functional.cross_entropy(network(inputs), targets).backward()
    optimizer.step()
    return {name: p.detach() for name, p in network.named_parameters()}


@pytest.mark.parametrize("alpha", ["unspecific", "specific"])
def test_a_step_is_sgd_less_lambda_w_times_the_insensitivity_at_the_old_weights(alpha: Any) -> None:
    network, inputs, targets = small()
    with torch.no_grad():
        network.get_parameter("layers.1.weight").mul_(6)
    found, plain = stepped(network, inputs, targets, alpha=alpha), sgd(network, inputs, targets)
    sensitivities = reference(network, inputs, targets, Measure(alpha=alpha))
    assert any((s > 1).any() for s in sensitivities.values())
    for name, p in network.named_parameters():
        decay = 0.01 * p.detach() * (1 - sensitivities[name]).clamp(min=0)
        torch.testing.assert_close(found[name], plain[name] - decay, rtol=1e-12, atol=1e-14)


def by_hand(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], measure: Measure, decay: float, threshold: float
) -> dict[str, Tensor]:
    """SGD with Nesterov momentum and a decay by lambda, a cut after each step, written out."""
    network = deepcopy(network)
    buffers = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    masks = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    for inputs, targets in batches:
        loss = functional.cross_entropy(network.train()(inputs), targets)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        sensitivity = reference(network, inputs, targets, measure)
        for (name, p), gradient in zip(network.named_parameters(), gradients, strict=True):
            old = p.detach().clone()
            buffers[name] = 0.9 * buffers[name] + gradient
            new = old - 0.1 * (gradient + 0.9 * buffers[name])
            new = new - decay * old * (1 - sensitivity[name]).clamp(min=0)
            masks[name] = masks[name] * (new.abs() >= threshold)
            p.data = new * masks[name]
    return dict(network.named_parameters())


@pytest.mark.parametrize("rescale", ["none", "max"])
@pytest.mark.parametrize("output", ["logits", "softmax"])
@pytest.mark.parametrize("batch_reduce", ["mean_of_abs", "abs_of_mean"])
@pytest.mark.parametrize("alpha", ["unspecific", "specific"])
def test_three_steps_with_momentum_and_cuts_are_those_of_a_loop_over_jacobians(
    alpha: Any, batch_reduce: Any, output: Any, rescale: Any
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)
    ).double()
    batches = [(torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.randint(4, (6,))) for _ in range(3)]
    measure = Measure(alpha=alpha, output=output, batch_reduce=batch_reduce, rescale=rescale)
    expected = by_hand(network, batches, measure, decay=0.3, threshold=0.05)
    chosen: dict[str, Any] = {"pruning": "fixed_threshold", "threshold": 0.05, "every": 1 / 3, "decay": 0.3}
    chosen |= {"alpha": alpha, "output": output, "batch_reduce": batch_reduce, "rescale": rescale}
    made = method(network, **chosen)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        made.loss(network.train(), *batch).backward()
        optimizer.step()
        made.end_step(network, (number + 1) / 3)
    assert any(not value.all() for value in expected.values())
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


def test_within_another_method_and_with_layers_that_differ_in_training_the_step_is_the_same() -> None:
    network, inputs, targets = small()
    expected = stepped(network, inputs, targets)
    with_dropout = deepcopy(network)
    with_dropout.get_submodule("layers").append(nn.Dropout(0.0))  # type: ignore[operator]
    found = stepped(with_dropout, inputs, targets)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
    made = method(network)
    made.fit_of(Pass(network, inputs, targets, network(inputs), {}))
    measured = Measure()(network, inputs, targets)
    for name, value in made.kept.items():
        factor = (1 - measured[name]).clamp(min=0)
        torch.testing.assert_close(value, factor * dict(network.named_parameters())[name].detach())


def test_without_lambda_the_step_is_sgd_and_with_s_zero_it_is_weight_decay_of_lambda_by_eta() -> None:
    network, inputs, targets = small()
    for decay, keys in ((0.0, {"decay": 0.0}), (0.1, {"alpha": "zero", "decay": 0.01})):
        found, expected = stepped(network, inputs, targets, **keys), sgd(network, inputs, targets, decay)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-13, atol=1e-15)


def test_weights_of_sensitivity_one_or_more_do_not_decay_and_no_decay_makes_a_weight_larger() -> None:
    network, inputs, targets = small()
    found, plain = stepped(network, 1e9 * inputs, targets), sgd(network, 1e9 * inputs, targets)
    torch.testing.assert_close(found["layers.1.weight"], plain["layers.1.weight"], rtol=0, atol=0)
    network, inputs, targets = small(3)
    made = method(network, decay=0.3)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    made.loss(network, inputs, targets)
    made.end_step(network, 0.01)
    for name, p in network.named_parameters():
        ratio = p.detach() / before[name]
        assert (ratio <= 1).all() and (ratio >= 0.7 - 1e-12).all()


def test_the_decay_is_the_derivative_of_half_w_squared_times_the_frozen_insensitivity() -> None:
    network, inputs, targets = small(4)
    sensitivity = Measure()(network, inputs, targets)["layers.3.weight"]
    weight = network.get_parameter("layers.3.weight").detach()
    frozen = (1 - sensitivity).clamp(min=0)
    step = 1e-6

    def regulariser(w: Tensor) -> Tensor:
        return w.square() / 2 * frozen

    slope = (regulariser(weight + step) - regulariser(weight - step)) / (2 * step)
    torch.testing.assert_close(slope, weight * frozen, rtol=1e-6, atol=1e-9)


def test_lobster_decays_after_the_step_by_the_losss_gradient() -> None:
    network, inputs, targets = small()
    found, plain = (
        stepped(network, inputs, targets, alpha="loss", order="after"),
        sgd(network, inputs, targets),
    )
    old = stepped(network, inputs, targets, alpha="loss", order="simultaneous")
    own = deepcopy(network)
    functional.cross_entropy(own(inputs), targets).backward()
    for name, p in own.named_parameters():
        assert p.grad is not None
        part = 0.01 * (1 - p.grad.abs()).clamp(min=0)
        torch.testing.assert_close(found[name], plain[name] - part * plain[name], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(old[name], plain[name] - part * p.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"decay": 1.5}, r"method\.decay=1\.5"),
        ({"decay": -0.1}, r"method\.decay=-0\.1"),
        ({"decay": float("nan")}, r"method\.decay=nan"),
        ({"begin": 1.0}, r"method\.begin=1\.0: must be a share of the run below 1"),
        ({"directions": 0}, r"method\.directions=0"),
        ({"pruning": "fixed_threshold", "every": 0.0}, r"method\.every=0\.0"),
        ({"pruning": "fixed_threshold", "threshold": -1.0}, r"method\.threshold=-1\.0"),
        ({"pruning": "plateau", "patience": 0.0}, r"method\.patience=0\.0"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sensitivity(**(DEFAULTS | keys))


def test_the_two_lenets_have_the_same_parameters_and_differ_by_their_relus() -> None:
    torch.manual_seed(0)
    plain, relu = LeNet5(shape=(1, 28, 28), classes=10), LeNet5ReLU(shape=(1, 28, 28), classes=10)
    assert sum(p.numel() for p in relu.parameters()) == 431_080
    assert sum(p.numel() for p in relu.parameters() if p.dim() > 1) == 430_500
    relu.load_state_dict(
        {name.replace("convolutions.2", "convolutions.3"): p for name, p in plain.state_dict().items()}
    )
    images = torch.randn(2, 1, 28, 28)
    first = relu.convolutions[0](images)
    assert (first < 0).any() and (relu.convolutions[1](first) >= 0).all()
    weight, bias = (plain.get_parameter(f"convolutions.0.{name}") for name in ("weight", "bias"))
    by_hand = functional.max_pool2d(functional.conv2d(images, weight, bias).relu(), 2)
    torch.testing.assert_close(relu.convolutions[:3](images), by_hand)
