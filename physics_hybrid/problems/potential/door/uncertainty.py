r"""`uncertainty`: what conductivities that are not known leave open of a voltage or a field.

    y = y(mu),        mu_t ~ its distribution, independent                              [S/m]

The same samples of mu, by the reduced basis (each with a bound of its error) or plainly, a solve a
sample: `samples`, `interval`, `sobol`, `sensitivity`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from physics_hybrid.checks import is_whole, one_of
from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.asked import Asked, Posed
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.equations import require_memory
from physics_hybrid.problems.potential.door.progress import Progress
from physics_hybrid.problems.potential.door.quantities import (
    FieldAt,
    LeadFieldAt,
    OnBody,
    Quantity,
    Voltage,
)
from physics_hybrid.problems.potential.door.solving import check_body
from physics_hybrid.problems.potential.door.tissues import distributions_of, tissues_of
from physics_hybrid.problems.potential.uncertain.basis import Basis
from physics_hybrid.problems.potential.uncertain.conductivities import Conductivities
from physics_hybrid.problems.potential.uncertain.distributions import Distribution
from physics_hybrid.problems.potential.uncertain.greedy import extend, search
from physics_hybrid.problems.potential.uncertain.load import Loads
from physics_hybrid.problems.potential.uncertain.pairs import Pairs
from physics_hybrid.problems.potential.uncertain.sobol import Indices, indices
from physics_hybrid.problems.potential.uncertain.solutions import Solver

#: Relative residual of the solves that a basis is made of; what is left of it is in the bound.
SOLVED = 1e-8
#: Relative residual of a plain solve.
PLAIN = 1e-8
#: Bytes that a basis takes for each voxel and load, with the vectors that are made on the way.
BASIS_BYTES = 600
#: Points of the design of the Sobol indices, a power of 2.
DESIGN = 1024


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Uncertainty:
    """What the conductivities leave open of a quantity: N samples and what follows from them.

    samples : (N, ...), the shape of the quantity; its unit is `unit`.
    bound : (N, ...), what each is off by at most: of the full discrete solution at the same
        conductivities. None where method is "plain".
    conductivities : (N, T) S/m, of the tissues `names`; their distributions are `distribution`.
    nominal : (T,) S/m, the means. own : (T,) S/m, what the body conducts as it is given.
    method, seed, seconds, processor_seconds : how they were made.
    solves : systems that were solved. worst : the largest bound over what it should be.
    model : the reduced basis, and what was asked of it; None where method is "plain".

    Raises
    ------
    ValueError
        From `interval`: a level outside of (0, 1). From `sobol`, `sensitivity`: plain samples.

    Source
    ------
    `Pairs`, `Basis` (Prager and Synge 1947), `indices` (Saltelli et al. 2010).

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> asked = ph.Voltage(limb.electrode, limb.nearest((0.05, 0.05, 0.0)))
    >>> found = ph.uncertainty(limb, {"fat": ph.LogNormal(cv=0.3)}, asked, samples=50)
    >>> low, high = found.interval(0.95)
    >>> bool(low < found.mean < high), bool((found.bound < 0.02 * found.sd).all())
    (True, True)
    """

    samples: np.ndarray
    bound: np.ndarray | None
    conductivities: np.ndarray
    names: tuple[str, ...]
    distribution: Mapping[str, Distribution]
    nominal: np.ndarray
    own: np.ndarray
    unit: str
    method: str
    seed: int
    seconds: float
    processor_seconds: float
    solves: int
    worst: float | None
    model: tuple[Pairs, Asked] | None = None
    _kept: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        count, *shape = self.samples.shape
        kind = "by a reduced basis" if self.method == "reduced" else "solved plainly"
        return (
            f"Uncertainty({count} samples of {shape or 'one value'}, {self.unit}, {kind} with"
            f" {self.solves} solves in {self.seconds:.1f} s; {', '.join(self.names)})"
        )

    @property
    def mean(self) -> np.ndarray:
        """Of the samples."""
        mean: np.ndarray = self.samples.mean(axis=0)
        return mean

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of the samples."""
        sd: np.ndarray = self.samples.std(axis=0, ddof=1)
        return sd

    def interval(self, level: float = 0.95, certain: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Quantiles (1 - level) / 2 and (1 + level) / 2 of the samples.

        certain : as far apart as the bounds allow: the quantiles of the same samples solved fully
            lie between.

        Raises
        ------
        ValueError
            A level outside of (0, 1); certain, of plain samples, which have no bound.
        """
        number = isinstance(level, (int, float)) and not isinstance(level, bool)
        if not number or not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1); got {level!r}")
        widened = self._bounded("a certain interval") if certain else np.zeros(())
        low = np.quantile(self.samples - widened, (1 - level) / 2, axis=0)
        high = np.quantile(self.samples + widened, (1 + level) / 2, axis=0)
        return low, high

    @property
    def sensitivity(self) -> np.ndarray:
        """d y / d mu_t at the nominal conductivities, (T, ...), unit m/S: by the adjoint solution.

        Raises
        ------
        ValueError
            Plain samples.
        """
        if "sensitivity" not in self._kept:
            pairs, asked = self._reduced("sensitivity")
            slopes = pairs.slopes(torch.from_numpy(self.nominal)).detach().numpy()
            self._kept["sensitivity"] = asked.arranged(slopes)
        found: np.ndarray = self._kept["sensitivity"]
        return found

    @property
    def sobol(self) -> np.ndarray:
        """First-order indices: the share of the variance that each tissue makes alone. (T, ...)

        Raises
        ------
        ValueError
            Plain samples.
        """
        return self.indices().first

    def indices(self, points: int = DESIGN) -> Indices:
        """First-order and total Sobol indices, of the reduced basis. Kept.

        points : of the design, a power of 2; its evaluations are T + 2 times as many.

        Raises
        ------
        ValueError
            Plain samples; another number of points.
        """
        whole = isinstance(points, int) and not isinstance(points, bool)
        if not whole or points < 2 or points & (points - 1):
            raise ValueError(f"points must be a power of 2, 2 or more; got {points!r}")
        name = f"indices {points}"
        if name not in self._kept:
            pairs, asked = self._reduced("sobol")
            laws = [self.distribution[t] for t in self.names]

            def value(u: np.ndarray) -> np.ndarray:
                """y of points of the unit cube."""
                mu = torch.from_numpy(_drawn(laws, u))
                return asked.arranged(pairs.without_bounds(mu).numpy())

            self._kept[name] = indices(value, len(laws), points, self.seed)
        found: Indices = self._kept[name]
        return found

    def at(self, conductivities: Any) -> tuple[np.ndarray, np.ndarray]:
        """y at conductivities (S, T) S/m of one's own, and its bound: (S, ...) each.

        Raises
        ------
        ValueError
            Plain samples; another shape; conductivities that are not positive and finite.
        """
        pairs, asked = self._reduced("at")
        mu = numbers(conductivities, "conductivities").detach().cpu()
        fits = mu.ndim == 2 and mu.shape[1] == len(self.names) and len(mu) > 0
        if not fits or not bool(((mu > 0) & mu.isfinite()).all()):
            raise ValueError(
                f"conductivities must be (S, {len(self.names)}) for {', '.join(self.names)}, S/m >"
                f" 0, finite; got shape {tuple(mu.shape)}"
            )
        found = pairs.at(mu)
        return asked.arranged(found.values.numpy()), asked.arranged(found.bound.numpy())

    def plot(self, path: str | Path | None = None) -> Any:
        """Intervals of all values, and where their spread comes from: written to `path`, or (None)
        a matplotlib figure.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        from physics_hybrid.problems.potential.door.uncertainty_files import drawn

        return drawn(self, path)

    def save(self, path: str | Path) -> Path:
        """To .npz or .h5: samples, bounds, conductivities, intervals, sensitivities, indices.

        Raises
        ------
        ValueError
            Another suffix.
        OSError
            The file cannot be written.
        """
        from physics_hybrid.problems.potential.door.uncertainty_files import save

        return save(self, Path(path).expanduser())

    def _bounded(self, what: str) -> np.ndarray:
        if self.bound is None:
            raise ValueError(f"{what} needs bounds: method='reduced'")
        return self.bound

    def _reduced(self, what: str) -> tuple[Pairs, Asked]:
        if self.model is None:
            raise ValueError(f"{what} needs the reduced basis: method='reduced'")
        return self.model


def uncertainty(
    body: Body,
    distribution: Any,
    quantity: Quantity,
    *,
    samples: int = 500,
    method: str = "reduced",
    tolerance: float = 0.01,
    seed: int = 0,
    most: int = 80,
    progress: bool = True,
) -> Uncertainty:
    """What conductivities that are not known leave open of a voltage, a field or a lead field.

    Parameters
    ----------
    body : Body
        With tissues: `read_labels`, `Limb`, or labels and names of its own.
    distribution : {name: LogNormal, Normal, Uniform or Triangular}, or a number
        Of the conductivity of a tissue, S/m: of a tensor that along D, with the ratios kept;
        `NAME.along` and `NAME.across` vary apart. Tissues that are not named are as they are. A
        number is the cv of a LogNormal for every tissue.
    quantity : Voltage, FieldAt or LeadFieldAt
    samples : int
        Drawn independently; the same for both methods.
    method : "reduced" or "plain"
        A reduced basis, with a bound for every sample; or a full solve for each.
    tolerance : float
        No bound exceeds this share of the standard deviation of its value.
    seed : int
        Of the samples.
    most : int
        Solutions of a basis at most: where they do not suffice, a warning says so, and `bound` is
        as it is.
    progress : whether to show a bar, from 2 s on.

    Returns
    -------
    Uncertainty

    Raises
    ------
    ValueError
        A tissue that there is not; conductivities that are not positive; places outside or in air;
        numbers that are none.
    SolverError (a RuntimeError)
        A solve that does not reach its tolerance.

    Source
    ------
    Prager and Synge, Quart. Appl. Math. 5 (1947) 241; reduced bases: Hesthaven, Rozza and Stamm,
    2016; indices: Saltelli et al., Comput. Phys. Commun. 181 (2010) 259.

    Examples
    --------
    What 20 % in the conductivities of fat and muscle leave open of a voltage on the skin.

    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> skin = limb.nearest([[0.05, 0.05, 0.0], [0.08, 0.05, 0.0]])
    >>> spread = {"fat": ph.LogNormal(0.05, cv=0.2), "muscle": ph.Uniform(0.9, 1.5)}
    >>> found = ph.uncertainty(limb, spread, ph.Voltage(limb.electrode, skin), samples=100)
    >>> found.samples.shape, found.bound.shape, found.sobol.shape
    ((100, 2), (100, 2), (2, 2))
    >>> plain = ph.uncertainty(
    ...     limb, spread, ph.Voltage(limb.electrode, skin), samples=3, method="plain"
    ... )
    >>> plain.samples.shape
    (3, 2)
    """
    check_body(body, SOLVED)
    one_of(("reduced", "plain"), "method", method, quoted=True)
    if not isinstance(quantity, (Voltage, FieldAt, LeadFieldAt)):
        raise ValueError(
            "quantity must be a ph.Voltage, ph.FieldAt or ph.LeadFieldAt; got"
            f" {type(quantity).__name__}"
        )
    _whole("samples", samples, 2)
    _whole("seed", seed, 0)
    _whole("most", most, 1)
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1); got {tolerance!r}")
    index, tissues = tissues_of(body)
    laws = distributions_of(distribution, tissues)
    conductivities = Conductivities.of(index, tissues, tuple(laws))
    on_body = quantity.on(body)
    _require_memory_of(samples, len(laws), on_body)
    u = np.random.default_rng(seed).random((samples, len(laws)))
    mu = _drawn(list(laws.values()), u)
    nominal = np.array([law.centre for law in laws.values()])
    clock, processor = time.monotonic(), time.process_time()
    if method == "plain":
        found = _plain(body, conductivities, on_body, mu, progress)
    else:
        found = _by_basis(body, conductivities, on_body, mu, nominal, tolerance, most, progress)
    return Uncertainty(
        conductivities=mu,
        names=conductivities.names,
        distribution=laws,
        nominal=nominal,
        own=conductivities.own,
        unit=quantity.unit,
        method=method,
        seed=seed,
        seconds=time.monotonic() - clock,
        processor_seconds=time.process_time() - processor,
        **found,
    )


