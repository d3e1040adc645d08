"""Names of before the code had rooms, for one release: found by the package's `__path__`.

`.mdlus` files hold the names of the modules whose classes they store, so that those stay for
longer.
"""

import sys


def hand_on(verb: str) -> None:
    """What `python -m physics_hybrid.NAME` did, under its new name."""
    from physics_hybrid.__main__ import main

    old = sys.argv[0].rsplit("/", 1)[-1].removesuffix(".py")
    note = f"NOTE: python -m physics_hybrid.{old} is now python -m physics_hybrid {verb}"
    print(note, file=sys.stderr, flush=True)
    main([verb, *sys.argv[1:]])
