"""The tolerance of the solver is in the bound."""

import numpy as np
import pytest

import physics_hybrid as ph
from physics_hybrid.problems.potential.door import uncertainty as door
from tests.problems.potential.uncertain.scenes import layered
from tests.problems.potential.uncertain.test_bound import QUANTITIES, SPREAD, solved_directly


@pytest.mark.slow
def test_the_tolerance_of_a_solver_is_in_the_bound(monkeypatch):
    monkeypatch.setattr(door, "SOLVED", 1e-3)
    with pytest.warns(UserWarning, match="times the tolerance"):
        found = ph.uncertainty(
            layered(),
            SPREAD,
            QUANTITIES["voltage"],
            samples=24,
            tolerance=1e-7,
            most=4,
            progress=False,
        )
    true = solved_directly(found, found.conductivities)
    assert (np.abs(found.samples - true) <= found.bound).all()
