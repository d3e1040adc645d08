"""How far data parallel training scales: measured here, predicted elsewhere."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main(arguments: list[str]) -> None:
    from physics_hybrid.evidence import scaling as about
    from physics_hybrid.evidence.scaling import fit, measure, predict, ring, tables, worker

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ranks",
        type=int,
        nargs="+",
        default=[1, 2],
        help="numbers of ranks to measure on this machine",
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", default="scaling.json")
    parser.add_argument(
        "--gpus",
        type=int,
        nargs="+",
        default=[8, 16, 32, 64, 128, 256, 512],
        help="numbers of GPUs to predict for",
    )
    parser.add_argument(
        "--compute-ms",
        type=float,
        default=None,
        help="step of one GPU without exchange, ms (assumed: --sample-ms times the batch)",
    )
    parser.add_argument(
        "--sample-ms",
        type=float,
        default=4.3,
        help="forward and backward of one 96x48x48 sample, ms (H200, 52 M parameters, float32)",
    )
    parser.add_argument("--gpu-batch", type=int, default=8)
    parser.add_argument("--per-node", type=int, default=4)
    parser.add_argument(
        "--node-bandwidth",
        type=float,
        default=200e9,
        help="bytes/s of a ring inside a node (NVLink)",
    )
    parser.add_argument(
        "--network-bandwidth",
        type=float,
        default=20e9,
        help="bytes/s of a ring between nodes (200 Gb/s, 80 %% of it)",
    )
    parser.add_argument("--latency", type=float, default=10e-6, help="seconds per hop")
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.7,
        help="share of the backward pass that hides communication",
    )
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    if given.worker:
        worker(given.overrides, given.repeats, given.worker)
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    measured = measure(given.ranks, given.overrides, given.repeats)
    points = [
        (m["ranks"], int(size), t) for m in measured for size, t in m.get("allreduce_s", {}).items()
    ]
    result: dict = {"measured": measured, "load_before": load}
    if points:
        latency, bandwidth = fit(points)
        worst = max(abs(ring(n, s, latency, bandwidth) / t - 1) for n, s, t in points)
        result["fit"] = {
            "points": len(points),
            "latency_s": latency,
            "bandwidth_bytes_per_s": bandwidth,
            "worst_relative_error": worst,
        }
    size = measured[0]["gradient_bytes"]
    compute = (given.compute_ms or given.sample_ms * given.gpu_batch) / 1e3
    assumptions = {
        k: getattr(given, k)
        for k in (
            "per_node",
            "node_bandwidth",
            "network_bandwidth",
            "latency",
            "overlap",
            "gpu_batch",
        )
    } | {"compute_s": compute, "gradient_bytes": size}
    table = predict(
        given.gpus,
        compute,
        size,
        given.per_node,
        (given.latency, given.node_bandwidth),
        (given.latency, given.network_bandwidth),
        given.overlap,
    )
    result |= {"assumptions": assumptions, "predicted": table}
    print(tables(result))
    Path(given.output).write_text(json.dumps(result, indent=1))
