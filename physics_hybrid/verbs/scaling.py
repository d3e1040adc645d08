"""How far data parallel training scales: measured here, predicted elsewhere.

    python -m physics_hybrid scaling [--ranks 1 2] [--output scaling.json] [key=value ...]

Measured on this machine, with torchrun and gloo: the step without and with gradient exchange at
each number of ranks, and an all-reduce of buffers of several sizes, to which the ring model is
fitted:

    t_allreduce(n, S) = 2 (n - 1) a + 2 (n - 1) / n * S / b

with the latency a per hop (s) and the bandwidth b (bytes/s). Predicted for n GPUs in nodes of g,
hierarchical rings:

    t_comm = t_allreduce(min(n, g), S; node) + t_allreduce(n / g, S / min(n, g); network)
    t_step = t_compute + max(0, t_comm - overlap * t_backward)
    efficiency = t_compute / t_step

with S the bytes of all gradients and t_backward = 2/3 t_compute. The assumptions are options and
are printed with the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from physics_hybrid.command_line import CONF, readable_errors
from physics_hybrid.configuration import check_overrides


def main(arguments: list[str]) -> None:
    given = _parser().parse_args(arguments)
    from physics_hybrid.evidence.scaling import Job, measure_and_predict, tables, worker
    from physics_hybrid.writing import write_text

    if given.worker:
        with readable_errors():
            worker(given.overrides, given.repeats, given.worker)
        return
    compute_ms = given.compute_ms or given.sample_ms * given.gpu_batch
    job = Job(
        per_node=given.per_node,
        node_bandwidth=given.node_bandwidth,
        network_bandwidth=given.network_bandwidth,
        latency=given.latency,
        overlap=given.overlap,
        gpu_batch=given.gpu_batch,
        compute_s=compute_ms / 1e3,
    )
    with readable_errors():
        check_overrides(CONF, "config", given.overrides)
        result = measure_and_predict(given.ranks, given.overrides, given.repeats, given.gpus, job)
        print(tables(result))
        write_text(Path(given.output), json.dumps(result, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    return parser
