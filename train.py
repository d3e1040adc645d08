"""Train a hybrid operator and evaluate it: `python train.py`, `python train.py --help`."""

import sys

from physics_hybrid.verbs.train import main

if __name__ == "__main__":
    main(sys.argv[1:])
