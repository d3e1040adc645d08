"""Test a trained operator: `python evaluate.py checkpoint=runs/NAME
resolutions=[[96,48,48],[192,96,96]]`.
"""

import sys

from physics_hybrid.verbs.evaluate import main

if __name__ == "__main__":
    main(sys.argv[1:])
