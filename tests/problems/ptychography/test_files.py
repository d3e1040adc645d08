"""A user's scan: both formats are one scan, and what is broken is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from physics_hybrid.problems.ptychography.data.files import ScanError, read
from physics_hybrid.problems.ptychography.data.simulate import Setting, simulate
from physics_hybrid.problems.ptychography.losses import misfit

SETTING = Setting(
    frame=16,
    size=40,
    lines=40,
    set_phase=True,
    radius=4,
    edge=1,
    curvature=1.0,
    step=4,
    jitter=1,
    photons=1e6,
)


def arrays() -> dict[str, np.ndarray]:
    scan = simulate(SETTING, "one", (0, 0, 0))
    return {
        "diffraction": scan.amplitude.numpy().astype(np.float64),
        "probe": scan.probe.numpy(),
        "positions": scan.positions.numpy() + 100.0,
    }


def test_formats_and_quantities_give_the_same_scan(tmp_path):
    content = arrays()
    np.savez(tmp_path / "a.npz", **content)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, values in {**content, "diffraction": content["diffraction"] ** 2}.items():
            file[key] = values
    first, second = read(tmp_path / "a.npz"), read(tmp_path / "a.h5", "intensity")
    assert torch.allclose(first.amplitude, second.amplitude, rtol=1e-6)
    assert torch.equal(first.positions, second.positions)
    assert first.shape == second.shape == (40, 40)
    assert torch.allclose(first.probe, second.probe)
    assert second.photon_scale == 1.0
    # the probe has the light of the frames, whatever its unit was
    energy = first.amplitude.square().sum(dim=(1, 2)).mean()
    assert float(first.probe.abs().square().sum()) == pytest.approx(float(energy), rel=1e-4)


def test_a_truth_is_taken_at_its_places(tmp_path):
    scan = simulate(SETTING, "one", (0, 0, 0))
    content = {**arrays(), "positions": scan.positions.numpy(), "object": scan.truth.numpy()}
    np.savez(tmp_path / "a.npz", **content)
    taken = read(tmp_path / "a.npz")
    ratio = scan.probe.abs().sum() / taken.probe.abs().sum()
    assert misfit(taken.expected(taken.truth * ratio), taken.amplitude) < 3e-2  # the noise
    content["positions"] = content["positions"] - 1
    np.savez(tmp_path / "b.npz", **content)
    with pytest.raises(ScanError, match="must be places on the object of the file, >= 0; got -1"):
        read(tmp_path / "b.npz")


def changed(key, change):
    content = arrays()
    content[key] = change(content[key])
    return content


def spoilt(values):
    values[3, 2, 1] = np.nan
    return values


def dark(values):
    values[2] = 0
    return values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"probe": np.ones((4, 4))}, "key 'diffraction': is missing; a scan has"),
        (lambda: changed("diffraction", spoilt), r"a.npz\[3\]: key 'diffraction': must be finite"),
        (lambda: changed("diffraction", dark), r"a.npz\[2\]: key 'diffraction': is dark"),
        (lambda: changed("diffraction", np.negative), r"a.npz\[0\]: .* must be >= 0"),
        (lambda: changed("diffraction", lambda v: v[:, :9]), r"shape \(frames, N, N\)"),
        (lambda: changed("diffraction", lambda v: 1j * v), "a detector records no phase"),
        (lambda: changed("probe", lambda v: v[:9, :9]), r"'probe': must have shape \(16, 16\)"),
        (lambda: changed("probe", lambda v: 0 * v), "'probe': is zero everywhere"),
        (lambda: changed("positions", lambda v: v[:-1]), r"'positions': must have shape \(\d+, 2"),
        (lambda: changed("positions", lambda v: 1e-8 * v), "pixels are expected .* wavelength"),
        (lambda: changed("positions", lambda v: v.astype("S5")), "must hold numbers"),
        (lambda: changed("positions", lambda v: 1j * v), "'positions': must be real"),
        (lambda: {**arrays(), "object": np.ones((9, 9))}, "must cover all frames"),
    ],
)
def test_broken_scans_are_named(content, message, tmp_path):
    np.savez(tmp_path / "a.npz", **content())
    with pytest.raises(ScanError, match=message) as refused:
        read(tmp_path / "a.npz")
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ScanError, match=r"give \.h5 or \.npz"):
        read(tmp_path / "scan.cxi")
    with pytest.raises(ScanError, match="does not exist"):
        read(tmp_path / "scan.npz")
