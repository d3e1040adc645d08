"""`solve`: from a body and its electrodes to a field."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from physics_hybrid.checks import is_number, one_of
from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.engines import chosen
from physics_hybrid.problems.potential.door.equations import Equations
from physics_hybrid.problems.potential.door.field import Field
from physics_hybrid.problems.potential.door.sources import Sources, any_tensor, sources_of
from physics_hybrid.problems.potential.door.ways_out import connected, ends_of, reached
from physics_hybrid.problems.potential.experience import Experience
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.predictor import Predictor

#: Relative residuals below are rounding of float64.
ROUNDING = 1e-15
#: Share of bodies whose error a network's field says.
LIKELY = 0.9


def solve(
    body: Body,
    at: Any,
    current: Any = 1e-3,
    *,
    returns: Any = None,
    start: Any = None,
    tolerance: float = 1e-6,
    engine: str = "auto",
    model: Predictor | str | Path | None = None,
    frame: str = "grid",
    ends: Ends | str = "auto",
    beta: float | None = None,
    singularity: str = "subtraction",
    progress: bool = True,
    certify: bool = False,
    error: float | None = None,
) -> Field:
    """The potential of electrodes in a body.

    -div(sigma grad phi) = f,  no current through the skin                          [A/m^3]

    Parameters
    ----------
    body : Body
    at : (3,) or (K, 3), `Patch`, or a list of patches
        Where the current comes in, in tissue or on its surface. One answer for each.
    current : float or (K,)
        A.
    returns : as `at` (one, or one for each), or None
        Where it is taken out again; then nothing passes any surface (ends: pair).
    start : Field or array (D, H, W) or (K, D, H, W), or None
        A guess of phi in V, which is taken farther; None: a nested iteration.
    tolerance : float
        Relative residual of the discrete equations, |b - A x| / |b|. It says how well these are
        solved, not how fine the voxels are.
    engine : "auto", "solver", "network" or "hybrid"
        A network needs a `model`; hybrid is a network's field that the solver takes to the
        tolerance. auto takes what meets the tolerance soonest, of a network by its mean relative L2
        error on limbs it was not trained on, which is no residual: `Field.engine`, `Field.why`.
    model : what `load_pretrained` gives, or its folder; None: the shipped one.
    frame : "grid" or "world"
        Places in m from the outer corner of voxel (0, 0, 0), (D, H, W), or in mm of the world that
        the affine of the body says.
    ends : "auto", "grounded", "robin" (with `beta`, 1/m), "sink", "pair" or Ends
        How the current leaves. auto: pair where there is `returns`; grounded where tissue touches
        the first or last plane along D; else sink (evenly, through all tissue).
    singularity : "subtraction" or "nodal"
        Closed form plus a smooth rest, or the whole current in one voxel.
    progress : whether to show a bar, with the time that is left, from 2 s on.
    certify : whether to bound the error at once: `Field.certify`, `Field.bound`.
    error : float or None
        Refine until the relative energy error is at most this, for certain: voxels are split, and
        the field is one on smaller voxels.

    Returns
    -------
    Field
        NumPy, or torch where sigma, places or currents are tensors: then differentiable in all
        three (not in oblique tensors).

    Raises
    ------
    ValueError
        Places outside or in air; currents, tolerance, ends that are none; tissue that is cut off
        from the way out; more memory than there is.
    SolverError (a RuntimeError)
        Tolerance not reached; an error that voxels split in 4 do not reach, or fewer where the
        bound stops falling.
    FileNotFoundError
        A network is asked for, and none is there.

    Source
    ------
    Finite volumes: Patankar, Numerical Heat Transfer and Fluid Flow, 1980, eq. 4.9. Subtraction of
    the closed form: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, eq. 3.6.

    Examples
    --------
    1 mA into a limb; a pair; the derivative of a voltage in the place of the electrode.

    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> field = ph.solve(limb, at=limb.electrode, current=1e-3)
    >>> field.phi.shape, field.engine, field.ends.kind
    ((24, 12, 12), 'solver', 'grounded')
    >>> pair = ph.solve(limb, at=limb.electrode, returns=limb.nearest((0.05, 0.05, 0.0)))
    >>> abs(float(pair.phi[limb.tissue].mean())) < 1e-12
    True
    >>> import torch
    >>> place = torch.tensor(limb.electrode, requires_grad=True)
    >>> ph.solve(limb, at=place).at(limb.nearest((0.05, 0.05, 0.0))).backward()
    >>> place.grad.shape
    torch.Size([3])
    """
    if error is not None:
        asked = {"current": current, "returns": returns, "engine": engine, "model": model}
        asked |= {"frame": frame, "ends": ends, "beta": beta, "progress": progress}
        return _until(error, body, at, tolerance, singularity=singularity, start=start, **asked)
    began = time.monotonic()
    _check(body, tolerance, singularity)
    sources = sources_of(body, at, current, returns, frame)
    way_out = ends_of(body, ends, beta, returns is not None, sources.points is not None)
    engine_of = chosen(engine, model, body, way_out, tolerance)
    connected(body, way_out)
    conductor = body.conductor(way_out)
    derivatives = body.sigma.requires_grad or sources.differentiable
    if conductor.oblique and body.sigma.requires_grad:
        raise ValueError("derivatives in oblique tensors (6 components) are not there yet")
    guess = _guess(start, body, len(sources))
    found, experience = None, None
    unlike: tuple[str, ...] = ()
    if engine_of.model is not None:
        guess = _predicted(engine_of.model, body, sources, derivatives)
    if engine_of.name == "network" and guess is not None:
        volts = guess
        experience, unlike = _experienced(engine_of.model, conductor, sources)
    else:
        problem = Equations(conductor, sources, tolerance, singularity, guess)
        found = problem.solved(progress)
        volts = _where_it_flows(body, sources, way_out, found.volts)
    field = Field(
        body=body,
        sources=sources,
        volts=volts,
        ends=way_out,
        engine=engine_of.name,
        why=_why(engine_of.why, experience, unlike),
        tolerance=tolerance,
        iterations=None if found is None else found.iterations,
        residual=None if found is None else found.residual,
        seconds=time.monotonic() - began,
        frame=frame,
        singularity=singularity,
        as_tensor=body.of_tensor or any_tensor(at, current, returns),
        experience=experience,
        unlike=unlike,
    )
    if certify:
        field.certify()
    return field


def _until(error: float, body: Body, at: Any, tolerance: float, **asked: Any) -> Field:
    """A field whose certificate says `error` or less: see `solve`."""
    from physics_hybrid.problems.potential.door.bounds import ALGEBRAIC, FALLING, FINEST, split

    number = isinstance(error, (int, float)) and not isinstance(error, bool)
    if not number or not 0 < error < 1:
        raise ValueError(f"error must lie in (0, 1); got {error!r}")
    start = asked.pop("start")
    field = solve(body, at, start=start, tolerance=tolerance, **asked)
    factor, before = 1, math.inf
    while True:
        bound = field.certify()
        found = float(bound.relative.max())
        if found <= error:
            return field
        if bool((bound.algebraic > ALGEBRAIC * bound.bound).any()):
            field = refined(field, field.tolerance / 100, progress=asked["progress"])
            continue
        if factor == FINEST or found > FALLING * before:
            why = "" if factor == FINEST else f", those of the split before to {before:.2g}"
            raise SolverError(
                f"error={error:g} was not reached: voxels split in {factor} are certainly right to"
                f" {found:.2g}{why}; field.interval of an electrode is sharper"
            )
        factor, before = factor + 1, found
        finer = solve(split(body, factor), at, tolerance=field.tolerance, **asked)
        field = dataclasses.replace(finer, split=factor)


def given_field(body: Body, volts: Any, at: Any, current: Any = 1e-3, **asked: Any) -> Field:
    """A field that something else has found, V at voxel centres, to be certified, refined, drawn.

    at, current, asked : as in `solve`, for which of a pair or ends the field is meant.

    Raises
    ------
    ValueError
        As `solve`; volts of another shape, or not finite.
    """
    options = {key: asked[key] for key in ("frame", "ends", "beta", "returns") if key in asked}
    frame, returns = options.get("frame", "grid"), options.get("returns")
    sources = sources_of(body, at, current, returns, frame)
    ends = options.get("ends", "auto")
    way_out = ends_of(
        body, ends, options.get("beta"), returns is not None, sources.points is not None
    )
    guess = _guess(volts, body, len(sources))
    if guess is None:
        raise ValueError("volts must be an array, V at voxel centres; got None")
    return Field(
        body=body,
        sources=sources,
        volts=guess,
        ends=way_out,
        engine="given",
        why="a field from elsewhere",
        tolerance=float("nan"),
        iterations=None,
        residual=None,
        seconds=0.0,
        frame=frame,
        singularity="subtraction",
        as_tensor=body.of_tensor or any_tensor(at, current, returns, volts),
    )


def refine(guess: Field, tolerance: float, **options: Any) -> Field:
    """A field taken to another tolerance from where it is: `solve(..., start=guess)`.

    guess : of any engine. options : progress, as in `solve`.

    Raises
    ------
    ValueError, SolverError
        As `solve`.

    Source
    ------
    Conjugate gradients from a guess: Saad, Iterative Methods for Sparse Linear Systems, 2003, 6.7.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> rough = ph.solve(limb, at=limb.electrode, tolerance=1e-5)
    >>> fine, cold = ph.refine(rough, 1e-9), ph.solve(limb, at=limb.electrode, tolerance=1e-9)
    >>> fine.iterations < cold.iterations
    True
    """
    if not isinstance(guess, Field):
        raise ValueError(f"guess must be a Field, what ph.solve gives; got {type(guess).__name__}")
    return refined(guess, tolerance, **options)


def refined(guess: Field, tolerance: float, **options: Any) -> Field:
    """See `refine`."""
    began = time.monotonic()
    progress = options.pop("progress", True)
    if options:
        raise ValueError(f"refine takes tolerance and progress; got {', '.join(options)}")
    _check(guess.body, tolerance, guess.singularity)
    conductor = guess.conductor
    volts = guess.volts.detach().double()
    problem = Equations(conductor, guess.sources, tolerance, guess.singularity, volts)
    found = problem.solved(progress)
    return Field(
        body=guess.body,
        sources=guess.sources,
        volts=_where_it_flows(guess.body, guess.sources, guess.ends, found.volts),
        ends=guess.ends,
        engine="solver" if guess.engine == "solver" else "hybrid",
        why=f"from a field of the {guess.engine}",
        tolerance=tolerance,
        iterations=found.iterations,
        residual=found.residual,
        seconds=time.monotonic() - began,
        frame=guess.frame,
        singularity=guess.singularity,
        as_tensor=guess.as_tensor,
        split=guess.split,
    )


def check_body(body: object, tolerance: object) -> None:
    """Raises ValueError for what is no body, or no tolerance."""
    if not isinstance(body, Body):
        raise ValueError(
            f"body must be a ph.Body (ph.Body(sigma, spacing), ph.read_labels(file)); got"
            f" {type(body).__name__}"
        )
    if not is_number(tolerance) or not ROUNDING <= float(tolerance) < 1:  # type: ignore[arg-type]
        raise ValueError(
            f"tolerance must lie in [{ROUNDING:g}, 1), a relative residual; got {tolerance!r}"
        )


def _check(body: object, tolerance: object, singularity: str) -> None:
    """Raises ValueError for what is no body, no tolerance, no way to treat a source."""
    check_body(body, tolerance)
    one_of(("subtraction", "nodal"), "singularity", singularity, quoted=True)


def _where_it_flows(body: Body, sources: Sources, ends: Ends, volts: Tensor) -> Tensor:
    """phi, and 0 in pieces of tissue that no current reaches: what the closed form leaves there is
    not of the truth.
    """
    flows = reached(body, sources, ends)
    return volts if flows is None else torch.where(flows, volts, 0.0)


def _guess(start: Any, body: Body, count: int) -> Tensor | None:
    """A first guess as (K, D, H, W) V. Raises ValueError for another shape."""
    if start is None:
        return None
    given = start.volts.detach() if isinstance(start, Field) else numbers(start, "start").detach()
    if given.ndim == 3:
        given = given[None]
    if tuple(given.shape[1:]) != body.shape or len(given) not in (1, count):
        raise ValueError(
            f"start must have the shape {body.shape}, or one such field for each of {count}"
            f" sources, V; got {tuple(given.shape)}"
        )
    if not bool(torch.isfinite(given).all()):
        raise ValueError("start must be finite (V)")
    return given.to(body.sigma.device).double().expand(count, -1, -1, -1)


def _experienced(
    model: Predictor | None, conductor: Conductor, sources: Sources
) -> tuple[Experience | None, tuple[str, ...]]:
    """What a network is known to be wrong by on such bodies; a warning where nothing is."""
    experience = None if model is None else model.experience
    if experience is None or sources.points is None:
        return None, ()
    unlike = tuple(experience.unlike(conductor, sources.points))
    if any(unlike):
        k = next(k for k, said in enumerate(unlike) if said)
        which = f" (source {k})" if sources.many else ""
        warnings.warn(
            f"this body{which} is unlike those that the network was trained on: {unlike[k]}; what"
            " it reaches on those says nothing of this one. engine='solver' or 'hybrid' does not"
            " depend on it",
            stacklevel=3,
        )
    return experience, unlike


def _why(why: str, experience: Experience | None, unlike: tuple[str, ...]) -> str:
    """The reason, and what a network is likely to be wrong by."""
    if experience is None or any(unlike):
        return why
    error = experience.likely(LIKELY)
    return (
        f"{why}; {LIKELY:.0%} of bodies like those that it was trained on have a relative L2 error"
        f" of at most {error:.2g} (statistics, no bound)"
    )


def _predicted(model: Predictor, body: Body, sources: Sources, derivatives: bool) -> Tensor:
    """What a network says, V. Raises ValueError for what it cannot take."""
    if derivatives:
        raise ValueError("derivatives come from the solver: engine='solver'")
    if sources.points is None:
        raise ValueError("networks take point electrodes, no patches: engine='solver'")
    sigma = body.sigma[0].movedim(0, -1)
    phi = model.predict(
        sigma=sigma[..., 0] if sigma.shape[-1] == 1 else sigma,
        spacing=body.spacing,
        source_point=sources.points,
        current=sources.current,
        return_point=sources.returns,
    )
    return torch.as_tensor(phi).double()
