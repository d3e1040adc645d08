r"""How far data parallel training scales: measured here, predicted elsewhere, with the formulas on
the table.

    python -m physics_hybrid scaling [--ranks 1 2] [--output scaling.json] [key=value ...]

Measured on this machine, with torchrun and gloo: the step without and with gradient exchange at
each number of ranks, and an all-reduce of buffers of several sizes, to which the ring model is
fitted:

    t_allreduce(n, S) = 2 (n - 1) a + 2 (n - 1) / n * S / b          a: latency per hop (s), b: bandwidth (bytes/s)

(Patarasuk and Yuan, J. Parallel Distrib. Comput. 69 (2009) 117, eq. 3). Predicted for n GPUs in
nodes of g, hierarchical rings:

    t_comm = t_allreduce(min(n, g), S; node) + t_allreduce(n / g, S / min(n, g); network)
    t_step = t_compute + max(0, t_comm - overlap * t_backward),       efficiency = t_compute / t_step

with S the bytes of all gradients and t_backward = 2/3 t_compute. The assumptions are options and
are printed with the table.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from physics_hybrid.grid import name_of

SIZES = tuple(4**k * 1024 for k in range(2, 8))  # 16 KiB to 16 MiB


def ring(n: float, size: float, latency: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes over n ranks."""
    return 0.0 if n <= 1 else 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth


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
) -> list[dict]:
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

    def median(step) -> float:
        times = []
        for _ in range(repeats + 2):  # the first two warm up
            if machine.world_size > 1:
                dist.barrier()
            times.append(seconds(step, machine))
        return statistics.median(times[2:])

    def without_exchange():
        b.problem.loss(trainer.model, b.batch)[0].backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    result = {
        "ranks": machine.world_size,
        "threads": torch.get_num_threads(),
        "compute_s": median(without_exchange),
        "step_s": median(lambda: trainer.step([b.batch])),
        "gradient_bytes": sum(p.numel() * p.element_size() for p in trainer.model.parameters()),
        "batch": list(b.batch.u.shape),
        "device": (
            str(machine.device)
            if machine.device.type != "cuda"
            else torch.cuda.get_device_name(machine.device)
        ),
        "cores": os.cpu_count(),
    }
    if machine.world_size > 1:
        result["allreduce_s"] = {}
        for size in SIZES:
            buffer = torch.zeros(size // 4, device=machine.device)
            result["allreduce_s"][size] = median(lambda: dist.all_reduce(buffer))
    if machine.writes:
        Path(output).write_text(json.dumps(result))
    finalize()


def measure(ranks: list[int], overrides: list[str], repeats: int) -> list[dict]:
    """Run `worker` with each number of ranks under torchrun, the cores shared out evenly."""
    out = []
    cores = os.cpu_count() or 1
    root = str(Path(__file__).resolve().parents[2])
    with tempfile.TemporaryDirectory() as folder:
        for n in ranks:
            path = str(Path(folder) / f"{n}.json")
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": str(max(1, cores // max(ranks))),
                "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", ""),
            }
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "physics_hybrid",
                    "torchrun",
                    "--standalone",
                    "--nproc_per_node",
                    str(n),
                    "-m",
                    "physics_hybrid",
                    "scaling",
                    "--worker",
                    path,
                    "--repeats",
                    str(repeats),
                    *overrides,
                ],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            out.append(json.loads(Path(path).read_text()))
    return out


def tables(result: dict) -> str:
    """What was measured, the model fitted to it, and what is predicted, as Markdown."""
    measured = result["measured"]
    batch = name_of(measured[0]["batch"])
    load = (
        f"; others kept it busy, load average {result['load_before']:.1f} before the start"
        if (result["load_before"] or 0) > 0.5
        else ""
    )
    lines = [
        (
            f"Measured on one machine ({measured[0]['device']}, {measured[0]['cores']} cores; batch"
            f" {batch} a rank: perfect scaling is a constant step{load})"
        ),
        "",
    ]
    lines += [
        "| ranks | threads a rank | compute, ms | step with exchange, ms | efficiency |",
        "|---|---|---|---|---|",
    ]
    base = measured[0]["step_s"]
    lines += [
        f"| {m['ranks']} | {m['threads']} | {m['compute_s'] * 1e3:.1f} | {m['step_s'] * 1e3:.1f} |"
        f" {base / m['step_s']:.2f} |"
        for m in measured
    ]
    if "fit" in result:
        f = result["fit"]
        lines += [
            "",
            (
                f"Ring all-reduce fitted to {f['points']} points: latency"
                f" {f['latency_s'] * 1e6:.0f} us a hop, bandwidth"
                f" {f['bandwidth_bytes_per_s'] / 1e9:.2f} GB/s, worst point off by"
                f" {f['worst_relative_error']:.0%}."
            ),
        ]
    lines += [
        "",
        "Predicted, not measured, and an upper bound (no rank is late, no data is read; compute_s"
        " is assumed, not that of this model), from t_step = t_compute + max(0, t_comm - overlap"
        " 2/3 t_compute); assumptions: "
        + ", ".join(f"{k} {v:g}" for k, v in result["assumptions"].items()),
        "",
    ]
    lines += ["| GPUs | communication, ms | step, ms | efficiency |", "|---|---|---|---|"]
    lines += [
        f"| {row['gpus']} | {row['communication_s'] * 1e3:.2f} | {row['step_s'] * 1e3:.1f} |"
        f" {row['efficiency']:.3f} |"
        for row in result["predicted"]
    ]
    return "\n".join(lines)
