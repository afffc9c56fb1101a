"""Evaluation mode for a while."""

import pytest
import torch
from torch import nn

from common.base.modes import evaluation_mode


def test_each_layer_gets_back_its_own_mode_whatever_happens() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    network[1][0].eval()
    other = nn.Dropout().eval()
    with pytest.raises(ZeroDivisionError), evaluation_mode(network, other):
        assert not any(layer.training for layer in network.modules())
        raise ZeroDivisionError
    assert [layer.training for layer in network.modules()] == [True, True, True, False, True]
    assert not other.training


def test_gradients_are_recorded_as_they_were() -> None:
    network = nn.Linear(2, 2)
    with evaluation_mode(network):
        assert torch.is_grad_enabled()
    with torch.no_grad(), evaluation_mode(network):
        assert not torch.is_grad_enabled()
