"""Counting parameters."""

from torch import nn

from common.metrics.parameters import count_parameters


def test_frozen_parameters_and_running_statistics_are_not_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    assert count_parameters(model) == (3 * 4 + 4) + 2 * 4
