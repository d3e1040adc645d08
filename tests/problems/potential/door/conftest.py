"""Bodies small enough to be solved in hundredths of a second."""

import numpy as np
import pytest
import torch

import physics_hybrid as ph


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ball_in_a_box(shape=(12, 14, 16), spacing=(0.004, 0.005, 0.003), along=True):
    """A cylinder along D of two layers with air round it; closed at the ends unless `along`."""
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    sigma = np.where(h**2 + w**2 < 0.8, 0.05, 0.0)
    sigma[h**2 + w**2 < 0.4] = 0.3
    if not along:
        sigma[[0, -1]] = 0.0
    return ph.Body(sigma, spacing)


@pytest.fixture(scope="session")
def limb():
    return ph.Limb.random(0, grid=(24, 12, 12))


@pytest.fixture(scope="session")
def cylinder():
    return ball_in_a_box()


@pytest.fixture(scope="session")
def closed():
    return ball_in_a_box(along=False)
