"""Write the tables and pictures of README and docs from the files of runs and measurements.

    python -m physics_hybrid pages [runs/NAME] [--overhead step_overhead.json]
        [--memory peak_memory.json] [--scaling scaling.json]
        [--validation validation/validate.json] [--rates data_rates.json]
        [--matrix resolution_matrix/resolution_matrix.json]
        [--benchmark benchmark/benchmark.json] [--bench bench/bench.json]
        [--study runs/hybrid_value]
        [--flavour runs/flavour_families] [--flavour-grid runs/flavour_grid]

None is typed by hand. A table stands between <!-- name --> and <!-- /name --> on its page. That of
the shipped model is written whenever there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors

#: The verb whose JSON gives a table, by the name of the table.
VERBS = {
    "memory": "peak-memory",
    "overhead": "step-overhead",
    "scaling": "scaling",
    "rates": "data-rates",
    "validation": "validate",
    "matrix": "resolution-matrix",
    "benchmark": "benchmark",
    "bench": "bench",
}
#: The study of the flavour closure whose folder gives a table, by the name of the table.
STUDIES = {"flavour": "flavour_families", "flavour_grid": "flavour_grid"}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, nargs="?", help="folder of the run that gives the results and pictures"
    )
    parser.add_argument(
        "--study", type=Path, help="output folder of python -m physics_hybrid study"
    )
    for name, study in STUDIES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=Path, help=f"output folder of study {study}")
    for name, verb in VERBS.items():
        parser.add_argument(f"--{name}", type=Path, help=f"JSON of python -m physics_hybrid {verb}")
    given = vars(parser.parse_args(arguments))
    reports = {name: given[name] for name in ("study", *VERBS, *STUDIES)}
    reports = {name: path for name, path in reports.items() if path}
    with readable_errors():
        if given["run"] or reports.keys() - STUDIES.keys():
            from physics_hybrid.problems.potential.evidence.pages import fill_pages

            fill_pages(given["run"], reports)
        if reports.keys() & STUDIES.keys():
            from physics_hybrid.problems.flavour.evidence.pages import fill_page

            fill_page(reports)
