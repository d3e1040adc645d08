"""One small limb, explored."""

import numpy as np
import pytest
import torch

import physics_hybrid as ph
from physics_hybrid.problems.potential.explorer.answers import Explorer
from physics_hybrid.problems.potential.explorer.specimen import Specimen

#: Of the solver.
TOLERANCE = 1e-7


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def specimen():
    return Specimen.random(0, (16, 12, 12))


@pytest.fixture(scope="session")
def explorer(specimen):
    """It keeps its fields: the first scene is solved once."""
    return Explorer(specimen, specimen.first_place(), asked={"tolerance": TOLERANCE})


@pytest.fixture
def scene(explorer):
    return explorer.about()["scene"]


@pytest.fixture(scope="session")
def thigh(tmp_path_factory):
    """A segmentation whose axes are left, anterior, superior: two tissues in air."""
    import nibabel

    labels = np.zeros((11, 10, 14), dtype=np.uint8)
    labels[2:-2, 2:-2] = 2
    labels[4:-3, 3:-4] = 3
    affine = np.diag([-5.0, 4.0, 6.0, 1.0])
    affine[:3, 3] = 40.0, -30.0, 100.0
    path = tmp_path_factory.mktemp("thigh") / "thigh.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


def block(spacing=(0.004, 0.005, 0.003)):
    """A homogeneous box in air, closed all round."""
    sigma = np.zeros((14, 12, 13))
    sigma[1:-1, 1:-1, 1:-1] = 0.3
    return ph.Body(sigma, spacing)