def _whole(name: str, value: object, least: int) -> None:
    """Raises ValueError for what is no whole number of at least so much."""
    if not is_whole(value) or value < least:  # type: ignore[operator]
        raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}")


def _require_memory_of(samples: int, tissues: int, on_body: OnBody) -> None:
    """Raises ValueError where samples, and the bounds of them, are more than there is room for."""
    needed = 8.0 * samples * (tissues + 4 * int(np.prod(on_body.shape)))
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{samples} samples take about {needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are"
            " free: take fewer samples, or ask for fewer values"
        )


def _drawn(laws: list[Distribution], u: np.ndarray) -> np.ndarray:
    """Conductivities of points of the unit cube, (S, T) S/m."""
    return np.stack([law.at(u[:, t]) for t, law in enumerate(laws)], axis=1)


def _plain(
    body: Body, of: Conductivities, on_body: OnBody, mu: np.ndarray, progress: bool
) -> dict[str, Any]:
    """A solve a sample."""
    samples = []
    with warnings.catch_warnings(), Progress(len(mu), PLAIN, "solving", progress) as bar:
        # of an electrode beside a better conductor: the quantity has said so, once
        warnings.simplefilter("ignore", UserWarning)
        for row in mu:
            there = body.conducting(of.sigma(row))
            samples.append(on_body.plain(there, PLAIN))
            bar.finished(1)
    solves = len(mu) * on_body.count
    return {"samples": np.stack(samples), "bound": None, "solves": solves, "worst": None}


