"""Lead fields equal direct solves: reciprocity of a symmetric operator, to its tolerance."""

import nibabel
import numpy as np
import pytest
import torch

import physics_hybrid as ph
from physics_hybrid.problems.potential.door.interpolation import Weights
from physics_hybrid.problems.potential.door.sources import Deposit
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.reading import FileError

PLACES = np.array([[0.06, 0.05, 0.0], [0.08, 0.05, 0.0], [0.1, 0.0, 0.05], [0.12, 0.09, 0.05]])
POINTS = np.array([[0.053, 0.047, 0.041], [0.093, 0.052, 0.0512], [0.081, 0.0444, 0.0481]])


def direct(body, points, ends="grounded"):
    """phi of 1 A deposited in the voxels round each point: what a look-up is the transpose of."""
    conductor = body.conductor(ends)
    weights = Weights.at(conductor, torch.from_numpy(points))
    deposits = [
        Deposit(v.numpy(), s.numpy()) for v, s in zip(weights.voxels, weights.values, strict=True)
    ]
    density = torch.stack([d.density(conductor) for d in deposits])
    return solve(conductor, density, 1e-11).phi.numpy()


@pytest.mark.parametrize(
    ("ends", "reference"),
    [("grounded", None), ("sink", "average"), ("sink", None), ("grounded", [0.15, 0.05, 0.09])],
)
def test_a_look_up_is_a_solve_for_the_same_deposited_current(limb, ends, reference):
    electrodes, points = limb.nearest(PLACES), limb.nearest(POINTS)
    if isinstance(reference, list):
        reference = limb.nearest(reference)
    lead = ph.lead_field(limb, electrodes, reference, tolerance=1e-9, ends=ends)
    phi = direct(limb, points, ends)
    at = Weights.at(limb.conductor(ends), torch.from_numpy(electrodes))
    volts = at.of(torch.from_numpy(phi)).numpy()
    scale = np.abs(volts).max()
    if isinstance(reference, str):
        volts = volts - volts.mean(axis=1, keepdims=True)
    elif reference is not None:
        there = Weights.at(limb.conductor(ends), torch.from_numpy(reference)[None])
        volts = volts - there.of(torch.from_numpy(phi)).numpy()
    assert np.abs(lead(points) - volts).max() < 1e-5 * scale


@pytest.mark.parametrize("ends", ["grounded", "sink"])
def test_solved_is_what_solve_gives_singularity_and_all(limb, ends):
    electrodes, points = limb.nearest(PLACES), limb.nearest(POINTS)
    lead = ph.lead_field(limb, electrodes, tolerance=1e-9, ends=ends)
    field = ph.solve(limb, points, 1.0, tolerance=1e-10, ends=ends)
    volts = field.at(electrodes)
    assert np.abs(lead.solved(points) / volts - 1).max() < 1e-5
    patches = [ph.Patch(place, 0.012) for place in electrodes]
    lead = ph.lead_field(limb, patches, tolerance=1e-9, ends=ends)
    volts = field.at(patches)
    assert np.abs(lead.solved(points) / volts - 1).max() < 1e-5


def test_a_dipole_is_two_monopoles_in_one_tissue_and_minus_the_field(cylinder):
    h = cylinder.spacing
    lead = ph.lead_field(cylinder, cylinder.nearest([[0.02, 0.0, 0.02], [0.03, 0.07, 0.02]]))
    centre = (np.array([6, 7, 8]) + 0.5) * h
    for axis in range(3):
        step = np.eye(3)[axis] * h
        slope = (lead(centre + step) - lead(centre - step)) / (2 * h[axis])
        moment = np.eye(3)[axis] * 1e-9
        assert np.allclose(lead.dipoles(centre, moment), 1e-9 * slope, rtol=1e-6)
    assert lead.dipoles([centre, centre], [1e-9, 0, 0]).shape == (2, 2)


def test_a_slope_is_the_flux_through_the_faces_where_tissues_meet(cylinder):
    (place,) = cylinder.nearest([[0.02, 0.0, 0.02]])
    lead = ph.lead_field(cylinder, place, tolerance=1e-10)
    there = ph.solve(cylinder, place, 1.0, singularity="nodal", tolerance=1e-10)
    # all of a section, both layers and what lies next to air
    voxels = np.argwhere(cylinder.tissue)
    voxels = voxels[(voxels[:, 0] == 0) | (voxels[:, 0] == 8)]
    centres = torch.from_numpy((voxels + 0.5) * cylinder.spacing)
    slopes = lead.gradient(centres)[..., 0]
    field = -there.E[tuple(voxels.T)]
    assert np.abs(slopes - field).max() < 1e-4 * np.abs(field).max()


def test_a_file_is_mapped_and_gives_the_same_and_of_another_body_is_refused(limb, tmp_path):
    electrodes, points = limb.nearest(PLACES), limb.nearest(POINTS)
    for reference in ("average", limb.nearest(electrodes[0] + [0.03, 0, 0])):
        lead = ph.lead_field(limb, electrodes, reference)
        path = lead.save(tmp_path / "lead.h5")
        back = ph.LeadField.load(path, limb)
        assert isinstance(back.volts, np.memmap)
        assert np.array_equal(back(points), lead(points))
        assert np.allclose(back.solved(points[:1]), lead.solved(points[:1]), rtol=1e-12)
    with pytest.raises(FileError, match="of another body"):
        ph.LeadField.load(path, ph.Limb.random(1, grid=(24, 12, 12)))
    with pytest.raises(FileError, match="does not exist"):
        ph.LeadField.load(tmp_path / "none.h5", limb)
    nifti = nibabel.load(lead.save(tmp_path / "lead.nii.gz"))
    assert np.array_equal(nifti.get_fdata(dtype=np.float32), lead.volts)
    with pytest.raises(ValueError, match=r"\.h5, \.nii\.gz or \.nii"):
        lead.save(tmp_path / "lead.txt")


def test_ten_thousand_look_ups_take_less_than_a_second_of_a_processor(limb):
    import time

    lead = ph.lead_field(limb, np.repeat(limb.nearest(PLACES), 16, axis=0))
    points = np.repeat(limb.nearest(POINTS), 3334, axis=0)
    began = time.process_time()
    assert lead(points).shape == (10002, 64)
    assert time.process_time() - began < 1.0


def test_what_is_no_electrode_is_said(limb):
    with pytest.raises(ValueError, match=r"electrodes\[1\] = .* lies in air.*body\.nearest"):
        ph.lead_field(limb, [limb.electrode, [0.1, 0.0005, 0.0005]])
    with pytest.raises(ValueError, match="reference must be a place"):
        ph.lead_field(limb, [limb.electrode], "mean")
    with pytest.raises(ValueError, match="covers no voxel of the skin"):
        ph.lead_field(limb, [ph.Patch([0.1, 0, 0], 1e-4)])
