"""The network of groups is the operator of the solver, at conductivities it was not made at."""

import numpy as np
import pytest
import torch

import physics_hybrid as ph
from physics_hybrid.problems.potential.door.asked import Posed, subtracted
from physics_hybrid.problems.potential.door.sources import sources_of
from physics_hybrid.problems.potential.door.tissues import tissues_of
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.subtraction import Subtraction
from physics_hybrid.problems.potential.uncertain.conductivities import Conductivities
from physics_hybrid.problems.potential.uncertain.load import Loads
from tests.problems.potential.uncertain.scenes import BACK, SOURCE, layered

VARIED = ("skin", "fat", "muscle.along", "muscle.across")
ENDS = [Ends("grounded"), Ends("robin", 8.0), Ends("sink")]


@pytest.fixture(scope="module")
def body():
    return layered()


def posed(body, ends, varied=VARIED):
    index, tissues = tissues_of(body)
    of = Conductivities.of(index, tissues, varied)
    return Posed.of(body, ends, of, of.own)


@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ends.kind)
def test_the_operator_at_other_conductivities_is_the_solvers(body, ends):
    network = posed(body, ends).network
    of = network.conductivities
    mu = of.own * np.array([2.0, 0.5, 3.0, 0.25])
    spacing = torch.from_numpy(body.spacing)[None]
    operator = FluxOperator.of(ph.Body(of.sigma(mu), body.spacing).conductor(ends))
    u = np.random.default_rng(0).standard_normal((len(network.voxel), 2))
    theta = network.theta(torch.from_numpy(mu)).numpy()
    wanted = operator(network.on_grid(u)) * float(spacing.prod())
    found = network.applied(theta, u)
    assert np.abs(found - network.in_tissue(wanted)).max() < 1e-13 * np.abs(found).max()


def test_groups_are_pairs_of_media_and_what_is_fixed_is_one(body):
    groups = posed(body, Ends("grounded")).network.groups
    assert groups.constant.sum() == 1  # bone in bone
    pairs = set(zip(groups.first.tolist(), groups.second.tolist(), strict=True))
    assert len(pairs) == len(groups) >= 8
    whole = posed(body, Ends("grounded"), ("muscle",)).network.groups
    assert len(whole) < len(groups)


@pytest.mark.parametrize(
    ("kind", "returns"), [("grounded", None), ("robin", None), ("sink", None), ("pair", "other")]
)
def test_the_closed_form_at_other_conductivities_is_that_of_the_solver(body, kind, returns):
    ends = Ends(kind, 8.0 if kind == "robin" else None)
    varied = ("skin", "fat", "muscle", "bone")
    scene = posed(body, ends, varied)
    back = None if returns is None else BACK
    sources = sources_of(body, SOURCE, 1e-3, back, "grid")
    loads = Loads.of(scene.network, [subtracted(scene, sources, 0).load])
    of = scene.network.conductivities
    mu = of.own * np.array([2.0, 0.5, 3.0, 0.25])
    there = ph.Body(of.sigma(mu), body.spacing).conductor(ends)
    source = PointSource(sources.points, sources.current, sources.returns)
    wanted = Subtraction.of(there, FluxOperator.of(there), source).rhs
    found = loads.rhs(scene.network, mu)[:, 0]
    true = scene.network.in_tissue(wanted)[:, 0] * scene.network.volume
    assert np.abs(found - true).max() < 1e-12 * np.abs(true).max()
