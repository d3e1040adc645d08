"""How fast truth is made and read, against how fast training uses it.

For each grid, in samples a second on this machine: limbs drawn, voxelised and solved by finite
volumes (as a streamed training does it, in the batches it would use) and by finite elements; stored
samples read and checked from an .h5 file; training steps on samples that are there. `--samples` is
the number of rows in the file that is read (each holds one of a few solved limbs).
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.evidence.bench import bench, seconds
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.data.files import find
from physics_hybrid.problems.potential.data.generated import generate
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.loading import Entry, Files
from physics_hybrid.problems.potential.data.sample import Conventions
from physics_hybrid.problems.potential.data.stream import LimbStream
from physics_hybrid.reading import open_h5
from physics_hybrid.writing import STORED, create_h5

#: Seconds that each figure is measured for, at least.
LONG_ENOUGH = 5.0


def measure(grid: Grid, samples: int, overrides: list[str]) -> dict[str, Any]:
    """Rates in samples a second."""
    b = bench([f"data.grid=[{','.join(map(str, grid))}]", *overrides])
    data = b.problem.data
    stream = data.stream("train", grid)
    finite_element = dataclasses.replace(stream.solver, kind="finite_element")
    elements = dataclasses.replace(stream, solver=finite_element)
    at_once = max(data.batch_size, data.solved_at_once(grid))
    result = {
        "grid": name_of(grid),
        "batch": data.batch_size,
        "solved_at_once": at_once,
        "device": str(b.machine),
        "samples": samples,
    }

    def solve(k: int) -> object:
        return stream.batch(range(k * at_once, (k + 1) * at_once))

    def solve_elements(k: int) -> object:
        return elements.batch([k])

    result["finite_volume"] = _rate(solve, at_once, b.machine)
    result["finite_element"] = _rate(solve_elements, 1, b.machine)
    step = partial(b.trainer.step, [b.batch])
    steps = [seconds(step, b.machine) for _ in range(6)][1:]  # the first warms up
    result["training"] = data.batch_size / statistics.median(steps)
    with tempfile.TemporaryDirectory() as folder:
        files = _many(Path(folder), stream, samples, data)
        started, count = time.perf_counter(), 0
        for batch in files.batches((0,)):
            count += len(batch)
        result["read"] = count / (time.perf_counter() - started)
    result["read_over_training"] = result["read"] / result["training"]
    return result


def _rate(make: Callable[[int], object], size: int, machine: Machine) -> float:
    """Samples a second, where `make(k)` makes `size` of them."""
    make(0)
    times: list[float] = []
    while sum(times) <= LONG_ENOUGH or len(times) < 2:
        times.append(seconds(partial(make, len(times) + 1), machine))
    return size * len(times) / sum(times)


def _many(folder: Path, stream: LimbStream, samples: int, data: LimbData) -> Files:
    """A file of `samples` rows with a few solved limbs over and over, as training reads it."""
    few = min(samples, 8)
    path = generate(folder / "few.h5", stream, few, progress=False)
    with open_h5(path) as source, create_h5(folder / "many.h5") as out:
        for name in source.attributes:
            out.attrs[name] = source.attribute(name)
        for key in source:
            whole = source.dataset(key)[:]
            shape = (samples, *whole.shape[1:])
            chunks = (1, *shape[1:])
            kept = out.create_dataset(key, shape, whole.dtype, chunks=chunks, **STORED)
            for row in range(0, samples, few):
                kept[row : row + few] = whole[: samples - row]
    addresses = find(folder / "many.h5")
    return Files(
        [Entry(address, stream.grid, str(i)) for i, address in enumerate(addresses)],
        data.batch_size,
        data.device,
        0,
        Conventions(ends=stream.solver.ends),
        data.sigma_components,
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, samples a second."""
    lines = [
        (
            "| grid | solved, finite volume | solved, finite elements | read and checked | trained"
            " on | read over trained |"
        ),
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['grid']} | {r['finite_volume']:.3g} (by {r['solved_at_once']}) |"
        f" {r['finite_element']:.2g} | {r['read']:.3g} | {r['training']:.3g} |"
        f" {r['read_over_training']:.1f} |"
        for r in rows
    ]
    return (
        "\n".join(lines)
        + f"\n\nSamples a second; file of {rows[0]['samples']} samples, batch {rows[0]['batch']},"
        f" {rows[0]['device']}."
    )
