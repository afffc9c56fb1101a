import torch
from torch import nn

from common.models.resnet import CifarResNet
from common.models.weightless import weightless


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def test_a_network_without_weights_has_the_shapes_of_the_network_and_draws_nothing() -> None:
    state = torch.random.get_rng_state()
    with weightless():
        found = CifarResNet(shape=(3, 8, 8), classes=4, depth=8, block="basic", shortcut="A")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(tensor.is_meta for tensor in found.state_dict().values())
    assert shapes(found) == shapes(
        CifarResNet(shape=(3, 8, 8), classes=4, depth=8, block="basic", shortcut="A")
    )


def test_numbers_that_a_network_draws_on_a_device_of_its_own_are_drawn() -> None:
    torch.manual_seed(0)
    expected = torch.empty(3).normal_()
    torch.manual_seed(0)
    with weightless():
        found = torch.empty(3, device="cpu").normal_()
    assert torch.equal(found, expected)


def test_outside_of_it_tensors_have_numbers() -> None:
    with weightless():
        pass
    assert not nn.Linear(2, 2).weight.is_meta
