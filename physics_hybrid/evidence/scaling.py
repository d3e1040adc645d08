"""How far data parallel training scales: measured here, predicted elsewhere, with the formulas on
the table.

Measured on this machine, with torchrun and gloo: the step without and with gradient exchange at
each number of ranks, and an all-reduce of buffers of several sizes, to which the ring model is
fitted:

    t_allreduce(n, S) = 2 (n - 1) a + 2 (n - 1) / n * S / b

with the latency a per hop (s) and the bandwidth b (bytes/s) (Patarasuk and Yuan, J. Parallel
Distrib. Comput. 69 (2009) 117, eq. 3). Predicted for n GPUs in nodes of g, hierarchical rings:

    t_comm = t_allreduce(min(n, g), S; node) + t_allreduce(n / g, S / min(n, g); network)
    t_step = t_compute + max(0, t_comm - overlap * t_backward)
    efficiency = t_compute / t_step

with S the bytes of all gradients and t_backward = 2/3 t_compute. The assumptions are options and
are printed with the table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from physics_hybrid.grid import name_of
from physics_hybrid.writing import write_text

SIZES = tuple(4**k * 1024 for k in range(2, 8))  # 16 KiB to 16 MiB


@dataclass(frozen=True)
class Job:
    """What is assumed of a job on other machines.

    per_node : GPUs in a node.
    node_bandwidth, network_bandwidth : of a ring inside a node, and between nodes, bytes/s.
    latency : of a hop, s.
    overlap : share of the backward pass that hides communication.
    gpu_batch : samples a GPU and step.
    compute_s : step of one GPU without exchange, s.
    """

    per_node: int
    node_bandwidth: float
    network_bandwidth: float
    latency: float
    overlap: float
    gpu_batch: int
    compute_s: float


def measure_and_predict(
    ranks: list[int], overrides: list[str], repeats: int, gpus: list[int], job: Job
) -> dict[str, Any]:
    """The content of scaling.json."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    measured = measure(ranks, overrides, repeats)
    result: dict[str, Any] = {"measured": measured, "load_before": load}
    points = _points(measured)
    if points:
        result["fit"] = _fitted(points)
    size = measured[0]["gradient_bytes"]
    result["assumptions"] = {**dataclasses.asdict(job), "gradient_bytes": size}
    result["predicted"] = predict(
        gpus=gpus,
        compute=job.compute_s,
        size=size,
        per_node=job.per_node,
        node=(job.latency, job.node_bandwidth),
        network=(job.latency, job.network_bandwidth),
        overlap=job.overlap,
    )
    return result


