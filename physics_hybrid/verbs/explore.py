"""Place an electrode by hand: a local page with three sections, current lines and a bound.

    python -m physics_hybrid explore [thigh.nii.gz]

Prints the address of the page, which holds a key that is new each time. Only this machine can
connect; nothing is loaded from the network. Without FILE it is a limb of those that networks are
trained on. Ctrl-C ends it. All options may stand in a YAML file too (--config FILE).

Leaves with 0; 1 where a file, a body, a place, the address or the port is wrong; 2 where something
was mistyped. What was wrong is one line.
"""

from __future__ import annotations

from typing import Any

from physics_hybrid.options import NUMBER, SWITCH, TRIPLE, WHOLE, WORD, Shape, started
from physics_hybrid.verbs.solve import BODY, reading

SHAPES: dict[str, Shape] = {
    "seed": WHOLE,
    "grid": {"type": int, "nargs": 3, "metavar": ("D", "H", "W")},
    **BODY,
    "at": TRIPLE,
    "frame": WORD,
    "current": NUMBER,
    "ends": WORD,
    "beta": NUMBER,
    "tolerance": NUMBER,
    "engine": WORD,
    "model": WORD,
    "host": WORD,
    "port": WHOLE,
    "open": SWITCH,
}
#: Those that `solve` takes.
SOLVE = ("ends", "beta", "tolerance", "engine", "model")


def main(arguments: list[str]) -> None:
    started("explore", __doc__, SHAPES, arguments, run)


def run(given: dict[str, Any]) -> None:
    """Read, solve once, serve."""
    from physics_hybrid.problems.potential.explorer.server import check_host, serve

    check_host(given["host"])
    explorer = explorer_of(given)
    about = explorer.about()
    body = explorer.specimen.original
    for note in body.notes:
        print(note)
    print(body)
    numbers = explorer.field(about["scene"])["numbers"]
    print(f"engine: {numbers['engine']} ({numbers['why']}); ends: {numbers['ends']}")

    def ready(address: str) -> None:
        print(f"open {address}")
        print("Only this machine can connect, and only with this address. Ctrl-C ends it.")
        import sys

        sys.stdout.flush()
        if given["open"]:
            import webbrowser

            webbrowser.open(address)

    serve(explorer, given["host"], given["port"], ready)
    print("ended")


def explorer_of(given: dict[str, Any]) -> Any:
    """The explorer that the options say."""
    from physics_hybrid.problems.potential.door.places import places
    from physics_hybrid.problems.potential.explorer.answers import Explorer
    from physics_hybrid.problems.potential.explorer.specimen import Specimen

    if given["file"] is None:
        specimen = Specimen.random(given["seed"], given["grid"])
    else:
        specimen = Specimen.read(given["file"], **reading(given))
    first = specimen.first_place()
    if given["at"] is not None:
        metres, _ = places(specimen.original, given["at"], given["frame"], "at")
        first = tuple(metres[0].tolist())
    return Explorer(specimen, first, given["current"], {key: given[key] for key in SOLVE})
