"""Bioimpedance with four electrodes round a limb: a current through two, a voltage between others.

    Z = V / I,        dZ / dsigma(r) = -E_I(r) . E_V(r) / I^2                         [ohm m / m^3]

E_V is the field of the same current through the electrodes that measure (Geselowitz, IEEE TBME 18
(1971) 38): where the product is negative, better conducting tissue raises the impedance. That the
derivative is right is tried here: the muscle is made 1 % better, and all is solved again.

    python docs/examples/bioimpedance.py [--grid 96 48 48]
"""

import argparse
from pathlib import Path

import numpy as np

import physics_hybrid as ph
from physics_hybrid.report.plots import pyplot, save

CURRENT = 1e-3  # A
HEIGHTS = [0.05, 0.08, 0.11, 0.14]  # m: current in, voltage, voltage, current out
MUSCLE = 3


def electrodes(body):
    """Four patches of skin in a row along the limb."""
    row = [[d, body.extent[1] / 2, 0.0] for d in HEIGHTS]
    return [ph.Patch(place, 0.008) for place in body.nearest(row)]


def impedance(body, tolerance=1e-8):
    """Z in ohm, and the fields of the current and of the reading."""
    a, m, n, b = electrodes(body)
    current = ph.solve(body, a, CURRENT, returns=b, tolerance=tolerance)
    reading = ph.solve(body, m, CURRENT, returns=n, tolerance=tolerance)
    return (current.at(m) - current.at(n)) / CURRENT, current, reading


def main(grid=(96, 48, 48), path=Path("bioimpedance.png")):
    limb = ph.Limb.random(0, grid)
    Z, current, reading = impedance(limb)
    sensitivity = -(current.E * reading.E) / CURRENT**2  # a column for each component of sigma
    muscle = limb.labels == MUSCLE
    sigma = np.moveaxis(limb.sigma[0].numpy(), 0, -1)
    change = np.where(muscle[..., None], 0.01 * sigma, 0.0)
    predicted = (sensitivity * change).sum() * np.prod(limb.spacing)
    better = ph.Body(sigma + change, limb.spacing, labels=limb.labels)
    found = impedance(better)[0] - Z
    print(f"Z = {Z:.2f} ohm; muscle 1 % better: {predicted:.4f} ohm foreseen, {found:.4f} found")
    draw(limb, sensitivity.sum(axis=-1), path)
    return {"Z": float(Z), "predicted": float(predicted), "found": float(found)}


def draw(limb, sensitivity, path):
    """A section along the limb through the electrodes."""
    from matplotlib.colors import SymLogNorm

    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
    row = limb.shape[1] // 2
    shown = np.ma.masked_where(~limb.tissue, sensitivity)[:, row].T
    top = np.percentile(np.abs(shown.compressed()), 99)
    extent = 1e3 * np.array([0, limb.extent[0], 0, limb.extent[2]])
    norm = SymLogNorm(1e-3 * top, linscale=0.6, vmin=-top, vmax=top)
    picture = axis.imshow(shown, origin="lower", extent=extent, cmap="RdBu_r", norm=norm)
    labels = limb.labels[:, row].T.repeat(8, 0).repeat(8, 1)
    across, along = (
        1e3 * limb.extent[a] * (np.arange(n) + 0.5) / n
        for a, n in zip((2, 0), labels.shape, strict=True)
    )
    for tissue in (0.5, 1.5, 2.5, 3.5):
        axis.contour(along, across, labels, [tissue], colors="k", linewidths=0.5)
    for name, patch in zip("AMNB", electrodes(limb), strict=True):
        height, _, skin = 1e3 * patch.centre
        axis.annotate(
            name, (height, skin), (height, skin - 9), ha="center", arrowprops={"arrowstyle": "-"}
        )
    axis.set(xlabel="D (mm)", ylabel="W (mm)", title="current A to B, voltage M to N")
    axis.set_ylim(-6, extent[3])
    ticks = [-1e7, -1e6, -1e5, 0, 1e5, 1e6, 1e7]
    label = "dZ/dσ per volume (Ω/(S/m)/m³)"
    figure.colorbar(picture, label=label, extend="both", ticks=ticks)
    save(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, nargs=3, default=(96, 48, 48))
    print(main(parser.parse_args().grid))