def _by_basis(
    body: Body,
    of: Conductivities,
    on_body: OnBody,
    mu: np.ndarray,
    nominal: np.ndarray,
    tolerance: float,
    most: int,
    progress: bool,
) -> dict[str, Any]:
    """Both bases, extended until every bound is small enough."""
    posed = Posed.of(body, on_body.ends, of, nominal)
    asked = on_body.asked(posed)
    count = len(asked.loads) + len(asked.functionals)
    require_memory(body.tissue.size, body.tissue.size * count * BASIS_BYTES, "vary conductivities")
    solver = Solver(posed.network, on_body.ends, posed.conductor.spacing, SOLVED)
    sides = []
    for loads in (asked.loads, asked.functionals):
        sides.append(Basis(posed.network, Loads.of(posed.network, loads), solver))
        extend(sides[-1], torch.from_numpy(nominal))
    pairs = Pairs(sides[0], sides[1], asked.offsets)
    with Progress(1, tolerance, "solving", progress) as bar:
        found = search(
            pairs,
            torch.from_numpy(mu),
            tolerance,
            most,
            lambda worst: bar.within(torch.tensor([worst * tolerance]), 1),
        )
    if found.worst > 1:
        warnings.warn(
            f"the bound of a sample is {found.worst:.2g} times the tolerance after"
            f" {len(sides[0])} and {len(sides[1])} solutions: most={most} allows no more, or the"
            " rounding of the solver does not. `bound` says what each is off by at most",
            stacklevel=3,
        )
    return {
        "samples": asked.arranged(found.values.values.numpy()),
        "bound": asked.arranged(found.values.bound.numpy()),
        "solves": found.solves,
        "worst": found.worst,
        "model": (pairs, asked),
    }
