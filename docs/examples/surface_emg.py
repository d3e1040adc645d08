"""Surface EMG of a motor unit: an action potential travels along fibres, electrodes see it.

    i_m(z, t) = sigma_i A d^2 V_m / dz^2                                               [A/m]

V_m is Rosenfalck's action potential (Acta Physiol. Scand. Suppl. 321, 1969), two of which leave the
end plate; no current leaves a fibre's ends. Signals are sums over the lead field, one solve an
electrode, and are held to the series of the layered cylinder.

    python docs/examples/surface_emg.py [--voxel 0.0015] [--animation emg.gif]
"""

import argparse

import numpy as np

import physics_hybrid as ph
from physics_hybrid.problems.potential.exact.cylinder import layered_cylinder
from physics_hybrid.report.plots import pyplot, save

LENGTH, RADII = 0.12, [0.022, 0.025]  # m: muscle, fat
SIGMA = np.array([[0.5, 0.1], [0.05, 0.05]])  # S/m: along the fibres, across them
SIGMA_I, AREA, SPEED = 1.0, np.pi * 25e-6**2, 4.0  # S/m, m^2 of a fibre, m/s
END_PLATE, HALF = 0.05, (0.035, 0.045)  # m: where it starts, how far the fibres reach
FIBRES = [(0.0165, a) for a in (-0.12, 0.0, 0.12)] + [(0.0145, a) for a in (-0.06, 0.06)]
MODES = (160, 48)  # of the series, along the limb and round it
HEIGHTS, ANGLES = np.arange(0.02, 0.101, 0.01), np.radians([-30, 0, 30])


def limb(voxel):
    """A cylinder of muscle and fat along D."""
    n = 2 * int(np.ceil(RADII[-1] / voxel)) + 2
    centre = (np.arange(n) + 0.5 - n / 2) * voxel
    r = np.hypot(*np.meshgrid(centre, centre, indexing="ij"))
    layer = np.searchsorted(RADII, r)
    table = np.vstack([SIGMA[:, [0, 1, 1]], np.zeros(3)])
    return ph.Body(np.tile(table[layer], (round(LENGTH / voxel), 1, 1, 1)), (voxel,) * 3)


def on_grid(body, d, r, theta):
    """Cylinder coordinates as metres of the grid, (n, 3)."""
    d, r, theta = np.broadcast_arrays(d, r, theta)
    middle = body.extent[1:] / 2
    return np.stack([d, middle[0] + r * np.sin(theta), middle[1] + r * np.cos(theta)], axis=-1)


def currents(z, times):
    """A in every piece of a fibre at every time, (times, z): they add up to 0."""
    away = np.abs(z - END_PLATE)[None] - SPEED * times[:, None]
    behind = -1e3 * np.minimum(away, 0.0)  # mm behind the front
    volts = 1e-3 * 96 * behind**3 * np.exp(-behind)
    flow = np.pad(np.diff(volts, axis=1) / (z[1] - z[0]), ((0, 0), (1, 1)))
    return SIGMA_I * AREA * np.diff(flow, axis=1)


def signals(gains, times, z):
    """Sum over the fibres, V (times, electrodes), of gains (fibres, z, electrodes) V/A."""
    return np.einsum("tz,fze->te", currents(z, times), gains)


def exact_gains(z, electrodes):
    """V/A by the series: the electrode is the source, by reciprocity. (fibres, z, electrodes)"""
    r, theta = np.array(FIBRES).T
    limb = {"length": LENGTH, "radii": RADII, "sigma": SIGMA, "modes": MODES}
    gains = [layered_cylinder(z, r, theta, source=tuple(e), **limb) for e in electrodes]
    return np.stack(gains, axis=-1).transpose(1, 0, 2)


def main(voxel=0.0015, path="surface_emg.png", animation=None):
    body = limb(voxel)
    depth = RADII[-1] - voxel  # a voxel below the staircase of the skin
    electrodes = np.array([(d, depth, a) for a in ANGLES for d in HEIGHTS])
    lead = ph.lead_field(body, on_grid(body, *electrodes.T), tolerance=1e-5)
    z = np.arange(END_PLATE - HALF[0], END_PLATE + HALF[1], 0.5e-3)
    times = np.arange(0, 0.016, 0.1e-3)
    emg = signals(np.stack([lead(on_grid(body, z, *fibre)) for fibre in FIBRES]), times, z)
    truth = signals(exact_gains(z, electrodes), times, z)
    error = float(np.linalg.norm(emg - truth) / np.linalg.norm(truth))
    print(f"signals against the series of the layered cylinder: {error:.2%} apart")
    maps = 1e6 * emg.reshape(len(times), len(ANGLES), len(HEIGHTS)).transpose(0, 2, 1)
    draw(1e3 * times, maps[:, :, 1], path)
    if animation:
        animate(maps, animation)
    return {"error": error}


def draw(times, single, path):
    """Signals of the middle column of electrodes, uV, each at the height of its electrode."""
    figure, axes = pyplot().subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
    shown = {"against the grounded ends": single, "difference of neighbours": np.diff(single)}
    for axis, (name, values) in zip(axes, shown.items(), strict=True):
        step = np.ptp(values)
        for height, signal in zip(1e3 * HEIGHTS, values.T, strict=False):
            axis.plot(times, height + 9 * signal / step, color="C0", lw=1.1)
        axis.plot([times[-1]] * 2, [8, 12.5], "k", lw=2)
        axis.text(times[-1] - 0.3, 9.5, f"{step / 2:.2g} µV", ha="right")
        axis.axhline(1e3 * END_PLATE, color="C3", lw=0.8, ls="--")
        axis.text(times[-1], 1e3 * END_PLATE + 0.8, "end plate", color="C3", ha="right")
        axis.set(xlabel="time (ms)", title=name)
    axes[0].set_ylabel("height of the electrode (mm)")
    save(figure, path)


def animate(maps, path):
    """The grid of electrodes, frame by frame."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure, axis = pyplot().subplots(figsize=(3, 5))
    top = np.abs(maps).max()
    picture = axis.imshow(maps[0], origin="lower", cmap="RdBu_r", vmin=-top, vmax=top)
    figure.colorbar(picture, label="µV")
    frames = FuncAnimation(figure, lambda k: [picture.set_data(maps[k])], range(0, len(maps), 8))
    frames.save(path, PillowWriter(8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxel", type=float, default=0.0015, help="m")
    parser.add_argument("--animation", help="a .gif")
    main(**vars(parser.parse_args()))
