"""torchrun that answers signals as its ranks do and ends with their exit status."""

from __future__ import annotations


def main(arguments: list[str]) -> None:
    from physics_hybrid.cluster import torchrun

    torchrun.main(arguments)
