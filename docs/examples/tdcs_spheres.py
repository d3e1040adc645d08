"""A pair of electrodes on a head of spheres, as in transcranial direct current stimulation.

Brain, skull and scalp: radii of Rush and Driscoll (IEEE TBME 16 (1969) 15), a skull that conducts
15 times less (Oostendorp et al., IEEE TBME 47 (2000) 1487); 2 mA between two round electrodes. E in
the brain is held to the series of the layered sphere by reciprocity: a dipole p at r gives the
electrodes the voltage

    V = -p . E(r) / I

    python docs/examples/tdcs_spheres.py [--voxel 0.0025]
"""

import argparse
from pathlib import Path

import numpy as np

import physics_hybrid as ph
from physics_hybrid.problems.potential.exact.sphere import layered_sphere
from physics_hybrid.report.plots import pyplot, save

RADII = [0.080, 0.085, 0.092]  # m
SIGMA = [0.33, 0.022, 0.33]  # S/m
CURRENT, RADIUS = 2e-3, 0.02  # A, m of an electrode
DIRECTIONS = np.array([[0.75, 0.0, -0.66], [0.5, 0.3, 0.81]])  # (D, H, W), from the middle


def head(voxel):
    """Concentric spheres with a voxel of air round them."""
    n = 2 * int(np.ceil(RADII[-1] / voxel)) + 2
    axis = (np.arange(n) + 0.5 - n / 2) * voxel
    r = np.sqrt(sum(c**2 for c in np.meshgrid(axis, axis, axis, indexing="ij")))
    return ph.Body(np.array([*SIGMA, 0.0])[np.searchsorted(RADII, r)], (voxel,) * 3)


def patches(body):
    """Two electrodes on the scalp."""
    units = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    return [ph.Patch(body.extent / 2 + RADII[-1] * u, RADIUS) for u in units]


def exact(body, place, direction):
    """E along a direction at a place of the brain, V/m: by a dipole there, over the patches."""
    step = 1e-4 * direction / 2
    means = []
    for patch in patches(body):
        centres = (patch.voxels(body) + 0.5) * body.spacing - body.extent / 2
        skin = RADII[-1] * centres / np.linalg.norm(centres, axis=1, keepdims=True)
        volts = layered_sphere(
            0.9999 * skin, radii=RADII, sigma=SIGMA, source=place + step, returns=place - step
        )
        means.append(volts.mean())
    return -CURRENT * (means[0] - means[1]) / 1e-4


def main(voxel=0.0025, path=Path("tdcs_spheres.png"), places=12):
    body = head(voxel)
    first, second = patches(body)
    field = ph.solve(body, first, CURRENT, returns=second, tolerance=1e-7)
    E = field.E
    size = np.linalg.norm(E, axis=-1)
    centres = (np.indices(body.shape).transpose(1, 2, 3, 0) + 0.5) * body.spacing - body.extent / 2
    brain = np.linalg.norm(centres, axis=-1) < RADII[0]
    random = np.random.default_rng(0)
    inner = np.argwhere(np.linalg.norm(centres, axis=-1) < 0.9 * RADII[0])
    off, whole = 0.0, 0.0
    for voxel_index in random.choice(inner, places, replace=False):
        place = centres[tuple(voxel_index)]
        true = [exact(body, place, axis) for axis in np.eye(3)]
        off += float(np.sum((E[tuple(voxel_index)] - true) ** 2))
        whole += float(np.sum(np.square(true)))
    error = (off / whole) ** 0.5
    volts = field.at(first) - field.at(second)
    print(f"|E| in the brain up to {size[brain].max():.3f} V/m; {volts:.3f} V between the patches")
    print(f"E at {places} places of the brain, against the series: {error:.2%} apart")
    draw(body, np.ma.masked_where(~brain, size), path)
    return {"error": error, "largest": float(size[brain].max()), "volts": float(volts)}


def draw(body, size, path):
    """|E| in the brain, V/m: sections through the middle."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.9), layout="constrained")
    edges = 1e3 * body.extent[0] / 2 * np.array([-1, 1, -1, 1])
    for axis, normal, (up, across) in zip(axes, (1, 0), (("D", "W"), ("H", "W")), strict=True):
        shown = size.take(
            body.shape[normal] // 2 if normal else 2 * body.shape[0] // 3, axis=normal
        )
        picture = axis.imshow(shown, origin="lower", extent=edges, cmap="magma", vmin=0)
        picture.set_clim(0, float(np.percentile(size.compressed(), 99.8)))
        if normal == 1:
            for radius in RADII:
                axis.add_patch(plt.Circle((0, 0), 1e3 * radius, fill=False, color="0.5", lw=0.6))
        axis.set(xlabel=f"{across} (mm)", ylabel=f"{up} (mm)")
    axes[0].set_title("through the middle")
    axes[1].set_title("across D, two thirds up")
    figure.colorbar(picture, ax=axes, label="|E| in the brain (V/m)", extend="max", shrink=0.9)
    save(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxel", type=float, default=0.0025, help="m")
    print(main(parser.parse_args().voxel))