def _points(measured: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """(ranks, bytes, seconds) of every all-reduce."""
    points = []
    for row in measured:
        for size, time in row.get("allreduce_s", {}).items():
            points.append((row["ranks"], int(size), time))
    return points


def _fitted(points: list[tuple[int, int, float]]) -> dict[str, Any]:
    """The ring model of the points, and how far off its worst one is."""
    latency, bandwidth = fit(points)
    errors = [abs(ring(n, size, latency, bandwidth) / time - 1) for n, size, time in points]
    return {
        "points": len(points),
        "latency_s": latency,
        "bandwidth_bytes_per_s": bandwidth,
        "worst_relative_error": max(errors),
    }


def ring(n: float, size: float, latency: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes over n ranks."""
    if n <= 1:
        return 0.0
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth


def fit(measured: list[tuple[int, int, float]]) -> tuple[float, float]:
    """(latency, bandwidth) of the ring model from (ranks, bytes, seconds), least squares in
    relative error.
    """
    rows = np.array([[2 * (n - 1) / t, 2 * (n - 1) / n * s / t] for n, s, t in measured])
    latency, inverse = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
    return max(float(latency), 0.0), 1 / max(float(inverse), 1e-15)


def predict(
    gpus: list[int],
    compute: float,
    size: float,
    per_node: int,
    node: tuple[float, float],
    network: tuple[float, float],
    overlap: float,
) -> list[dict[str, Any]]:
    """Step time and efficiency for each number of GPUs; node and network are (latency,
    bandwidth).
    """
    out = []
    for n in gpus:
        inside = min(n, per_node)
        comm = ring(inside, size, *node) + ring(n / inside, size / inside, *network)
        step = compute + max(0.0, comm - overlap * compute * 2 / 3)
        out.append(
            {"gpus": n, "communication_s": comm, "step_s": step, "efficiency": compute / step}
        )
    return out


def worker(overrides: list[str], repeats: int, output: str) -> None:
    """One rank of a measurement: launched by torchrun."""
    import torch
    import torch.distributed as dist

    from physics_hybrid.cluster.machine import finalize
    from physics_hybrid.evidence.bench import bench, seconds

    b = bench(overrides)
    machine, trainer = b.machine, b.trainer

    def median(step: Callable[[], object]) -> float:
        times = []
        for _ in range(repeats + 2):  # the first two warm up
            if machine.world_size > 1:
                dist.barrier()
            times.append(seconds(step, machine))
        return statistics.median(times[2:])

    def without_exchange() -> None:
        b.problem.loss(trainer.model, b.batch)[0].backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    on_gpu = machine.device.type == "cuda"
    result = {
        "ranks": machine.world_size,
        "threads": torch.get_num_threads(),
        "compute_s": median(without_exchange),
        "step_s": median(partial(trainer.step, [b.batch])),
        "gradient_bytes": sum(p.numel() * p.element_size() for p in trainer.model.parameters()),
        "batch": list(b.batch.u.shape),
        "device": torch.cuda.get_device_name(machine.device) if on_gpu else str(machine.device),
        "cores": os.cpu_count(),
    }
    if machine.world_size > 1:
        times = {}
        for size in SIZES:
            buffer = torch.zeros(size // 4, device=machine.device)
            times[size] = median(partial(dist.all_reduce, buffer))
        result["allreduce_s"] = times
    if machine.writes:
        write_text(output, json.dumps(result))
    finalize()


def measure(ranks: list[int], overrides: list[str], repeats: int) -> list[dict[str, Any]]:
    """Run `worker` with each number of ranks under torchrun, the cores shared out evenly."""
    threads = max(1, (os.cpu_count() or 1) // max(ranks))
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", ""),
    }
    program = [sys.executable, "-m", "physics_hybrid"]
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for n in ranks:
            path = Path(folder) / f"{n}.json"
            launcher = ["torchrun", "--standalone", "--nproc_per_node", str(n)]
            rank = ["-m", "physics_hybrid", "scaling", "--worker", str(path)]
            done = subprocess.run(
                [*program, *launcher, *rank, "--repeats", str(repeats), *overrides],
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            if done.returncode:
                raise RuntimeError(
                    f"the measurement with {n} ranks ended with exit status {done.returncode}; what"
                    " they said stands above"
                )
            out.append(json.loads(path.read_text()))
    return out


def tables(result: dict[str, Any]) -> str:
    """What was measured, the model fitted to it, and what is predicted, as Markdown."""
    fitted = ["", _fit(result["fit"])] if "fit" in result else []
    return "\n".join([*_measured(result), *fitted, "", *_predicted(result)])


def _measured(result: dict[str, Any]) -> list[str]:
    measured = result["measured"]
    first, load = measured[0], result["load_before"] or 0
    busy = ""
    if load > 0.5:
        busy = f"; others kept it busy, load average {load:.1f} before the start"
    lines = [
        (
            f"Measured on one machine ({first['device']}, {first['cores']} cores; batch"
            f" {name_of(first['batch'])} a rank: perfect scaling is a constant step{busy})"
        ),
        "",
        "| ranks | threads a rank | compute, ms | step with exchange, ms | efficiency |",
        "|---|---|---|---|---|",
    ]
    for row in measured:
        compute, step = row["compute_s"] * 1e3, row["step_s"] * 1e3
        efficiency = first["step_s"] / row["step_s"]
        lines.append(
            f"| {row['ranks']} | {row['threads']} | {compute:.1f} | {step:.1f} | {efficiency:.2f} |"
        )
    return lines


def _fit(fitted: dict[str, Any]) -> str:
    return (
        f"Ring all-reduce fitted to {fitted['points']} points: latency"
        f" {fitted['latency_s'] * 1e6:.0f} us a hop, bandwidth"
        f" {fitted['bandwidth_bytes_per_s'] / 1e9:.2f} GB/s, worst point off by"
        f" {fitted['worst_relative_error']:.0%}."
    )


def _predicted(result: dict[str, Any]) -> list[str]:
    assumed = ", ".join(f"{name} {value:g}" for name, value in result["assumptions"].items())
    lines = [
        (
            "Predicted, not measured, and an upper bound (no rank is late, no data is read;"
            " compute_s is assumed, not that of this model), from t_step = t_compute + max(0,"
            f" t_comm - overlap 2/3 t_compute); assumptions: {assumed}"
        ),
        "",
        "| GPUs | communication, ms | step, ms | efficiency |",
        "|---|---|---|---|",
    ]
    for row in result["predicted"]:
        exchange, step = row["communication_s"] * 1e3, row["step_s"] * 1e3
        lines.append(f"| {row['gpus']} | {exchange:.2f} | {step:.1f} | {row['efficiency']:.3f} |")
    return lines
