"""A trained operator as a user takes it: arrays in, volts out.

It is what `physics_hybrid.load_pretrained()` gives.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.checks import at_least, positive
from physics_hybrid.problems.potential.bodies.voxel_body import deposit, held
from physics_hybrid.problems.potential.data.plausible import (
    COUNTS_AS_TISSUE,
    cleared,
    nearly_air,
    wrong_box,
)
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.experience import Experience
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.scene import Scene
from physics_hybrid.problems.potential.surrogate import Surrogate

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.hybrid import HybridWrapper

#: Where the shipped model lies: limb.mdlus, limb.json (ends, metrics, pinned numbers), limb.md
#: (model card).
FOLDER = Path(__file__).resolve().parents[2] / "pretrained"
NAME = "limb"

Array = np.ndarray | Tensor
#: See `bodies.voxel_body.deposit`.
Deposit = tuple[np.ndarray, np.ndarray]


class Predictor:
    """phi of point electrodes in a voxelised body, by a trained network.

    phi = phi_a (1 + NN(sigma, source, coordinates, spacing))                                 [V]

    network : HybridWrapper
    ends : how the current leaves, as in training.
    coordinates : channels that the network sees, cell or node (`surrogate.coordinates`).
    about : what the model was shipped with (limb.json). card : its model card, Markdown.

    Raises
    ------
    ValueError
        From `predict`: input that is no body, or that the network cannot take.

    Source
    ------
    phi_a: Plonsey and Barr, Bioelectricity, 3rd ed. 2007, eq. 2.19. NN: a Fourier neural operator
    (Li et al., ICLR 2021), or a U-Net; its model card says which.

    Examples
    --------
    Before it is trained a network is its baseline: here, the closed form of an infinite medium.

    >>> from physics_hybrid.models.fno import ResidualFNO
    >>> from physics_hybrid.problems.potential.baseline import PointSourceBaseline
    >>> from physics_hybrid.problems.potential.geometry import GeometryEncoder
    >>> from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
    >>> backbone = ResidualFNO(feature_channels(3, 4), 1, width=4, depth=1, modes=[2, 2, 2])
    >>> network = HybridWrapper(backbone, GeometryEncoder(4, 4, 1, 1), PointSourceBaseline())
    >>> sigma = np.full((16, 8, 8), 0.2455)                                               # S/m
    >>> model = Predictor(network)
    >>> phi = model.predict(sigma, [0.004] * 3, [0.032, 0.016, 0.016], 1e-3)              # m, m, A
    >>> phi.shape
    (16, 8, 8)
    >>> distance = np.linalg.norm(np.array([8.5, 4.5, 6.5]) * 0.004 - [0.032, 0.016, 0.016])
    >>> bool(np.isclose(phi[8, 4, 6], 1e-3 / (4 * np.pi * 0.2455 * distance), rtol=2e-3))
    True
    """

    def __init__(
        self,
        network: nn.Module,
        ends: Ends | str = "grounded",
        coordinates: str = "cell",
        about: Mapping[str, Any] | None = None,
        card: str = "",
    ):
        self.network = cast("HybridWrapper", network.eval())
        self.ends, self.coordinates = Ends.of(ends), coordinates
        self.about, self.card = about or {}, card

    @classmethod
    def load(
        cls, folder: Path | str | None = None, device: torch.device | str = "cpu"
    ) -> Predictor:
        """A model that was shipped.

        folder : what `python -m physics_hybrid ship` wrote; None: the one inside the package.
        device : where it runs.

        Raises
        ------
        FileNotFoundError
            No model is shipped there.

        Source
        ------
        Weights and metrics are those of the run that its model card names.

        Examples
        --------
        >>> Predictor.load("mine")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: mine/limb.mdlus does not exist: no model is shipped there; ...
        """
        from physics_hybrid.models.model_files import load_model

        folder = FOLDER if folder is None else Path(folder)
        weights, about, card = (folder / f"{NAME}{suffix}" for suffix in (".mdlus", ".json", ".md"))
        missing = [p for p in (weights, about) if not p.exists()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} does not exist: no model is shipped there; python -m physics_hybrid"
                " ship RUN_FOLDER makes one of a training"
            )
        facts = json.loads(about.read_text())
        predictor = cls(
            load_model(weights),
            ends=Ends(**facts["ends"]),
            coordinates=facts["coordinates"],
            about=facts,
            card=card.read_text() if card.exists() else "",
        )
        return predictor.to(device)

    def to(self, device: torch.device | str) -> Predictor:
        self.network = self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.network.parameters()).device
        return device

    @property
    def experience(self) -> Experience | None:
        """What it is likely to be wrong by, where `python -m physics_hybrid calibrate` has said."""
        facts = self.about.get("calibration")
        return None if facts is None else Experience.read(facts)

    @torch.no_grad()
    def predict(
        self,
        sigma: Array,
        spacing: Array,
        source_point: Array,
        current: Array | float,
        return_point: Array | None = None,
        batch_size: int = 8,
        air_below: float | None = None,
    ) -> Array:
        """Potential in volts at voxel centres, 0 in air.

        Parameters
        ----------
        sigma : (D, H, W), (D, H, W, 3) or (D, H, W, 6)
            S/m; 0 is air. Three values are (DD, HH, WW), six add (DH, DW, HW). D is the long axis
            and the fibre axis.
        spacing : (3,)
            Edges of a voxel in metres, (D, H, W); the longest edge of the box is 1 mm to 10 m.
        source_point : (3,) or (K, 3)
            Metres from the outer corner of voxel (0, 0, 0). Where the 8 voxels round it conduct
            differently, the source counts at the centre of its voxel, as in training.
        current : float or (K,)
            Amperes; phi is proportional to it.
        return_point : as source_point, or None
            Where a second electrode takes the current out: the difference of two predictions.
        batch_size : sources taken through the network together.
        air_below : what conducts less is air, S/m; None: what is 0. A UserWarning says where less
            conducts than any tissue does.

        Returns
        -------
        (D, H, W) for one source point, (K, D, H, W) for many; float32. A tensor, on the device of
        sigma, where sigma is one; else an array.

        Raises
        ------
        ValueError
            A wrong shape; values that are not finite; a box of a size that no body has (spacing in
            other units); a grid too small for the network; a source in air or outside; tissue that
            does not reach both cut faces, for a model that lets the current out there.

        Source
        ------
        Superposition: many electrodes are the sum of single ones, and a pair the difference of two
        (Malmivuo and Plonsey, Bioelectromagnetism, 1995, ch. 11).

        Examples
        --------
        phi is proportional to the current; two sources come back as two potentials.

        >>> from physics_hybrid.models.fno import ResidualFNO
        >>> from physics_hybrid.problems.potential.baseline import PointSourceBaseline
        >>> from physics_hybrid.problems.potential.geometry import GeometryEncoder
        >>> from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
        >>> backbone = ResidualFNO(feature_channels(3, 4), 1, width=4, depth=1, modes=[2, 2, 2])
        >>> network = HybridWrapper(backbone, GeometryEncoder(4, 4, 1, 1), PointSourceBaseline())
        >>> sigma, points = np.full((16, 8, 8), 0.2455), [[0.034, 0.018, 0.018]] * 2
        >>> phi = Predictor(network).predict(sigma, [0.004] * 3, points, [1e-3, 2e-3])
        >>> phi.shape
        (2, 16, 8, 8)
        >>> bool(np.allclose(phi[1], 2 * phi[0]))
        True
        """
        asked = _Question.of(sigma, spacing, source_point, current, return_point)
        if asked.returns is None and self.ends.kind == "pair":
            raise ValueError(
                "this model was trained with pairs of electrodes and zero flux everywhere else:"
                " give return_point, where the current is taken out"
            )
        asked.check_current()
        asked.check_box()
        at_least(1, "batch_size", batch_size)
        body = self._body(asked, air_below)
        deposits = self._sources(body, asked.points, "source_point")
        if asked.returns is not None:
            deposits += self._sources(body, asked.returns, "return_point")
        parts = range(0, len(deposits), batch_size)
        phi = np.concatenate([self._batch(body, deposits[k : k + batch_size]) for k in parts])
        count = len(asked.points)
        if asked.returns is not None:
            phi = phi[:count] - phi[count:]
        amperes = np.broadcast_to(asked.current, count).reshape(-1, 1, 1, 1)
        phi = (phi * amperes).astype(np.float32)
        if not asked.many:
            phi = phi[0]
        return torch.from_numpy(phi).to(sigma.device) if isinstance(sigma, Tensor) else phi

    def _body(self, asked: _Question, air_below: float | None) -> Conductor:
        """The conductor, as the network takes it. Raises ValueError where it can not."""
        if air_below is not None:
            positive("air_below", air_below)
        given = asked.sigma[..., None] if asked.sigma.ndim == 3 else asked.sigma
        sigma = self._components(cleared(given, air_below))
        low = nearly_air(sigma)
        if low is not None:
            key = f"air_below={10 * low.lowest:.0e}"
            warnings.warn(f"{low}: {COUNTS_AS_TISSUE.format(key=key)}", stacklevel=3)
        self.network.check_grid(sigma.shape[1:])
        body = Conductor(
            torch.from_numpy(sigma)[None], torch.from_numpy(asked.spacing)[None], self.ends
        )
        ends = body.tissue[0, 0].any() and body.tissue[0, -1].any()
        if not self.ends.floating and not ends:
            raise ValueError(
                "tissue does not reach the first and the last face along D, where the current"
                f" leaves (ends={self.ends.kind}): crop the volume, and let D be the long axis"
            )
        return body

    def _components(self, sigma: np.ndarray) -> np.ndarray:
        """sigma (D, H, W, C) as (C, D, H, W) with as many components as in training."""
        wanted = self.network.sigma_components
        try:
            given = np.moveaxis(sigma, -1, 0)
            return np.ascontiguousarray(components(given, wanted, "sigma"))
        except ValueError as error:
            raise ValueError(
                f"this model was trained with {wanted} component{'s' * (wanted > 1)} of sigma,"
                f" which cannot represent the tensors given (shape {sigma.shape})"
            ) from error

    def _sources(self, body: Conductor, points: np.ndarray, name: str) -> list[Deposit]:
        """`deposit` of 1 A at each point in metres."""
        deposits = []
        for k, point in enumerate(points):
            try:
                if not np.isfinite(point).all():
                    raise ValueError(f"{point} is not finite")
                voxel = body.voxel_of(torch.from_numpy(point)[None])[0].numpy()
            except ValueError as error:
                raise ValueError(f"{name} {k}: {error}") from error
            if not body.tissue[0, *voxel]:
                raise ValueError(
                    f"{name} {k}, {point.tolist()} m, lies in air (voxel {tuple(voxel.tolist())},"
                    " sigma = 0): no current can flow from it"
                )
            deposits.append(_deposit(body, point, voxel))
        return deposits

    def _batch(self, body: Conductor, sources: list[Deposit]) -> np.ndarray:
        """phi (K, D, H, W) of K sources of 1 A."""
        count, device = len(sources), self.device
        centres = [np.average(voxels + 0.5, axis=0, weights=f) for voxels, f in sources]
        source = torch.zeros(count, *body.shape, device=device)
        for f, (voxels, values) in zip(source, sources, strict=True):
            f[tuple(torch.from_numpy(voxels.T).to(device))] = torch.from_numpy(values).to(f)
        scene = Scene(
            sigma=body.sigma.to(source).expand(count, -1, -1, -1, -1),
            source=source,
            spacing=body.spacing.to(source).expand(count, -1),
            # where a network finds it in its density
            source_point=torch.from_numpy(np.stack(centres)).to(source) * body.spacing.to(source),
            current=torch.ones(count, device=device),
            names=("predict",) * count,
        )
        surrogate = Surrogate(self.network, self.ends, self.coordinates)
        return surrogate(scene).double().cpu().numpy()


@dataclass(frozen=True)
class _Question:
    """What `Predictor.predict` was given, as arrays of float64.

    points, returns : (K, 3); the latter where there is a second electrode.
    many : whether K points were given, not one.
    """

    sigma: np.ndarray
    spacing: np.ndarray
    points: np.ndarray
    current: np.ndarray
    returns: np.ndarray | None
    many: bool

    @classmethod
    def of(
        cls,
        sigma: Array,
        spacing: Array,
        source_point: Array,
        current: Array | float,
        return_point: Array | None,
    ) -> _Question:
        """Raises ValueError for a wrong shape."""
        values, edges, points, amperes = map(_array, (sigma, spacing, source_point, current))
        if not (values.ndim == 3 or (values.ndim == 4 and values.shape[3] in (3, 6))):
            raise ValueError(
                f"sigma must have shape (D, H, W), (D, H, W, 3) or (D, H, W, 6); got {values.shape}"
            )
        if edges.shape != (3,):
            raise ValueError(
                f"spacing must hold three edges of a voxel (D, H, W) in m; got shape {edges.shape}"
            )
        if points.ndim not in (1, 2) or points.shape[-1] != 3 or not points.size:
            raise ValueError(
                f"source_point must have shape (3,) or (K, 3), metres; got {points.shape}"
            )
        returns = None if return_point is None else _array(return_point)
        if returns is not None and returns.shape != points.shape:
            raise ValueError(
                f"return_point must have the shape of source_point, {points.shape}; got"
                f" {returns.shape}"
            )
        return cls(
            sigma=values,
            spacing=edges,
            points=np.atleast_2d(points),
            current=amperes,
            returns=None if returns is None else np.atleast_2d(returns),
            many=points.ndim == 2,
        )

    def check_box(self) -> None:
        """Raises ValueError for a box of a size that no body has."""
        wrong = wrong_box(self.spacing, self.sigma.shape[:3])
        if wrong:
            raise ValueError(f"spacing {wrong} Metres are expected")

    def check_current(self) -> None:
        """Raises ValueError for a current that is not finite, or is not one for each source."""
        count = len(self.points)
        if self.current.shape not in ((), (count,)) or not np.isfinite(self.current).all():
            raise ValueError(
                f"current must be one finite number of amperes, or one for each of {count}"
                f" sources; got {self.current}"
            )


def _deposit(body: Conductor, point: np.ndarray, voxel: np.ndarray) -> Deposit:
    """1 A at a point in metres, or, where the 8 voxels round it conduct differently, at the centre
    of its voxel.
    """
    sigma, spacing = body.sigma[0].numpy(), body.spacing[0].numpy()
    low = np.maximum(voxel - 1, 0)
    window = tuple(slice(a, v + 2) for a, v in zip(low, voxel, strict=True))
    here = sigma[:, *voxel][:, None, None, None]
    alike = (sigma[:, *window] == here).all(axis=0)
    if not held(point - low * spacing, alike, spacing):
        point = (voxel + 0.5) * spacing
    return deposit(point, spacing, 1.0)


def _array(value: Array | float) -> np.ndarray:
    try:
        given = value.detach().cpu() if isinstance(value, Tensor) else value
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"numbers are expected (NumPy array, tensor or list); got {type(value).__name__}"
        ) from error
