"""Now `python -m physics_hybrid resolution-matrix`."""

from physics_hybrid.old_names import hand_on

if __name__ == "__main__":
    hand_on("resolution-matrix")
