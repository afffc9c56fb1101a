"""A module is read by its graph: what is accepted has exactly its logits, what is not is refused by name."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from common.base.errors import UserError
from papers.sdp_cert.bounds import crown_objective, input_box, interval_bounds, margins
from papers.sdp_cert.dual import certified_bound
from papers.sdp_cert.network import check_reading, read_network, relu_network
from papers.sdp_cert.robust import check_live_network


class Net(nn.Module):
    """Two layers, joined by a function of the module and its inputs."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor], hidden: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.relu = nn.Linear(4, hidden), nn.Linear(hidden, 3), nn.ReLU()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Step(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Renamed(nn.Linear):
    pass


class Absolute(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).abs()


def chain(*layers: nn.Module, last: int = 6) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Linear(last, 3))


def linear(inputs: int = 4, outputs: int = 6) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def tied() -> nn.Module:
    layer = linear(4, 4)
    return chain(layer, nn.ReLU(), layer, nn.ReLU(), last=4)


def shared_relu() -> nn.Module:
    relu = nn.ReLU()
    return chain(linear(), relu, linear(6, 5), relu, last=5)


def relu_as_statement(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    h.relu_()
    return net.last(h)


def normalised() -> nn.Module:
    module = chain(linear(), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    return module.train()


def product(net: Net, x: Tensor) -> Tensor:
    h = torch.relu(x @ net.first.weight.T + net.first.bias)
    return h @ net.last.weight.T + net.last.bias


ACCEPTED: dict[str, Callable[[], nn.Module]] = {
    "nested": lambda: nn.Sequential(nn.Sequential(linear(), nn.ReLU()), chain(nn.Identity())),
    "F.relu": lambda: Net(lambda net, x: net.last(F.relu(net.first(x)))),
    "torch.relu": lambda: Net(lambda net, x: net.last(torch.relu(net.first(x)))),
    "x.relu": lambda: Net(lambda net, x: net.last(net.first(x).relu())),
    "x.relu_": lambda: Net(relu_as_statement),
    "F.relu in place": lambda: Net(lambda net, x: net.last(F.relu(net.first(x), inplace=True))),
    "ReLU in place": lambda: chain(linear(), nn.ReLU(inplace=True)),
    "clamp": lambda: Net(lambda net, x: net.last(net.first(x).clamp(min=0))),
    "one relu twice": shared_relu,
    "relu of relu": lambda: chain(linear(), nn.ReLU(), nn.Flatten(), nn.ReLU()),
    "relu first": lambda: chain(nn.ReLU(), last=4),
    "tied weights": tied,
    "dropout": lambda: chain(linear(), nn.ReLU(), nn.Dropout(0.5)),
    "F.dropout": lambda: Net(lambda net, x: net.last(F.dropout(net.first(x), 0.5, net.training).relu())),
    "normalised, in training mode": normalised,
    "constants": lambda: Net(lambda net, x: net.last(F.relu(-net.first((x - 0.13) / 0.3) * 2 + 1))),
    "lambda": lambda: chain(Step(lambda x: x.view(x.size(0), -1)), linear(), nn.ReLU()),
    "shape": lambda: chain(Step(lambda x: x.reshape(x.shape[0], x.shape[1])), linear(), nn.ReLU()),
    "sum of affine maps": lambda: Net(lambda net, x: net.last(F.relu(net.first(x) + x)), hidden=4),
    "no bias": lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)),
    "float64": lambda: chain(linear(), nn.ReLU()).double(),
    "weight norm": lambda: chain(parametrizations.weight_norm(linear()), nn.ReLU()),
    "subclass": lambda: chain(Renamed(4, 6), nn.ReLU()),
    "products": lambda: Net(product),
    "no hidden layer": lambda: chain(last=4),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_module_that_is_accepted_has_the_logits_of_its_matrices_everywhere(name: str) -> None:
    torch.manual_seed(0)
    module = ACCEPTED[name]()
    training = module.training
    network = read_network(module, (4,))
    x = 5 * torch.randn(200, 4).double()
    given = copy.deepcopy(module).double().eval()(x)
    assert torch.allclose(network(x), given, rtol=1e-12, atol=1e-13)
    assert module.training == training and next(module.parameters()).dtype == (
        torch.float64 if name == "float64" else torch.float32
    )


def test_the_matrices_are_the_weights_to_the_last_bit_however_large_the_biases() -> None:
    module = chain(linear(), nn.ReLU())
    with torch.no_grad():
        module[0].weight.mul_(1e-8)
        module[0].bias.add_(1e8)
    network = read_network(module, (4,))
    assert torch.equal(network.weights[0], module[0].weight.double())
    assert torch.equal(network.biases[0], module[0].bias.double())


def hooked() -> nn.Module:
    module = chain(linear(), nn.ReLU())
    module[1].register_forward_hook(lambda layer, inputs, output: output.abs())
    return module


def patched() -> nn.Module:
    module = chain(linear(), nn.ReLU())
    module[0].forward = lambda x: F.linear(x, torch.ones(6, 4).to(x)).abs()
    return module


def branch(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    if h.sum() > 0:
        h = h.relu()
    return net.last(h)


def aliased(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    h.view(-1, 6).relu_()
    return net.last(h)


def random(net: Net, x: Tensor) -> Tensor:
    return net.last(F.relu(net.first(x) + torch.randn(6)))


def asks_for_a_tensor(net: Net, x: Tensor) -> Tensor:
    return net.last(F.relu(net.first(x.abs() if isinstance(x, Tensor) else x)))


def asks_for_a_sign(net: Net, x: Tensor) -> Tensor:
    if isinstance(x, Tensor) and x.min() < -100:
        x = x.abs()
    return net.last(F.relu(net.first(x)))


def through_numpy(net: Net, x: Tensor) -> Tensor:
    if isinstance(x, Tensor):
        x = torch.from_numpy(x.numpy() + 0.0)
    return net.last(F.relu(net.first(x)))


def changed_in_place(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    other = h
    other += 1
    return net.last(F.relu(h))


def with_weight(value: float) -> nn.Module:
    module = chain(linear(), nn.ReLU())
    module[0].weight.data[0, 0] = value
    return module


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "abs first": (lambda: Net(lambda net, x: net.last(F.relu(net.first(x.abs())))), "Net: abs cannot"),
    "lambda": (lambda: chain(linear(), Step(torch.abs), nn.ReLU()), r"layer 1 \(Step\): abs cannot"),
    "sigmoid": (lambda: chain(linear(), nn.Sigmoid()), r"layer 1 \(Sigmoid\) cannot"),
    "tanh": (lambda: Net(lambda net, x: net.last(torch.tanh(net.first(x)))), "Net: tanh cannot"),
    "relu6": (lambda: chain(linear(), nn.ReLU6()), r"layer 1 \(ReLU6\) cannot"),
    "leaky": (lambda: chain(linear(), nn.LeakyReLU()), r"layer 1 \(LeakyReLU\) cannot"),
    "clamp": (lambda: Net(lambda net, x: net.last(net.first(x).clamp(0, 1))), "Net: clamp cannot"),
    "softmax": (lambda: nn.Sequential(linear(), nn.Softmax(1)), r"layer 1 \(Softmax\) cannot"),
    "norm": (lambda: chain(linear(), nn.LayerNorm(6)), r"layer 1 \(LayerNorm\) cannot"),
    "statistics": (
        lambda: chain(linear(), nn.BatchNorm1d(6, track_running_stats=False)),
        r"layer 1 \(BatchNorm1d\) cannot be certified: it has no running statistics",
    ),
    "residual": (
        lambda: Net(lambda net, x: net.last(F.relu(net.first(x)) + x), hidden=4),
        "Net: add cannot be certified: it takes a value from before a ReLU",
    ),
    "two branches": (
        lambda: Net(lambda net, x: net.last(F.relu(net.first(x)) - F.relu(-net.first(x)))),
        "from before a ReLU",
    ),
    "alias": (lambda: Net(aliased), r"layer last \(Linear\) cannot be certified: .* from before a ReLU"),
    "always dropout": (lambda: Net(lambda net, x: net.last(F.dropout(net.first(x)))), "Net: dropout cannot"),
    "subclass": (lambda: chain(Absolute(4, 6), nn.ReLU()), r"layer 0 \(Absolute\): abs cannot"),
    "patched": (patched, r"layer 0 \(Linear\) cannot"),
    "hook": (hooked, r"layer 1 \(ReLU\) has a forward hook"),
    "control flow": (lambda: Net(branch), "Net cannot be certified: its forward could not be traced"),
    "joined examples": (
        lambda: chain(Step(lambda x: x.view(-1, 2)), linear(2), nn.ReLU()),
        r"layer 0 \(Step\): view cannot be certified: it joins the examples",
    ),
    "random": (lambda: Net(random), r"Net does other operations than those of its graph \(aten.randn"),
    "question": (lambda: Net(asks_for_a_tensor), r"Net does other operations .* \(aten.abs"),
    "question of a value": (lambda: Net(asks_for_a_sign), r"Net does other operations .* \(aten.min"),
    "by numpy": (lambda: Net(through_numpy), "Net does other operations"),
    "in place": (lambda: Net(changed_in_place), r"Net does other operations .* \(aten.add_"),
    "two outputs": (lambda: Net(lambda net, x: (net.first(x), x)), "not one row of logits an example"),
    "no layer": (nn.Sequential, "ends with a ReLU or has no layer"),
    "shape": (lambda: chain(linear(5), nn.ReLU()), r"layer 0 \(Linear\) cannot be certified: mat1"),
    "NaN": (lambda: with_weight(torch.nan), "0.weight holds numbers that are not finite"),
    "inf": (lambda: with_weight(torch.inf), "0.weight holds numbers that are not finite"),
    "lazy": (lambda: chain(nn.LazyLinear(6), nn.ReLU()), "0.weight has no values yet"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_a_module_that_is_no_chain_of_affine_maps_and_relus_is_refused_by_name(
    name: str, scale: float
) -> None:
    torch.manual_seed(0)
    make, line = REFUSED[name]
    module = make()
    last = list(module.modules())[-1]
    if isinstance(last, nn.Linear):
        last.weight.data *= scale
        last.bias.data *= scale
    with pytest.raises(UserError, match=line) as error:
        read_network(module, (4,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", [changed_in_place, random, asks_for_a_tensor])
def test_what_a_graph_does_not_show_is_refused_where_no_logits_tell(
    function: Callable[[Net, Tensor], Tensor],
) -> None:
    # the hidden units are off at all usual inputs, and what changes them changes no logits there
    module = Net(function)
    module.first.bias.data.fill_(-1e3)
    with pytest.raises(UserError, match="does other operations than those of its graph"):
        read_network(module, (4,))


@pytest.mark.parametrize("scale", [1e-8, 1e-7, 1.0, 1e8])
def test_a_functional_relu_is_read_as_one_however_small_the_logits(scale: float) -> None:
    module = Net(lambda net, x: net.last(F.relu(net.first(x))))
    module.last.weight.data *= scale
    module.last.bias.data *= scale
    network = read_network(module, (4,))
    assert network.hidden_layers == 1
    x = torch.randn(100, 4).double()
    assert torch.equal(network(x).argmax(1), module.double()(x).argmax(1))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_unit_that_no_usual_input_turns_on_is_not_overlooked(scale: float) -> None:
    # the mean of 784 pixels less 0.3 is above 0 for all uniform inputs, and below 0 for a dark image
    module = nn.Sequential(nn.Linear(784, 1), Step(F.relu), nn.Linear(1, 2))
    with torch.no_grad():
        module[0].weight.fill_(1 / 784)
        module[0].bias.fill_(-0.3)
        module[2].weight.copy_(torch.tensor([[-1.0], [0.0]]) * scale)
        module[2].bias.copy_(torch.tensor([0.0, 0.05]) * scale)
    network = read_network(module, (784,))
    x = torch.full((1, 784), 0.13).double()
    assert network.hidden_layers == 1 and int(network(x).argmax()) == int(module(x.float()).argmax()) == 1
    box = input_box(x, 0.02, clip=True)
    for label, sign in ((0, 1), (1, -1)):
        layers, goal = interval_bounds(network, box), margins(network, torch.tensor([label]))
        value = pytest.approx(sign * 0.05 * scale, rel=1e-6)
        assert float(crown_objective(network, layers, box, goal, "adaptive")) == value
        assert float(certified_bound(network, layers, box, goal)[0]) == value


def test_the_reading_is_checked_at_examples_and_corners_of_their_boxes() -> None:
    module = chain(linear(), nn.ReLU())
    network = read_network(module, (4,))
    x = torch.rand(3, 4)
    check_reading(module, network, (4,), x, x - 0.1, x + 0.1)
    # a unit that differs at one corner of one box alone
    other = chain(linear(), nn.ReLU())
    other.load_state_dict(module.state_dict())
    corner = Step(lambda x: x)
    corner.function = lambda value: value + 1e-6 * (value[:, :1] > 1.0)
    wide = torch.ones(1, 4)
    with pytest.raises(UserError, match="gives other logits"):
        check_reading(nn.Sequential(corner, other), network, (4,), wide, wide - 0.1, wide + 0.1)


def test_matrices_of_other_magnitudes_are_checked_by_their_own_spread() -> None:
    module = chain(linear(), nn.ReLU())
    for layer in (module[0], module[2]):
        layer.weight.data *= 1e-6
        layer.bias.data *= 1e-6
    network = read_network(module, (4,))
    wrong = relu_network(list(network.weights), [network.biases[0], network.biases[1] * (1 + 1e-6)])
    x = torch.rand(3, 4)
    with pytest.raises(UserError, match="gives other logits"):
        check_reading(module, wrong, (4,), x, x, x)


class Swapped(nn.Module):
    """Layers of one size, used in another order than that of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a, self.last = linear(4, 4), linear(4, 4), linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(F.relu(self.a(x)))))


@pytest.mark.parametrize(
    "make", [Swapped, lambda: chain(linear(4, 4), linear(4, 4), nn.ReLU(), last=4), tied]
)
def test_trainings_by_bounds_refuse_layers_in_another_order_than_their_use(
    make: Callable[[], nn.Module],
) -> None:
    with pytest.raises(UserError, match="registered in the order of their use"):
        check_live_network(make(), (4,))
    check_live_network(nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), linear(5, 3)), (4,))
