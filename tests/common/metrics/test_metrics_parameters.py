"""Counting parameters."""

from torch import nn

from common.metrics.parameters import count_parameters
from common.models.weightless import weightless


def test_frozen_parameters_and_running_statistics_are_not_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    assert count_parameters(model) == (3 * 4 + 4) + 2 * 4


def test_statistics_of_batch_normalisation_are_a_mean_and_a_variance_a_channel() -> None:
    with weightless():
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.BatchNorm1d(7, affine=False))
        bare = nn.Sequential(nn.BatchNorm2d(5, track_running_stats=False), nn.GroupNorm(1, 5))
    assert count_parameters(model, batch_norm_statistics=True) == (5 * 27 + 5 + 10) + 2 * 5 + 2 * 7
    assert count_parameters(bare, batch_norm_statistics=True) == 20


def test_shared_layers_count_once() -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm, nn.ReLU(), norm)
    assert count_parameters(model) == 8
    assert count_parameters(model, batch_norm_statistics=True) == 16
