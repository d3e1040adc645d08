"""Derivatives of a solution, whatever iteration found it.

    A(sigma) x = b,        dx = A^-1 (db - dA x)

The residual b - A x is 0 at a solution, and its derivatives are those in the bracket: what comes
back through it is A^-1 times the gradient, one more solve with the same symmetric A. (Blondel et
al., Efficient and modular implicit differentiation, NeurIPS 2022, eq. 2)
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.multipoint import Operator


def with_derivatives(
    operator: Operator,
    rhs: Float[Tensor, "K D H W"],
    x: Float[Tensor, "K D H W"],
    inverse: Callable[[Tensor], Tensor],
    floating: bool,
) -> Float[Tensor, "K D H W"]:
    """x, V, with the derivatives in the right-hand side (A/m^3) and the conductances.

    inverse : A^-1 of a right-hand side that is 0 in air.
    floating : A has the constants as its null space: a gradient counts up to its mean.
    """
    if not torch.is_grad_enabled():
        return x
    residual = rhs - operator(x)
    if not residual.requires_grad:
        return x
    tissue = operator.diagonal.detach() > 0

    def adjoint(gradient: Tensor) -> Tensor:
        """A^-1 of a gradient; 0 in air."""
        inside = torch.where(tissue, gradient, 0.0)
        if floating:
            inside = zero_mean(inside, tissue.expand_as(inside))
        return torch.where(tissue, inverse(inside), 0.0)

    correction: Tensor = _Inverse.apply(torch.where(tissue, residual, 0.0), adjoint)
    return x + correction


class _Inverse(torch.autograd.Function):
    """A^-1 of a residual that is 0 to the tolerance: 0 on the way there, the inverse on the way
    back."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, inverse: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.inverse = inverse
        return torch.zeros_like(residual)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.inverse(gradient.contiguous()), None
