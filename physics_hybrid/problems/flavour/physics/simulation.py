"""Truth: the mean-field equations of fast flavour conversion, in one dimension of space and all
directions, until they have mixed.

    i (d_t + v_z d_z) psi(v) = H(v) psi(v),    H(v) = J^0 - v . J
    J^mu = int dv G(v) (1, v)^mu psi psi^dagger,   G = (g_e - g_ebar) - (g_x - g_xbar)

Each direction and cell has one spinor psi of three flavours, from which all density matrices
follow: rho = g_x + (g_e - g_x) psi psi^dagger, and alike for antineutrinos. Time and length are in
units in which sum w |G| = 1 (and c = 1). z is along the electron minus heavy lepton number flux.

A step is half a shift along z, one of Runge and Kutta's fourth order for H in every cell, half a
shift (Strang). The shift is exact, in Fourier space, and keeps means over the box. Half the trace
of H is a phase that no density sees; without it Runge and Kutta lose 64 times less norm, and what
they lose is put back in every cell, so that only lepton number can drift. A spinor is held as six
real numbers, real parts first: then -i H is a real matrix, and a compiler fuses the whole step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Complex, Float, Float64
from torch import Tensor

from physics_hybrid.problems.flavour.physics.box3d import (
    distributions,
    electron_minus_heavy,
    share_out,
    turned_back,
)
from physics_hybrid.problems.flavour.physics.sphere import Quadrature, product

#: States in the last third that the mean is taken over.
SEEN = 60


@dataclass(frozen=True)
class Box:
    """How a state is simulated.

    length, cells : of the box along z, periodic; in 1 / sum w |G|, and a number.
    polar, azimuth : directions, Gauss-Legendre in cos(theta) times even steps.
    step : of time, at most.
    noise : size of the other flavours at the start.
    shortest, rates : time simulated is max(shortest, rates / sqrt(I+ I-)), and `longest` at most.
    precision : float32 or float64.
    """

    length: float = 64.0
    cells: int = 64
    polar: int = 12
    azimuth: int = 8
    step: float = 0.2
    noise: float = 1e-3
    shortest: float = 150.0
    rates: float = 100.0
    longest: float = 1500.0
    precision: str = "float64"

    @property
    def rule(self) -> Quadrature:
        return product(self.polar, self.azimuth)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32

    def duration(
        self, plus: Float[Tensor, " B"], minus: Float[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Time to simulate, from I+ and I- with I+ + I- = 1."""
        rate = (plus * minus).sqrt()
        return (self.rates / rate.clamp_min(1e-9)).clamp(self.shortest, self.longest) * (
            rate > 0
        ) + self.shortest * (rate == 0)


@dataclass(frozen=True)
class Spinors:
    """psi of simulations that run together.

    q : Re psi_e, Re psi_mu, Re psi_tau, then the imaginary parts.
    """

    q: Float[Tensor, "6 B Z A"]

    @classmethod
    def noise(
        cls, seeds: Sequence[Sequence[int]], cells: int, directions: int, size: float
    ) -> "Spinors":
        """Electron flavour, and uniform noise in the others; a simulation follows from its seed."""
        parts = []
        for seed in seeds:
            random = np.random.default_rng(list(seed))
            x, y = size * random.uniform(-1, 1, (2, 2, cells, directions))
            electron = np.sqrt(1 - (x**2 + y**2).sum(0))
            parts.append(np.stack([electron, *x, np.zeros_like(electron), *y]))
        return cls(torch.from_numpy(np.stack(parts, axis=1)))

    def probabilities(self) -> Float64[Tensor, "3 B A"]:
        """|psi_a|^2, mean over the cells."""
        return probabilities(self.q)


def probabilities(q: Float[Tensor, "6 B Z A"]) -> Float64[Tensor, "3 B A"]:
    q = q.double()
    return (q[:3] ** 2 + q[3:] ** 2).mean(dim=2)


# --- the right-hand side


def density_matrices(q: Float[Tensor, "6 B Z A"]) -> Float[Tensor, "9 B Z A"]:
    """psi psi^dagger as nine real numbers: ee, mumu, tautau, Re emu, Re etau, Re mutau, Im ..."""
    a, b, c, x, y, z = q
    real = [a * a + x * x, b * b + y * y, c * c + z * z]
    real += [a * b + x * y, a * c + x * z, b * c + y * z]
    imaginary = [x * b - a * y, x * c - a * z, y * c - b * z]
    return torch.stack(real + imaginary)


