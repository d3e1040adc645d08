"""python -m physics_hybrid.inspect CHECKPOINT: as python -m physics_hybrid inspect."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from physics_hybrid.verbs.inspect import main

    main(sys.argv[1:])
