"""Every bound holds, at every sample, against the network solved directly, and says something; what
is sampled is what plain solves give, and its sensitivities are derivatives.
"""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import splu

import physics_hybrid as ph
from physics_hybrid.problems.potential.door import uncertainty as door
from physics_hybrid.problems.potential.uncertain.greedy import extend
from tests.problems.potential.uncertain.scenes import BACK, INSIDE, SKIN, SOURCE, layered

SPREAD = {
    "skin": ph.LogNormal(cv=0.5),
    "fat": ph.LogNormal(cv=0.4),
    "muscle": ph.Uniform(0.6, 1.8),
    "bone": ph.Triangular(0.005, 0.02, 0.06),
}
#: Everything, the tensor of muscle in its parts.
APART = {name: SPREAD[name] for name in ("skin", "fat", "bone")} | {
    "muscle.along": ph.LogNormal(cv=0.3),
    "muscle.across": ph.LogNormal(cv=0.3),
}
QUANTITIES = {
    "voltage": ph.Voltage([SOURCE, INSIDE[0]], SKIN),
    "average": ph.Voltage(SOURCE, SKIN, reference="average", ends="sink"),
    "E": ph.FieldAt(SOURCE, INSIDE[0], "E", returns=BACK),
    "J": ph.FieldAt(SOURCE, INSIDE[0], "J", ends="robin", beta=8.0, singularity="nodal"),
    "lead field": ph.LeadFieldAt([*SKIN, SKIN[0]], INSIDE, reference=SKIN[0], ends="sink"),
    "dipoles": ph.LeadFieldAt(SKIN, INSIDE, moments=(1e-9, 2e-9, 0), reference="average"),
}
IN_PARTS = ("J", "dipoles")


def solve_directly(solver, mu, rhs, start):
    """What `Solver.solved` comes to, without its iterations: for bodies of some hundred voxels."""
    theta = solver.network.theta(torch.from_numpy(mu)).numpy()
    return direct(solver.network, theta, rhs)


@pytest.fixture(scope="module")
def sampled():
    """24 samples of a quantity, by its name; each once."""
    body, known = layered(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door.Solver, "solved", solve_directly)
        yield _by_name(body, known)


def _by_name(body, known):
    """Samples that are made when they are first asked for."""

    def call(name):
        if name not in known:
            spread = APART if name in IN_PARTS else SPREAD
            known[name] = ph.uncertainty(body, spread, QUANTITIES[name], samples=24, progress=False)
        return known[name]

    return call


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solved_directly(found, mu):
    """Values at (S, T) S/m by a direct solution of the network: (S, ...)."""
    pairs, asked = found.model
    network, k, j = pairs.loads.network, pairs.loads, pairs.functionals
    values = []
    for row in mu:
        at = torch.from_numpy(row)
        theta = network.theta(at)
        u = direct(network, theta.numpy(), k.loads.rhs(network, row))
        y = torch.from_numpy(u.T @ j.loads.rhs(network, row))
        values.append((y + pairs.offset(at[None], theta[None])[0]).numpy())
    return asked.arranged(np.stack(values))


def direct(network, theta, rhs):
    """A(theta)^-1 rhs; where nothing fixes a constant the first voxel is grounded."""
    A = matrix(network, theta)
    if abs(A.sum()) < 1e-9 * A.diagonal().sum():
        A = A + sparse.coo_matrix(([A.diagonal().mean()], ([0], [0])), shape=A.shape).tocsc()
    return splu(A).solve(rhs)


def matrix(network, theta):
    """A of the network."""
    return (network.D.T.multiply(theta[network.group]) @ network.D).tocsc()


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
def test_the_bound_of_every_sample_holds_and_is_near(sampled, name):
    found = sampled(name)
    true = solved_directly(found, found.conductivities)
    error = np.abs(found.samples - true)
    rounding = 1e-11 * np.abs(true).max()
    assert (error <= found.bound + rounding).all()
    assert found.worst <= 1
    varies = found.sd > 1e-4 * found.sd.max()
    assert varies.sum() >= 1
    assert (found.bound[:, varies] <= 0.0101 * found.sd[varies]).all()
    # no bound of everything by something huge
    assert found.bound.max() < 100 * error.max()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
