"""The inner loops say the shapes that come, too: once, in a process of their own, for their checks
would take two thirds of every solve.
"""

import subprocess
import sys

import pytest

WORK = """
from jaxtyping import install_import_hook

POTENTIAL = "physics_hybrid.problems.potential.physics"
HOT = [f"{POTENTIAL}.stencil", f"{POTENTIAL}.multigrid", "physics_hybrid.problems.burgers.stepper"]
install_import_hook(HOT, "beartype.beartype")

import jaxtyping
import pytest
import torch
from physics_hybrid.problems.burgers.stepper import advance
from physics_hybrid.problems.potential.physics import multigrid
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.solve import solve

spacing = torch.full((2, 3), 0.004, dtype=torch.float64)
conductor = Conductor(torch.full((2, 1, 13, 12, 11), 0.3, dtype=torch.float64), spacing)
point = torch.full((2, 3), 0.021, dtype=torch.float64)
solve(conductor, PointSource(point, torch.tensor([1e-3, 2e-3], dtype=torch.float64)))
advance(torch.randn(3, 64), 0.01, torch.full((3,), 0.01))
with pytest.raises(jaxtyping.TypeCheckError):
    multigrid.dot(torch.zeros(3, 4), torch.zeros(3, 4))
print("held")
"""


@pytest.mark.slow
def test_inner_loops_are_held_to_their_shapes_as_well():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "held"
