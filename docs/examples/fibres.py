"""Where fibres run: along the limb, along each muscle's own axis, or as diffusion shows them.

Two muscles that lean apart, in fat, and the diffusion image that dtifit would make of them:
coarser, turned, with noise. The truth, fibres along the axes that they were drawn with, is known.
"""

import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

import physics_hybrid as ph
from physics_hybrid.problems.potential.bodies.fibres import along_fibres, matrices, six
from physics_hybrid.report.plots import pyplot, save

SIZE = np.array([0.15, 0.09, 0.1])  # m: D, H, W
MUSCLES = {5: ((0.03, 0.05), 16.0), 6: ((0.062, 0.05), -14.0)}  # label: centre (H, W) m, lean deg
RADIUS = 0.0145  # m
ALONG, ACROSS = 2.0e-3, 1.3e-3  # mm^2/s
NOISE = 0.05  # of ACROSS, each component
MUSCLE = 1.2275, 0.2455  # S/m, along and across
SIGMA = {"fat": 0.05, "muscle": [*MUSCLE, MUSCLE[1]]}
TABLE = {name: {"label": k, "sigma": SIGMA[name]} for name, k in (("fat", 2), ("muscle", [5, 6]))}
ELECTRODE = (0.075, 0.03, 0.05)  # m, within the first muscle


def axis_of(lean):
    return np.array([np.cos(np.radians(lean)), 0.0, np.sin(np.radians(lean))])


def drawn(points):
    """Labels and fibres (0 outside muscle) at points (..., 3) m."""
    labels, fibres = np.full(points.shape[:-1], 2, dtype=np.uint8), np.zeros(points.shape)
    for label, (centre, lean) in MUSCLES.items():
        off = points - [SIZE[0] / 2, *centre]
        inside = np.linalg.norm(np.cross(off, axis_of(lean)), axis=-1) < RADIUS
        labels[inside], fibres[inside] = label, axis_of(lean)
    return labels, fibres


def centres(grid, voxel):
    return (np.moveaxis(np.indices(grid), 0, -1) + 0.5) * voxel


def write(folder, voxel):
    """leg.nii.gz, and dti.nii.gz as FSL has it. The axes of the files are H, W, D."""
    labels, _ = drawn(centres(np.rint(SIZE / voxel).astype(int), voxel))
    affine = np.diag([1e3 * voxel] * 3 + [1.0])
    affine[:3, 3] = 500 * voxel
    nibabel.save(nibabel.Nifti1Image(labels.transpose(1, 2, 0), affine), folder / "leg.nii.gz")
    turn = Rotation.from_euler("xyz", [8, -6, 12], degrees=True).as_matrix()
    scanner, shape = np.eye(4), np.array([24, 26, 38])
    scanner[:3, :3] = 5 * turn
    scanner[:3, 3] = 500 * SIZE[[1, 2, 0]] - scanner[:3, :3] @ (shape - 1) / 2
    world = np.moveaxis(np.indices(shape), 0, -1) @ scanner[:3, :3].T + scanner[:3, 3]
    _, fibres = drawn(world[..., [2, 0, 1]] / 1e3)
    D = along_fibres(ALONG, ACROSS, fibres[..., [1, 2, 0]])
    D += NOISE * ACROSS * matrices(np.random.default_rng(0).normal(size=(*shape, 6)))
    basis = turn @ np.diag([-1, 1, 1])  # FSL turns the first axis where the affine keeps the hand
    own = six(basis.T @ D @ basis)[..., [0, 3, 4, 1, 5, 2]]  # xx, xy, xz, yy, yz, zz
    nibabel.save(nibabel.Nifti1Image(own.astype(np.float32), scanner), folder / "dti.nii.gz")


def main(voxel=0.003, path=Path("fibres.png")):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), voxel)
        leg = f"{folder}/leg.nii.gz"
        image = ph.Tensors(f"{folder}/dti.nii.gz", "fsl", mapping="direction")
        legs = {
            "along D": ph.read_labels(leg, TABLE),
            "own axes": ph.read_labels(leg, TABLE, fibres="axis"),
            "diffusion": ph.read_labels(leg, TABLE, tensors=image),
        }
    places = centres(legs["along D"].shape, voxel)
    labels, fibres = drawn(places)
    muscle, sigma = labels > 2, np.full((*labels.shape, 6), [SIGMA["fat"]] * 3 + [0.0] * 3)
    sigma[muscle] = six(along_fibres(*MUSCLE, fibres[muscle]))
    fields = {"truth": ph.solve(ph.Body(sigma, (voxel,) * 3), ELECTRODE, progress=False)}
    beyond = np.linalg.norm(places - ELECTRODE, axis=-1) > 3 * voxel
    volts, found = fields["truth"].phi[beyond], {}
    for name, leg in legs.items():
        fields[name] = ph.solve(leg, ELECTRODE, progress=False)
        sigma = np.moveaxis(leg.sigma[0].numpy(), 0, -1)[muscle]
        axes = np.linalg.eigh(matrices(np.pad(sigma, ((0, 0), (0, 6 - sigma.shape[1])))))[1]
        cosines = np.abs((axes[..., 2] * fibres[muscle]).sum(axis=-1))
        degrees = float(np.median(np.degrees(np.arccos(np.clip(cosines, 0, 1)))))
        error = np.linalg.norm(fields[name].phi[beyond] - volts) / np.linalg.norm(volts)
        found[name] = {"degrees": degrees, "error": float(error)}
        said = f"{name}: {degrees:.1f} deg off (median), volts {error:.1%} off"
        print(said, *leg.notes, sep="\n  ")
    draw(labels, fibres, fields, voxel, path)
    return found


def draw(labels, fibres, fields, voxel, path):
    """Fibres in the section through the electrode, and the field with three ideas of them."""
    figure, axes = pyplot().subplots(1, 4, figsize=(11, 4.6), sharey=True, layout="constrained")
    row, box = int(ELECTRODE[1] / voxel), 1e3 * np.array([0, SIZE[2], 0, SIZE[0]])
    inside = {"origin": "lower", "extent": box}
    axes[0].imshow(labels[:, row], cmap="Pastel2", vmin=0, vmax=7, **inside)
    d, w = np.argwhere(labels[:, row] > 2)[::7].T
    t, (x, y) = fibres[d, row, w], 1e3 * voxel * (np.array([w, d]) + 0.5)
    axes[0].quiver(x, y, t[:, 2], t[:, 0], pivot="mid", headaxislength=0, headlength=0)
    axes[0].set(title="fibres", xlabel="W (mm)", ylabel="D (mm)")
    truth = fields.pop("truth").phi[:, row]
    levels = np.geomspace(0.01, 1, 9) * truth.max()
    for axis, (name, field) in zip(axes[1:], fields.items(), strict=True):
        axis.contour(truth, levels, colors="0.6", linewidths=1.6, **inside)
        axis.contour(field.phi[:, row], levels, cmap="viridis", linewidths=1.2, **inside)
        axis.contour(labels[:, row] > 2, [0.5], colors="k", linewidths=0.4, **inside)
        axis.set(title=f"{name} (grey: truth)", xlabel="W (mm)", xlim=box[:2], ylim=box[2:])
    save(figure, path)


if __name__ == "__main__":
    main()
