"""Write the tables and pictures of README and docs from the files of runs and measurements.

    python -m physics_hybrid pages [runs/NAME] [--overhead step_overhead.json]
        [--memory peak_memory.json] [--scaling scaling.json]
        [--validation validation/validate.json] [--rates data_rates.json]
        [--matrix resolution_matrix/resolution_matrix.json]
        [--certificates certificates/certificates.json] [--uncertainty uncertainty.json]
        [--benchmark benchmark/benchmark.json] [--bench bench/bench.json]
        [--study runs/hybrid_value] [--hundred-samples runs/hundred_samples]
        [--flavour runs/flavour_families] [--flavour-grid runs/flavour_grid]
        [--flavour-convergence convergence.json] [--flavour-fresh evaluations/fresh]
        [--flavour-times flavour_times.json]
        [--door door.json] [--explorer explorer.json] [--electrode-model electrode_model.json]
        [--burgers runs/burgers] [--burgers-study runs/burgers_study]
        [--burgers-latent runs/burgers_latent] [--burgers-uncertain runs/burgers_uncertain]
        [--burgers-selection selection.json] [--burgers-times times.json]
        [--burgers-plane runs/burgers_plane] [--burgers-substeps substeps.json]
        [--burgers-viscosities runs/burgers_two]
        [--ptychography runs/ptychography] [--activations FOLDER]
        [--stability-rates runs/stability_rates] [--stability runs/stability]
        [--stability-clipping runs/stability_clipping]
        [--stability-potential runs/stability_potential]

None is typed by hand. A table stands between <!-- name --> and <!-- /name --> on its page. That of
the shipped model is written whenever there is one.
"""

from __future__ import annotations

import argparse
import importlib
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
    "certificates": "certificates",
    "uncertainty": "uncertainties",
    "bench": "bench",
    "door": "door",
    "electrode_model": "electrode-model",
}
#: What gives a table of another problem (`problems/NAME/evidence/pages.py`), by the name of the
#: table.
OWN = {
    "flavour": {
        "flavour": "output folder of study flavour_families",
        "flavour_grid": "output folder of study flavour_grid",
        "flavour_convergence": "JSON of python -m physics_hybrid flavour-convergence",
        "flavour_fresh": "output folder of evaluate.py on states that no choice has seen",
        "flavour_times": "JSON of physics_hybrid.problems.flavour.evidence.times",
    },
    "burgers": {
        "burgers": "run of python train.py experiment=burgers",
        "burgers_study": "output folder of study burgers",
        "burgers_latent": "output folder of chain burgers_latent",
        "burgers_uncertain": "output folder of chain burgers_uncertain, or of several seeds",
        "burgers_selection": "JSON of physics_hybrid.problems.burgers.evidence.selection",
        "burgers_plane": "output folder of study burgers_plane",
        "burgers_times": "JSON of physics_hybrid.problems.burgers.evidence.times",
        "burgers_substeps": "JSON of physics_hybrid.problems.burgers.evidence.substeps",
        "burgers_viscosities": "run of experiment=burgers with several data.nu",
    },
    "ptychography": {
        "ptychography": "run of python train.py experiment=ptychography, or folder of several",
        "activations": "output folder of python -m physics_hybrid activations",
        "stability_rates": "output folder of study stability_rates",
        "stability": "output folder of study stability",
        "stability_clipping": "output folder of study stability_clipping",
        "stability_potential": "output folder of study stability_potential",
    },
}


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
    parser.add_argument(
        "--hundred-samples", type=Path, help="output folder of study hundred_samples"
    )
    for tables in OWN.values():
        for name, what in tables.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=Path, help=what)
    for name, verb in VERBS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=Path, help=f"JSON of python -m physics_hybrid {verb}")
    parser.add_argument(
        "--explorer", type=Path, help="JSON of physics_hybrid.problems.potential.evidence.explorer"
    )
    given = vars(parser.parse_args(arguments))
    run, reports = given.pop("run"), {name: path for name, path in given.items() if path}
    with readable_errors():
        for problem, tables in OWN.items():
            own = {name: reports.pop(name) for name in tables if name in reports}
            if own:
                pages = f"physics_hybrid.problems.{problem}.evidence.pages"
                importlib.import_module(pages).fill_page(own)
        from physics_hybrid.problems.potential.evidence.pages import fill_pages

        fill_pages(run, reports)