def rotate(q: Float[Tensor, "6 B Z A"], H: Float[Tensor, "9 B Z A"]) -> Float[Tensor, "6 B Z A"]:
    """-i H psi; H as nine real numbers, in the order of `density_matrices`."""
    ee, mm, tt, em, et, mt, i_em, i_et, i_mt = H
    a, b, c, x, y, z = q
    return torch.stack(
        [
            ee * x + em * y + et * z + i_em * b + i_et * c,
            em * x + mm * y + mt * z - i_em * a + i_mt * c,
            et * x + mt * y + tt * z - i_et * a - i_mt * b,
            -(ee * a + em * b + et * c) + i_em * y + i_et * z,
            -(em * a + mm * b + mt * c) - i_em * x + i_mt * z,
            -(et * a + mt * b + tt * c) - i_et * x - i_mt * y,
        ]
    )


def rates(
    q: Float[Tensor, "6 B Z A"], sources: Float[Tensor, "B A 4"], velocities: Float[Tensor, "4 A"]
) -> Float[Tensor, "6 B Z A"]:
    """d psi / dt at rest: -i (J^0 - v . J) psi.

    sources : w G (1, v). velocities : (1, -v).
    """
    J = density_matrices(q) @ sources
    half_trace = 0.5 * (J[0] + J[1] + J[2])
    J = torch.stack([J[0] - half_trace, J[1] - half_trace, J[2] - half_trace, *J[3:]])
    H = J[..., 0:1] * velocities[0]
    for k in (1, 2, 3):
        H = H + J[..., k : k + 1] * velocities[k]
    return rotate(q, H)


def runge_kutta(
    q: Float[Tensor, "6 B Z A"],
    sources: Float[Tensor, "B A 4"],
    velocities: Float[Tensor, "4 A"],
    dt: Float[Tensor, "B 1 1"],
) -> Float[Tensor, "6 B Z A"]:
    """A step of the classical fourth order, brought back to its norm."""
    k1 = rates(q, sources, velocities)
    k2 = rates(q + dt / 2 * k1, sources, velocities)
    k3 = rates(q + dt / 2 * k2, sources, velocities)
    k4 = rates(q + dt * k3, sources, velocities)
    after = q + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return after * ((q * q).sum(0) / (after * after).sum(0)).sqrt()


@cache
def compiled() -> Callable[..., Tensor]:
    """The same, fused by PyTorch's compiler: five times as fast, and needs a C++ compiler."""
    step: Callable[..., Tensor] = torch.compile(runge_kutta, dynamic=False)
    return step


def shift(q: Float[Tensor, "6 B Z A"], phase: Complex[Tensor, "B Z A"]) -> Float[Tensor, "6 B Z A"]:
    """psi(z - v_z t), exactly; phase exp(-i k v_z t)."""
    psi = torch.fft.ifft(torch.fft.fft(torch.complex(q[:3], q[3:]), dim=2) * phase, dim=2)
    return torch.cat([psi.real, psi.imag])


# --- a simulation


@dataclass(frozen=True)
class Outcome:
    """What came of simulations.

    increment : in the unit of the states given.
    drift : over the simulation: of the mean norm; of the lepton number of the flavour that
        drifts most, as a share of sum w |G|; of the total number, as a share of N_tot.
    times, electron : t, and the mean survival of electron flavour then.
    """

    increment: Float[Tensor, "B 6 4"]
    drift: Float[Tensor, "B 3"]
    times: Float[Tensor, " K"]
    electron: Float[Tensor, "K B"]


def simulate(
    F: Float[Tensor, "B 6 4"], box: Box, seeds: Sequence[Sequence[int]], fused: bool = False
) -> Outcome:
    """Simulate states divided by N_tot, all of them together.

    The result is the mean over the last third of the time and over the box. Mu and tau start alike
    and their difference is chance: both get half of what left. What lepton number has drifted is
    taken out of the mean, along G, so that the result keeps it.

    seeds : what the noise of each follows from. fused : see `compiled`.
    """
    F, rule = F.double(), box.rule
    g, axes = distributions(F, rule)
    G = electron_minus_heavy(g)
    scale = (G.abs() @ rule.weights)[:, None]
    G = torch.where(scale > 0, G / scale.clamp_min(1e-300), 0.0)
    plus, minus = G.clamp_min(0) @ rule.weights, (-G).clamp_min(0) @ rule.weights
    start = Spinors.noise(seeds, box.cells, len(rule), box.noise)
    run = Run.of(G, rule, box, box.duration(plus, minus))
    final, drift, times, electron = run.go(start, fused)
    leave = keep_lepton_number(1 - final, G, rule.weights)[:, None] * (g[:, 0::2] - g[:, 1::2])
    increment = share_out(turned_back(leave @ rule.moments(), axes))
    number = increment[..., 3].sum(1).abs()
    return Outcome(increment, torch.cat([drift, number[:, None]], dim=1), times, electron)


