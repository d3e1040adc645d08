"""What a user gives as numbers, NumPy or torch, in float64."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

#: What comes in and goes out.
Array = np.ndarray | Tensor


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor: answers to tensors are tensors."""
    return isinstance(value, Tensor)


def numbers(value: Any, name: str) -> Tensor:
    """A value as a tensor of float64, derivatives kept, in C order and native bytes.

    Raises
    ------
    ValueError
        Words, complex numbers, rows of unequal length.
    """
    if is_tensor(value):
        if value.is_complex():
            raise ValueError(f"{name} must be real numbers; got {value.dtype}")
        return value.to(torch.float64)
    try:
        if isinstance(value, (list, tuple)) and any(is_tensor(v) for v in value):
            return torch.stack([numbers(v, name) for v in value])
        given = np.asarray(value)
        if given.dtype.kind not in "fiub":
            raise TypeError(f"got {given.dtype}")
        return torch.from_numpy(np.array(given, dtype=np.float64, order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{name} must be numbers (array, tensor or list): {said}") from error


def like(value: Tensor, as_tensor: bool) -> Any:
    """A tensor as it is, or as an array."""
    return value if as_tensor else value.detach().cpu().numpy()
