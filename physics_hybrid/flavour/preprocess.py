"""python -m physics_hybrid.flavour.preprocess IN.h5 OUT.h5: one file with all of it."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from physics_hybrid.problems.flavour.data.preprocess import main

    main(sys.argv[1:])
