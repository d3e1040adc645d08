"""Distributions have the moments that they say, and are positive; indices are those of Ishigami."""

import numpy as np
import pytest

import physics_hybrid as ph
from physics_hybrid.problems.potential.uncertain.sobol import indices

LAWS = [
    ph.LogNormal(0.3, cv=0.4),
    ph.Normal(0.3, cv=0.3, within=2.0),
    ph.Uniform(0.1, 0.7),
    ph.Triangular(0.1, 0.2, 0.9),
    ph.Triangular(0.1, 0.1, 0.4),
]


@pytest.mark.exact
@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_moments_are_the_integrals_of_the_quantiles(law):
    u = (np.arange(400_000) + 0.5) / 400_000
    values = law.at(u)
    assert values.min() > 0
    assert (np.diff(values) > 0).all()
    assert values.mean() == pytest.approx(law.centre, rel=1e-4)
    assert values.std() == pytest.approx(law.sd, rel=2e-3)


def test_a_distribution_without_a_mean_is_about_what_the_body_has():
    assert ph.LogNormal(cv=0.2).around(0.05) == ph.LogNormal(0.05, 0.2)
    assert ph.LogNormal(0.3, cv=0.2).around(0.05).centre == 0.3
    with pytest.raises(ValueError, match="has no mean without a body"):
        ph.Normal(cv=0.1).at(0.5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ph.LogNormal(-0.3), "LogNormal: mean must be > 0 S/m, finite; got -0.3"),
        (lambda: ph.LogNormal(0.3, cv=0), "LogNormal: cv must be > 0, finite; got 0"),
        (lambda: ph.LogNormal("fat"), "mean must be > 0 S/m, finite; got 'fat'"),
        (
            lambda: ph.Normal(0.3, cv=0.5),
            "reaches -0.5 of its mean",
        ),
        (lambda: ph.Uniform(-0.1, 0.2), "Uniform: low must be > 0 S/m, finite; got -0.1"),
        (lambda: ph.Uniform(0.3, 0.2), "must have low < high"),
        (lambda: ph.Uniform(0.3, np.inf), "must have low < high, S/m, finite"),
        (lambda: ph.Triangular(0.1, 0.5, 0.4), "must have low <= mode <= high"),
        (lambda: ph.Uniform(0.3, None), "Uniform: high must be a number, S/m; got None"),
        (lambda: ph.Triangular(0.1, "own", 0.4), "Triangular: mode must be a number"),
        (lambda: ph.LogNormal(0.3, cv=1e200), "cv must be <= 1000"),
        (lambda: ph.Normal(0.3, cv=0.1, within=1e-9), "within must be >= 0.001"),
    ],
)
def test_what_is_no_conductivity_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.exact
def test_indices_are_those_of_ishigami():
    """(Ishigami and Homma 1990: y = sin x1 + a sin^2 x2 + b x3^4 sin x1, x uniform on +-pi)"""
    a, b = 7.0, 0.1

    def y(u):
        x1, x2, x3 = (np.pi * (2 * u - 1)).T
        return np.sin(x1) + a * np.sin(x2) ** 2 + b * x3**4 * np.sin(x1)

    v1 = (1 + b * np.pi**4 / 5) ** 2 / 2
    v2, v13 = a**2 / 8, b**2 * np.pi**8 * 8 / 225
    whole = v1 + v2 + v13
    found = indices(y, 3, 2**14, seed=0)
    assert found.evaluations == 5 * 2**14
    assert np.abs(found.first - np.array([v1, v2, 0]) / whole).max() < 0.01
    assert np.abs(found.total - np.array([v1 + v13, v2, v13]) / whole).max() < 0.01


def test_a_value_that_does_not_vary_has_no_indices():
    found = indices(lambda u: np.ones((len(u), 2)), 2, 16, seed=0)
    assert np.isnan(found.first).all()