def test_samples_are_what_plain_solves_give(sampled, name):
    found = sampled(name)
    spread = APART if name in IN_PARTS else SPREAD
    plain = ph.uncertainty(
        layered(), spread, QUANTITIES[name], samples=2, method="plain", progress=False
    )
    # the first samples of the same seed, of which a basis may be a little off
    assert np.array_equal(plain.conductivities, found.conductivities[:2])
    assert plain.samples.shape == found.samples[:2].shape
    off = np.abs(plain.samples - found.samples[:2])
    assert (off <= found.bound[:2] + 1e-6 * np.abs(plain.samples).max()).all()
    assert plain.bound is None


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
def test_sensitivities_are_derivatives(sampled, name):
    found = sampled(name)
    slopes, nominal = found.sensitivity, found.nominal
    values = solved_directly(found, nominal[None])[0]
    for t, own in enumerate(nominal):
        step = 1e-4 * own * np.eye(len(nominal))[t]
        up, down = solved_directly(found, np.stack([nominal + step, nominal - step]))
        slope = (up - down) / (2 * step[t])
        assert np.abs(slope - slopes[t]).max() < 1e-5 * np.abs(slopes).max()
    # conductivities that grow all together: volts fall as 1 / sigma, and currents stay
    degree = 0.0 if name == "J" else -1.0
    scaled = np.tensordot(nominal, slopes, axes=1)
    assert np.abs(scaled - degree * values).max() < 1e-6 * np.abs(values).max()


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize("name", ["voltage", "E"])
def test_with_few_solutions_the_bound_holds_where_it_is_large(name, monkeypatch):
    monkeypatch.setattr(door.Solver, "solved", solve_directly)
    with pytest.warns(UserWarning, match="times the tolerance after"):
        found = ph.uncertainty(
            layered(),
            SPREAD,
            QUANTITIES[name],
            samples=24,
            most=2,
            tolerance=1e-4,
            progress=False,
        )
    true = solved_directly(found, found.conductivities)
    error = np.abs(found.samples - true)
    assert error.max() > 1e-4 * found.sd.max()  # there is something to bound
    assert (error <= found.bound + 1e-11 * np.abs(true).max()).all()
    low, high = found.interval(0.8, certain=True)
    assert (low <= np.quantile(true, 0.1, axis=0)).all()
    assert (np.quantile(true, 0.9, axis=0) <= high).all()
    # samples that no basis was chosen for
    far = found.conductivities * np.array([3.0, 0.3, 0.5, 4.0])
    values, bound = found.at(far)
    assert (np.abs(values - solved_directly(found, far)) <= bound).all()


@pytest.mark.exact
@pytest.mark.slow
def test_the_energy_error_of_a_basis_is_bounded_from_near(sampled):
    basis = sampled("voltage").model[0].loads
    network, mu = basis.network, torch.from_numpy(sampled("voltage").conductivities)
    few = door.Basis(network, basis.loads, basis.solver)
    ratios = []
    for _ in range(4):
        extend(few, mu[len(few)])
        bounds = few.bounds(mu)
        for s in range(8, 24, 5):
            theta = network.theta(mu[s]).numpy()
            e = direct(network, theta, basis.loads.rhs(network, mu[s].numpy()))
            e -= few.potential(mu[s])
            true = np.sqrt((e * (matrix(network, theta) @ e)).sum(axis=0))
            bound = (bounds.rho + bounds.eps)[s].numpy()
            assert (true <= bound * (1 + 1e-9)).all()
            ratios.append(bound / true)
    assert np.median(ratios) < 8
