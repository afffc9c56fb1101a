"""A network cut at a layer: the rest run alone gives what the whole gives, for networks of many shapes."""

import copy
from collections.abc import Callable

import pytest
import torch
from dcp_toys import toy_network
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.models.densenet import DenseNet
from common.models.mobilenet import MobileNetV2
from common.models.resnet import CifarResNet
from papers.dcp.cut import CachedTail, Cut, cached_problem, order_of_modules, trace
from papers.dcp.losses import AuxiliaryHead, head_for
from papers.dcp.selection import ChannelSelection

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Concatenation of two branches, a size read from a tensor, a view, and writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.last = nn.Linear(7 * 64, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem(inputs)
        shared = functional.relu_(stem)
        both = torch.cat([self.left(shared).relu_(), self.right(shared).relu_()], dim=1)
        return self.last(both.view(inputs.size(0), -1))


class WritesOver(nn.Module):
    """What follows the layer writes over what stands before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.add = nn.Conv2d(4, 4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem(inputs)
        return self.add(stem.add_(self.layer(stem))).mean((2, 3))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs)).mean((2, 3))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).mean((2, 3)) if inputs.sum() > 0 else inputs.mean((2, 3))


def mobilenet() -> nn.Module:
    return MobileNetV2(
        shape=(3, 8, 8), classes=3, stages=[(1, 16, 1, 1), (2, 24, 2, 2)], hidden=None, stem_stride=1,
        expand_always=False, projection=True, dropout=0.5,
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pre-activation": lambda: toy_network()[0],
    "residual": lambda: CifarResNet(shape=(3, 8, 8), classes=3, depth=8, block="basic", shortcut="A"),
    "dense": lambda: DenseNet(shape=(3, 8, 8), classes=3, depth=10, growth=4, bc=True),
    "inverted": mobilenet,
    "branches": Branches,
    "in place": WritesOver,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_layer_and_what_follows_it_give_what_the_network_gives(kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]().eval()
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        expected = network(IMAGES)
        for name in names:
            cut = Cut(network, name, None, IMAGES[:3])
            features, *live = cut.before(IMAGES)
            found = cut.after(network.get_submodule(name)(features), live)
            torch.testing.assert_close(found, expected)
    assert len(names) >= 3


def test_the_rest_up_to_a_block_is_cut_there() -> None:
    network, images, _ = toy_network()
    seen: list[Tensor] = []
    network.get_submodule("stages.1").register_forward_hook(lambda *each: seen.append(each[2]))
    with torch.no_grad():
        network(images)
        cut = Cut(network, "stages.0.0.residual.3", "stages.1", images[:3])
        features, *live = cut.before(images)
        found = cut.after(network.get_submodule(cut.layer)(features), live)
    torch.testing.assert_close(found, seen[0])
    names = [str(node.target) for node in cut.tail.graph.nodes if node.op == "call_module"]
    assert "stages.1.0.residual.3" in names
    assert not any("stages.2" in name or "classifier" in name or "stem" in name for name in names)


def test_tensors_that_the_rest_writes_over_stay_as_they_were() -> None:
    torch.manual_seed(0)
    network, targets = WritesOver(), torch.tensor([0, 1, 2, 3, 0])
    problem = cached_problem(network, network, "layer", IMAGES, targets)
    first = problem.evaluate(problem.start, problem.start_bias)
    assert problem.evaluate(problem.start, problem.start_bias).loss == first.loss
    assert first.terms.discrimination == pytest.approx(
        float(functional.cross_entropy(network(IMAGES), targets)), rel=1e-5
    )


@pytest.mark.parametrize("end", [None, "stages.1.0"])
def test_the_problem_of_a_layer_is_that_of_the_whole_network(end: str | None) -> None:
    network, images, labels = toy_network()
    baseline, name = copy.deepcopy(network), "stages.0.0.residual.3"
    with torch.no_grad():
        # what was pruned before changes the inputs, not the outputs that are to be reached
        network.get_submodule("stem").weight[:, 1] = 0
    head = None if end is None else head_for(network, end, images, 4)
    problem = cached_problem(
        network, baseline, name, images, labels, end=end, head=head, mse_weight=0.7, lam=0.3, chunk=7
    )
    layer = network.get_submodule(name)
    outputs: dict[str, Tensor] = {}
    for each, key in ((network, "pruned"), (baseline, "unpruned")):
        each.get_submodule(name).register_forward_hook(lambda *x, key=key: outputs.update({key: x[2]}))
    if end is not None:
        network.get_submodule(end).register_forward_hook(lambda *x: outputs.update(end=x[2]))
    layer.weight.requires_grad_(True)
    logits = network(images)
    baseline(images)
    if head is not None:
        logits = head(outputs["end"])
    difference = outputs["unpruned"].detach() - outputs["pruned"]
    loss = 0.7 * difference.square().mean() / 2 + 0.3 * functional.cross_entropy(logits, labels)
    loss.backward()
    found = problem.evaluate(problem.start, None)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(found.weight_gradient.float(), layer.weight.grad, rtol=1e-4, atol=1e-7)


def test_a_cut_network_is_selected_as_the_whole_one_is() -> None:
    network, images, labels = toy_network()
    whole = cached_problem(network, network, "stages.1.0.residual.3", images, labels)
    split = cached_problem(network, network, "stages.1.0.residual.3", images, labels, chunk=5)
    picks = [ChannelSelection().select(problem, 6).picks for problem in (whole, split)]
    assert picks[0] == picks[1]


def test_a_module_returns_after_those_inside_it() -> None:
    order = order_of_modules(toy_network()[0])
    assert order.index("stages.0.0.residual.3") < order.index("stages.0.0") < order.index("stages.1.0.norm")


@pytest.mark.parametrize(
    ("network", "layer", "end", "message"),
    [
        (Twice(), "layer", None, "runs 2 times in a pass"),
        (Branching(), "layer", None, "its forward pass cannot be followed"),
        (Branches(), "middle", None, "Branches runs no module of that name"),
        (Branches(), "left", "right", "the output of right does not depend on it"),
        (Branches(), "left", "nowhere", "Branches runs no module of that name"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(
    network: nn.Module, layer: str, end: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Cut(network, layer, end, IMAGES[:3])
    assert "\n" not in str(refused.value)


def test_a_layer_of_another_kind_is_refused_by_name() -> None:
    network, images, labels = toy_network()
    with pytest.raises(UserError, match=r"layer norm: channels of BatchNorm2d are not selected"):
        cached_problem(network, network, "norm", images, labels)


def test_an_unpruned_network_of_other_widths_is_refused_with_the_name_of_the_layer() -> None:
    network, images, labels = toy_network()
    wider = copy.deepcopy(network)
    wider.stages[0][0].residual[3] = nn.Conv2d(16, 20, 3, padding=1)  # type: ignore[index, union-attr]
    with pytest.raises(UserError, match=r"^layer stages.0.0.residual.3: "):
        cached_problem(network, wider, "stages.0.0.residual.3", images, labels)


def test_without_a_discrimination_loss_nothing_after_the_layer_is_kept_or_run() -> None:
    network, images, labels = toy_network()
    problem = cached_problem(network, network, "stages.0.0.residual.3", images, labels, lam=0.0)
    with_loss = cached_problem(network, network, "stages.0.0.residual.3", images, labels)
    weight = problem.start / 2
    found = problem.evaluate(weight, None).terms.reconstruction
    assert found == pytest.approx(with_loss.evaluate(weight, None).terms.reconstruction, rel=1e-4)
    assert isinstance(problem.tail, CachedTail) and len(problem.tail.live) == 0
    assert isinstance(with_loss.tail, CachedTail) and len(with_loss.tail.live) == 1


def test_a_cached_problem_leaves_the_network_as_it_was() -> None:
    network, images, labels = toy_network()
    before = copy.deepcopy(network.state_dict())
    head = AuxiliaryHead(32, 4)
    problem = cached_problem(
        network, network, "stages.1.0.residual.3", images, labels, end="stages.1", head=head
    )
    ChannelSelection().select(problem, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert trace(network).calls["stem"] == 1
