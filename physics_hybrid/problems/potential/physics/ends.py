"""The two cut ends of a limb, and how the current leaves.

    grounded    phi = 0
    robin       d phi / dn = -beta phi
    sink, pair  sigma d phi / dn = 0,  phi has zero mean

All three are d phi / dn = -beta phi, with beta infinite, finite or 0 (1/m).
"""

import math
from dataclasses import dataclass

ENDS = {
    "grounded": "phi = 0 on the two cut faces of the limb",
    "robin": "d phi / dn = -beta phi on the two cut faces: the limb goes on",
    "sink": (
        "zero flux everywhere; the current leaves evenly through all tissue, and phi has zero mean"
    ),
    "pair": "zero flux everywhere; a second electrode takes the current out, and phi has zero mean",
}


@dataclass(frozen=True)
class Ends:
    """How the current leaves: the boundary condition that makes the potential of one electrode
    unique.

    kind : str
        ``grounded``, ``robin``, ``sink`` or ``pair``, see `ENDS`.
    beta : float or None
        1/m, for ``robin`` only: a limb that goes on for 1/beta metres to a grounded end has this
        on its cut face, once the field there is one-dimensional.

    One number says it all to an operator: `exchange` is infinite where the end is grounded and 0
    where nothing passes.

    Raises
    ------
    ValueError
        For another kind, with the four choices; for a beta that is missing, not positive, or given
        where it means nothing.
    """

    kind: str = "grounded"
    beta: float | int | None = None

    def __post_init__(self) -> None:
        sealed = self.kind == "robin" and self.beta == 0
        if self.kind not in ENDS or sealed:
            got = f"{self.kind!r} with beta=0" if sealed else repr(self.kind)
            choices = "; ".join(f"{kind}: {meaning}" for kind, meaning in ENDS.items())
            raise ValueError(
                f"ends must say how the current leaves; got {got}. (Zero flux on the whole surface "
                "with one electrode has no solution: the current that comes in has no way out.) "
                f"Choose: {choices}"
            )
        if self.kind == "robin" and (self.beta is None or not 0 < self.beta < math.inf):
            raise ValueError(
                f"ends=robin needs a positive beta in 1/m (d phi / dn = -beta phi); got {self.beta}"
            )
        if self.kind != "robin" and self.beta is not None:
            raise ValueError(
                f"beta={self.beta:g} has a meaning for ends=robin only, "
                f"not for ends={self.kind}: leave it out"
            )

    @classmethod
    def of(cls, ends: "Ends | str") -> "Ends":
        """The ends that a name stands for; ends as they are."""
        if isinstance(ends, Ends):
            return ends
        return cls(ends)

    @property
    def floating(self) -> bool:
        """Whether no current passes the ends, so that phi is known up to a constant and has zero
        mean by choice."""
        return self.kind in ("sink", "pair")

    @property
    def exchange(self) -> float:
        """beta of every kind: infinity where grounded, 0 where floating. 1/m"""
        if self.kind == "grounded":
            return math.inf
        if self.beta is None:
            return 0.0
        return float(self.beta)
