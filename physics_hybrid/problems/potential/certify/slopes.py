r"""A current that also varies across the faces: linear normal components, still conserved.

A Raviart-Thomas field q_a does not vary across axis b, and that is most of its error. On a face
normal to a let q . n have the slope S_ab X_b more (X_b from -1 to 1), the same for both voxels.
With S-, S+ on the faces below and above,

    q_a += X_b ((S- + S+) + X_a (S+ - S-)) / 2,    q_b += (S+ - S-) h_b / (4 h_a) (1 - X_b^2)

has no divergence and passes nothing through the faces normal to b. (Brezzi, Douglas, Duran and
Fortin, Numer. Math. 51 (1987) 237: the first of their spaces on bricks.) S is 0 on skin and on
sealed ends. Elsewhere it is what makes

    sum over voxels of int p . sigma^-1 p dV + robin ends,    p = q + sigma grad v

smallest: first on every face alone, on robin ends what v asks for, then by a few steps of conjugate
gradients on all faces together, with the diagonal as preconditioner. Any S gives a bound: nothing
has to converge.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import AXES, Body
from physics_hybrid.problems.potential.certify.flux import Flux, points_on_end, quadrature_points
from physics_hybrid.problems.potential.certify.shapes import flat_haar

#: Steps of conjugate gradients: after them the bound falls by less than 1 %, as a rule by 0.1 %.
STEPS = 3

#: Component a of the slope along b, on all faces normal to a, A/m^2.
Slopes = dict[tuple[int, int], Float[Tensor, "_ _ _"]]

#: A vector in every voxel for each wave m, P_m1 P_m2 P_m3; what is None is 0.
Waves = dict[tuple[int, int, int], list[Tensor | None]]


def with_slopes(flux: Flux) -> Flux:
    """The same with the slopes that make it smallest."""
    body = flux.body
    moments = _moments(flux)
    S: Slopes = {}
    for a, b in permutations(range(3), 2):
        moment = moments[_wave(b)][a]
        if moment is None:
            moment = torch.zeros(body.shape, dtype=torch.float64)
        S[a, b] = _shared(body, moment, a)
        if a == 0 and not body.ends.floating:
            for end in (0, -1):
                S[a, b][end] = _on_end(flux, moment, end, b)
    S = _together(body, moments, S)
    return replace(flux, slopes=_sides(body, S))


def _sides(body: Body, S: Slopes) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """S below and above every voxel."""
    out = {}
    for (a, b), values in S.items():
        n = body.shape[a]
        out[a, b] = values.narrow(a, 0, n), values.narrow(a, 1, n)
    return out


def _wave(*axes: int) -> tuple[int, int, int]:
    """m of the wave that varies so often along these axes."""
    return axes.count(0), axes.count(1), axes.count(2)


#: m of all waves that slopes change, and the mean square of each over a voxel.
_WAVES = {
    _wave(): 1.0,
    **{_wave(b): 1 / 3 for b in range(3)},
    **{_wave(a, b): 1 / 9 for a, b in combinations(range(3), 2)},
    **{_wave(b, b): 1 / 5 for b in range(3)},
}


def _moments(flux: Flux) -> Waves:
    """Those waves of p without slopes that meet slopes, A/m^2."""
    body = flux.body
    found: Waves = {m: [None] * 3 for m in _WAVES}
    for m, _, components in flux.modes():
        if m in found:
            found[m] = [value if _meets(body, m, a) else None for a, value in enumerate(components)]
    for some in quadrature_points(body, flux, flux, rules.CHECK):
        p = flux.at(some)
        where = some.voxels.unbind(dim=1)
        X = [2 * some.xi(axis) - 1 for axis in range(3)]
        for m, size in _WAVES.items():
            shape = some.weight / size
            for x, order in zip(X, m, strict=True):
                if order:
                    shape = shape * (x if order == 1 else (3 * x**2 - 1) / 2)
            for a in range(3):
                if not _meets(body, m, a):
                    continue
                there = found[m][a]
                if there is None:
                    there = torch.zeros(body.shape, dtype=torch.float64)
                there[where] = 0.0
                there.index_put_(where, (p[a] * shape).sum(dim=(1, 2, 3)), accumulate=True)
                found[m][a] = there
    return found


def _meets(body: Body, m: tuple[int, int, int], axis: int) -> bool:
    """Whether a component of a wave meets one of slopes: in an oblique medium all do."""
    own = {0: 0, 1: 0, 2: 1}[sum(i == 1 for i in m)]
    return len(body.sigma) == 6 or (m[axis] == 2 if max(m) == 2 else m[axis] == own)


def _together(body: Body, moments: Waves, S: Slopes) -> Slopes:
    """S after some steps of conjugate gradients from S; moments are used up."""
    free, films = _free(body), _films(body)
    for m, bent in _bent(body, S).items():
        moments[m] = [_sum(one, other) for one, other in zip(moments[m], bent, strict=True)]
    residual = {ab: -g * free[ab[0]] for ab, g in _gradient(body, moments).items()}
    moments.clear()
    scale = _inverse_diagonal(body, free, films)
    direction: Slopes = {}
    before = 0.0
    for _ in range(STEPS):
        z = {ab: r * scale[ab] for ab, r in residual.items()}
        product = _dot(residual, z)
        if product <= 0:
            break
        for ab, d in direction.items():
            z[ab].add_(d, alpha=product / before)
        direction, before = z, product
        image = _gradient(body, _bent(body, direction))
        for ab, d in direction.items():
            image[ab].mul_(free[ab[0]])
            if ab[0] == 0:
                image[ab].addcmul_(films, d)
        alpha = product / _dot(direction, image)
        for ab, d in direction.items():
            S[ab].add_(d, alpha=alpha)
            residual[ab].sub_(image[ab], alpha=alpha)
    return S


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Of what may be 0."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _dot(one: Slopes, other: Slopes) -> float:
    """Scalar product."""
    return sum(float((one[ab] * other[ab]).sum()) for ab in one)


def _bent(body: Body, S: Slopes) -> Waves:
    """What slopes add to the waves of q."""
    out: Waves = {m: [None] * 3 for m in _WAVES}
    for a, b in S:
        n = body.shape[a]
        low, high = (S[a, b].narrow(a, i, n) for i in (0, 1))
        step = high - low
        out[_wave(b)][a] = (low + high) / 2
        out[_wave(a, b)][a] = step / 2
        bend = step * _share(body, a, b)
        out[_wave()][b] = _sum(bend, out[_wave()][b])
        out[_wave(b, b)][b] = _sum(-bend, out[_wave(b, b)][b])
    return out


def _share(body: Body, a: int, b: int) -> float:
    """Of S+ - S- in component b."""
    return float(body.spacing[b] / (6 * body.spacing[a]))


def _gradient(body: Body, waves: Waves) -> Slopes:
    """Half the derivative of int p . sigma^-1 p dV / V by S, for p of these waves."""
    out: Slopes = {}
    for a, b in permutations(range(3), 2):
        mean = _resisted(body, waves[_wave(b)], a) / 6
        step = _resisted(body, waves[_wave(a, b)], a) / 18
        bend = _resisted(body, waves[_wave()], b) - _resisted(body, waves[_wave(b, b)], b) / 5
        step = torch.add(step, bend, alpha=_share(body, a, b))
        shape = list(body.shape)
        shape[a] += 1
        total = torch.zeros(shape, dtype=torch.float64)
        total.narrow(a, 0, body.shape[a]).copy_(mean - step)
        total.narrow(a, 1, body.shape[a]).add_(mean + step)
        out[a, b] = total
    return out


def _resisted(body: Body, vector: list[Tensor | None], axis: int) -> Tensor:
    """One component of sigma^-1 times a vector."""
    total = None
    for rho, other in _row(body, axis):
        value = vector[other]
        if value is not None:
            part = rho * value
            total = part if total is None else total + part
    return torch.zeros(body.shape, dtype=torch.float64) if total is None else total


def _row(body: Body, axis: int) -> Iterator[tuple[Tensor, int]]:
    """A row of sigma^-1: its entries, and the components that they meet."""
    if len(body.sigma) < 6:
        yield body.resistivity[min(axis, len(body.sigma) - 1)], axis
        return
    for rho, (i, j) in zip(body.resistivity, AXES, strict=True):
        if axis in (i, j):
            yield rho, j if axis == i else i


def _inverse_diagonal(body: Body, free: list[Tensor], films: Tensor) -> Slopes:
    """One over the second derivative by every S alone; 0 where S is given."""
    out: Slopes = {}
    for a, b in permutations(range(3), 2):
        own, across = (body.resistivity[min(i, len(body.sigma) - 1)] for i in (a, b))
        weight = own / 9 + across * (1.2 * _share(body, a, b) ** 2)
        shape = list(body.shape)
        shape[a] += 1
        total = torch.zeros(shape, dtype=torch.float64)
        total.narrow(a, 0, body.shape[a]).copy_(weight)
        total.narrow(a, 1, body.shape[a]).add_(weight)
        if a == 0:
            total += films
        out[a, b] = torch.where(free[a], 1 / torch.where(free[a], total, 1.0), 0.0)
    return out


def _free(body: Body) -> list[Tensor]:
    """Faces normal to each axis on which S is chosen: in tissue, and on ends that conduct."""
    out = []
    for axis in range(3):
        n = body.shape[axis]
        shape = list(body.shape)
        shape[axis] += 1
        free = torch.zeros(shape, dtype=torch.bool)
        low, high = (body.tissue.narrow(axis, i, n - 1) for i in (0, 1))
        free.narrow(axis, 1, n - 1).copy_(low & high)
        if axis == 0 and not body.ends.floating:
            free[0], free[-1] = body.tissue[0], body.tissue[-1]
        out.append(free)
    return out


def _films(body: Body) -> Float[Tensor, "nD H W"]:
    """Half the second derivative of the part of robin ends, by S on faces normal to D."""
    films = torch.zeros(body.shape[0] + 1, *body.shape[1:], dtype=torch.float64)
    if body.robin:
        for end in (0, -1):
            gamma = body.exchange * body.diagonal[0][end]
            weight = 1 / (3 * body.spacing[0] * torch.where(body.tissue[end], gamma, 1.0))
            films[end] = torch.where(body.tissue[end], weight, 0.0)
    return films


def _shared(body: Body, moment: Float[Tensor, "D H W"], axis: int) -> Float[Tensor, "_ _ _"]:
    """S on all faces normal to an axis: least squares over the two voxels of a face; 0 on skin."""
    n = body.shape[axis]
    rho = body.resistivity[min(axis, len(body.sigma) - 1)]
    low, high = (rho.narrow(axis, i, n - 1) for i in (0, 1))
    both = body.tissue.narrow(axis, 0, n - 1) & body.tissue.narrow(axis, 1, n - 1)
    pull = rho * moment
    total = pull.narrow(axis, 0, n - 1) + pull.narrow(axis, 1, n - 1)
    inner = torch.where(both, -total / torch.where(both, low + high, 1.0), 0.0)
    shape = list(body.shape)
    shape[axis] += 1
    S = torch.zeros(shape, dtype=torch.float64)
    S.narrow(axis, 1, n - 1).copy_(inner)
    return S


def _on_end(flux: Flux, moment: Tensor, end: int, b: int) -> Float[Tensor, "H W"]:
    """S on an end that conducts: what the voxel behind it wants, or on robin ends what v does."""
    body = flux.body
    if not body.robin:
        return torch.where(body.tissue[end], -moment[end], 0.0)
    outward = -1.0 if end == 0 else 1.0
    gamma = body.exchange * body.diagonal[0][end]
    wave = flat_haar(flux.nodes[end])[(1, 0) if b == 1 else (0, 1)]
    S = outward * flux.sign * gamma * wave
    for points in points_on_end(body, flux.closed, end, rules.CHECK):
        p = flux.at_ends(end, points)
        _, h, w = points.voxels.unbind(dim=1)
        S[h, w] = -3 * outward * points.mean(p * (2 * points.xi(b) - 1))
    return S
