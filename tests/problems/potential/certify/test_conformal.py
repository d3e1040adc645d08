"""Statistical intervals cover what they say, over many calibrations; unlike bodies are told."""

import math

import pytest
import torch

from physics_hybrid.problems.potential.certify.conformal import Calibration, Likeness


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_the_share_of_bodies_within_the_bound_is_the_coverage(coverage: float) -> None:
    """Of 39 errors from a heavy tail: exactly k / (n + 1)."""
    random = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(4000):
        errors = torch.rand(40, generator=random) ** -0.5
        held += float(errors[39]) <= Calibration.of(errors[:39]).bound(coverage)
    exact = math.ceil(40 * coverage) / 40
    assert held / 4000 == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4000) ** 0.5)


def test_too_few_bodies_bound_nothing() -> None:
    assert Calibration.of(torch.ones(8)).bound(0.9) == math.inf
    assert Calibration.of(torch.ones(9)).bound(0.9) == 1


def test_warnings_of_bodies_of_the_same_kind_are_as_rare_as_said() -> None:
    random = torch.Generator().manual_seed(1)
    mix = torch.tensor([[1.0, 0.0], [3.0, 0.1]])
    bodies = torch.randn(4000, 2, generator=random) @ mix.T
    likeness = Likeness.of(bodies[:1000], bodies[1000:2000])
    assert float(likeness.unlike(bodies[2000:], 0.05).double().mean()) == pytest.approx(
        0.05, abs=0.02
    )
    off_the_line = torch.tensor([[1.0, 0.0]])  # no value is unusual alone
    assert bool(likeness.unlike(off_the_line)[0])


@pytest.mark.parametrize("errors", [torch.zeros(0), torch.tensor([float("nan")]), torch.ones(2, 2)])
def test_no_errors_are_refused(errors: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="finite errors"):
        Calibration.of(errors)
