"""Grids (D, H, W), and shapes that belong to one of their axes.

Fields are (B, D, H, W), the batch first. `axis` counts the spatial axes from 0, so that axis a is
dimension a + 1 of a field.
"""

from __future__ import annotations

from torch import Tensor

#: Voxels along D (the long axis), H and W.
Grid = tuple[int, int, int]


def name_of(grid: tuple[int, ...]) -> str:
    """48x24x24."""
    return "x".join(map(str, grid))


def grid_of(field: Tensor) -> Grid:
    """The grid that a field lives on: its last three sizes."""
    D, H, W = field.shape[-3:]
    return D, H, W


def is_grid(value: object) -> bool:
    """Whether a value is three whole sizes of at least 2, as a list or a tuple."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 2 for n in value)


def along(values: Tensor, axis: int) -> Tensor:
    """Values of the positions along an axis, shaped to meet a field: (B, n) -> (B, n, 1, 1) for
    axis 0.

    (n,) counts as one for all samples: (1, n, 1, 1).
    """
    if values.ndim == 1:
        values = values[None]
    shape = [len(values), 1, 1, 1]
    shape[axis + 1] = -1
    return values.reshape(shape)


def per_sample(values: Tensor) -> Tensor:
    """A value for each sample, shaped to meet a field: (B,) -> (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


def others(axis: int) -> tuple[int, int]:
    """The dimensions of a field (B, D, H, W) that are the other two axes."""
    first, second = (a + 1 for a in range(3) if a != axis)
    return first, second


def pad(axis: int, before: int = 1, after: int = 1) -> list[int]:
    """Widths for `torch.nn.functional.pad` that lengthen one axis of a field."""
    widths = [0] * 6  # torch counts from the last axis
    widths[2 * (2 - axis)], widths[2 * (2 - axis) + 1] = before, after
    return widths