def keep_lepton_number(
    leave: Float64[Tensor, "B A"], G: Float64[Tensor, "B A"], weights: Float64[Tensor, " A"]
) -> Float64[Tensor, "B A"]:
    """The nearest 1 - P for which sum w (1 - P) G = 0."""
    drifted, size = (leave * G) @ weights, (G**2 @ weights).clamp_min(1e-300)
    return leave - (drifted / size)[:, None] * G


@dataclass(frozen=True)
class Run:
    """The constants of simulations that run together.

    sources : w G (1, v). steps : of all; dt : of each.
    """

    box: Box
    rule: Quadrature
    sources: Float64[Tensor, "B A 4"]
    dt: Float64[Tensor, " B"]
    steps: int

    @classmethod
    def of(
        cls,
        G: Float64[Tensor, "B A"],
        rule: Quadrature,
        box: Box,
        duration: Float64[Tensor, " B"],
    ) -> "Run":
        one = torch.ones(len(rule), 1, dtype=torch.float64)
        moments = torch.cat([one, rule.directions], dim=1) * rule.weights[:, None]
        steps = math.ceil(float(duration.max()) / box.step)
        return cls(box, rule, G[..., None] * moments, duration / steps, steps)

    def lepton_number(self, chances: Float64[Tensor, "3 B A"]) -> Float64[Tensor, "3 B"]:
        """sum w G |psi_a|^2 of each flavour."""
        return (self.sources[..., 0] * chances).sum(-1)

    def go(
        self, start: Spinors, fused: bool
    ) -> tuple[
        Float64[Tensor, "B A"],
        Float64[Tensor, "B 2"],
        Float[Tensor, " K"],
        Float64[Tensor, "K B"],
    ]:
        """Survival of the electron flavour, drifts, times and mean survivals."""
        q = start.q.to(self.box.dtype)
        before = probabilities(q)
        advance = self._advance(q, fused)
        half, full = self._phase(q, 0.5), self._phase(q, 1.0)
        often = max(1, self.steps // (3 * SEEN))
        first = self.steps - self.steps // 3
        total, count, times, electron = torch.zeros_like(before[0]), 0, [], []
        q = shift(q, half)
        for step in range(1, self.steps + 1):
            q = shift(advance(q), full)
            if step % often == 0 or step == self.steps:
                # a shift leaves means over the box as they are
                chance = probabilities(q)[0]
                times.append(step / self.steps)
                electron.append(chance.mean(-1))
                if step > first:
                    total, count = total + chance, count + 1
        after = probabilities(q)
        norm = (after.sum(0) - before.sum(0)).abs().mean(-1)
        lepton = (self.lepton_number(after) - self.lepton_number(before)).abs().amax(0)
        drift = torch.stack([norm, lepton], dim=1)
        return total / count, drift, torch.tensor(times), torch.stack(electron)

    def _advance(self, q: Float[Tensor, "6 B Z A"], fused: bool) -> Callable[[Tensor], Tensor]:
        step = compiled() if fused else runge_kutta
        one = torch.ones(1, len(self.rule), dtype=torch.float64)
        velocities = torch.cat([one, -self.rule.directions.T]).to(q)
        sources, dt = self.sources.to(q), self.dt[:, None, None].to(q)
        return partial(step, sources=sources, velocities=velocities, dt=dt)

    def _phase(self, q: Float[Tensor, "6 B Z A"], share: float) -> Complex[Tensor, "B Z A"]:
        """exp(-i k v_z t) for a share of a step."""
        spacing = self.box.length / self.box.cells
        k = 2 * math.pi * torch.fft.fftfreq(self.box.cells, spacing, dtype=torch.float64)
        angle = k[:, None] * self.rule.directions[:, 2] * share
        phase = torch.exp(-1j * angle * self.dt[:, None, None])
        return phase.to(torch.complex64 if q.dtype == torch.float32 else torch.complex128)
