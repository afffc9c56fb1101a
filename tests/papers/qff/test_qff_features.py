"""Feature maps: random, quasi-random and orthogonal frequencies, derivatives, batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from qff_toys import normal, quadrature, streams, uniform
from scipy.stats import norm, qmc
from scipy.stats import t as student
from sklearn.kernel_approximation import RBFSampler

from common.base.errors import UserError
from papers.qff.basis import FourierBasis
from papers.qff.features import (
    ORF,
    RFF,
    FeatureFamily,
    Halton,
    fixed_features,
    halton,
    orthogonal,
    quantile,
    rff_bias,
    rff_paired,
    rff_unpaired,
)

FAMILIES: list[FeatureFamily] = [
    RFF(nodes=64, form="paired"),
    RFF(nodes=64, form="bias"),
    RFF(nodes=64, form="unpaired"),
    Halton(nodes=64),
    ORF(nodes=64),
    quadrature(8),
]


def test_paired_features_are_cosines_and_sines_of_one_frequency_and_have_diagonal_one() -> None:
    W, x = normal(30, 2), uniform(10, 2)
    phi = rff_paired(W)(x)
    expected = torch.cat([torch.cos(x @ W.T), torch.sin(x @ W.T)], 1) * math.sqrt(2 / 60)
    torch.testing.assert_close(phi, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(phi.square().sum(1), torch.ones(10).double(), rtol=0, atol=1e-14)


def test_bias_features_are_those_of_sklearn() -> None:
    sampler = RBFSampler(gamma=1 / (2 * 0.3**2), n_components=50, random_state=0)
    x = uniform(10, 3)
    expected = sampler.fit_transform(x.numpy())
    W, b = torch.tensor(sampler.random_weights_.T), torch.tensor(sampler.random_offset_)
    np.testing.assert_allclose(rff_bias(W, b)(x), expected, rtol=0, atol=1e-14)


def test_unpaired_features_are_those_of_the_authors_code() -> None:
    """`RFFEmbedding.embed`: cosines of the first half of the rows, sines of the others."""
    W, x = normal(8, 2), uniform(5, 2)
    z = W @ x.T
    expected = torch.cat([math.sqrt(2 / 8) * torch.cos(z[:4]), math.sqrt(2 / 8) * torch.sin(z[4:])]).T
    torch.testing.assert_close(rff_unpaired(W)(x), expected, rtol=0, atol=1e-15)
    assert float((rff_unpaired(W)(x).square().sum(1) - 1).abs().max()) > 0.1


@pytest.mark.parametrize("nu", [1, 2, 3, 4])
def test_quantiles_of_a_modified_matern_density_are_those_of_its_distribution(nu: int) -> None:
    """Numerically: the integral of c (1 + u^2)^-nu up to the quantile is the uniform number."""
    kernel: Any = "laplace" if nu == 1 else f"modified_matern_{nu}"
    p = torch.tensor([0.05, 0.3, 0.5, 0.9]).double()
    found = quantile(kernel, p)
    grid = np.tan(np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1])
    density = (1 + grid**2) ** (1.0 - nu)
    total = np.cumsum(density) / density.sum()
    np.testing.assert_allclose(np.interp(found.numpy(), grid, total), p, atol=2e-6)
    if nu > 1:
        np.testing.assert_allclose(found, student.ppf(p, 2 * nu - 1) / math.sqrt(2 * nu - 1))


def test_normal_quantiles_are_finite_at_the_ends() -> None:
    ends = torch.tensor([0.0, 1.0 - 2.0**-53, 0.25]).double()
    found = quantile("se", ends)
    assert bool(found.isfinite().all())
    assert float(found[2]) == pytest.approx(norm.ppf(0.25))


def test_halton_points_are_scipys_without_the_zero() -> None:
    expected = qmc.Halton(3, scramble=False).random(11)[1:]
    np.testing.assert_array_equal(halton(10, 3), expected)


def test_orthogonal_frequencies_are_orthogonal_in_blocks_with_chi_lengths() -> None:
    normals, lengths = normal(5, 4, 4), normal(5, 4, 4, seed=1)
    W = orthogonal(normals, lengths).reshape(5, 4, 4)
    gram = W @ W.mT
    off = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 1e-12
    torch.testing.assert_close(W.norm(dim=-1), lengths.norm(dim=-1))


def test_orthogonal_features_estimate_the_kernel_without_bias_and_with_less_spread() -> None:
    gamma = torch.tensor([[0.5, 0.5, 0.5]]).double()
    x = torch.zeros(1, 3).double()
    y = torch.tensor([[0.3, -0.4, 0.3]]).double()
    exact = float(torch.exp(-0.5 * ((x - y) / 0.5).square().sum()))
    spread = {}
    for family in (ORF(nodes=4), RFF(nodes=4, form="paired")):
        values = family.build("se", gamma, streams(2000)).kernel(x, y).flatten()
        assert float(values.mean()) == pytest.approx(exact, abs=4 * float(values.std()) / 2000**0.5)
        spread[family.NAME] = float(values.std())
    assert spread["orf"] < spread["rff"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.NAME}-{getattr(f, 'form', '')}")
def test_a_family_approximates_the_kernel_and_its_derivatives_are_right(family: FeatureFamily) -> None:
    features = fixed_features(family, "se", [0.5, 0.6], seed=3)
    x = uniform(30, 2)
    exact = torch.exp(-0.5 * torch.cdist(x / torch.tensor([0.5, 0.6]), x / torch.tensor([0.5, 0.6])).square())
    assert float((features.kernel(x, x) - exact).abs().max()) < 0.25
    z = uniform(1, 1, 4, 2).requires_grad_()
    w = normal(1, 1, features.size)
    jet = FourierBasis(features).jet(z)
    value = (jet.value * w[..., None, :]).sum(-1)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    bend = torch.stack(
        [torch.autograd.grad(slope[..., i].sum(), z, retain_graph=True)[0] for i in (0, 1)], -1
    )
    torch.testing.assert_close(jet.gradient(w[..., None, :]), slope, rtol=0, atol=1e-10)
    torch.testing.assert_close(jet.hessian(w[..., None, :]), bend, rtol=0, atol=1e-9)
    torch.testing.assert_close((jet.jacobian() * w[..., None, :, None]).sum(-2), slope, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.NAME}-{getattr(f, 'form', '')}")
def test_a_replicates_features_do_not_depend_on_how_many_there_are(family: FeatureFamily) -> None:
    gamma = torch.tensor([[0.5], [0.3]]).double()
    many = family.build("se", gamma, streams(3)).frequencies.expand(3, 2, -1, 1)
    alone = family.build("se", gamma, streams(1, seed=2)).frequencies.expand(1, 2, -1, 1)
    assert torch.equal(many[2], alone[0])


def test_groups_of_one_lengthscale_share_quadrature_features() -> None:
    family = quadrature(8)
    same = family.build("se", torch.full((5, 2), 0.3).double(), streams(4))
    other = family.build("se", torch.tensor([[0.3], [0.4]]).double(), streams(4))
    assert same.frequencies.shape == (1, 1, 64, 2) and other.frequencies.shape == (1, 2, 8, 1)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: RFF(nodes=0, form="paired"), "method rff: nodes=0; valid: at least 1"),
        (
            lambda: fixed_features(RFF(nodes=5, form="paired"), "se", [1.0], 0),
            "nodes=5; valid: an even number",
        ),
        (lambda: fixed_features(ORF(nodes=4), "laplace", [1.0], 0), "method orf needs an isotropic density"),
    ],
)
def test_what_makes_no_features_gets_one_line(make: Any, line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        make()
    assert "\n" not in str(raised.value)
