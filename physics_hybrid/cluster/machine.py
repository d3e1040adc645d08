"""Which machine this is: joins the processes that `processes.detect` found, and chooses a device.

They meet through PhysicsNeMo's DistributedManager.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from physics_hybrid.cluster.memory import keep_freed
from physics_hybrid.cluster.processes import Layout, detect, is_loopback, plural


@dataclass(frozen=True)
class Machine:
    """rank of world_size processes, on `device`; `backend` is None without a process group."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    nodes: int = 1
    method: str = "one process"
    backend: str | None = None
    local_size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files (rank 0)."""
        return self.rank == 0

    @property
    def cores(self) -> int:
        """CPU cores of this process: those it may use, shared with the other ranks of its node."""
        return max(1, _cores() // self.local_size)

    def __str__(self) -> str:
        threads = torch.get_num_threads()
        name = f"{threads} {plural('thread', threads)}"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return (
            f"rank {self.rank} of {self.world_size} on {self.nodes} {plural('node', self.nodes)},"
            f" {self.device} ({name}), {self.backend or 'no process group'}, detected:"
            f" {self.method}"
        )


#: How long ranks wait for one of them that solves or copies data; that a rank is gone is the
#: heartbeat's to find out.
WAIT = timedelta(hours=12)

#: How long ranks wait for all to be there at the start, where there is no heartbeat yet: Python may
#: take minutes on a busy file system.
MEETING = timedelta(minutes=10)

#: The layout of the process group that `initialize` made; its own exports would hide how it was
#: detected.
_joined: Layout | None = None


def initialize(device: str = "auto") -> Machine:
    """Find this process's place, join the others through DistributedManager, and choose a device.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are exported where there are several
    processes; for one, the environment is left as it was and no process group is made. Called again
    it returns the same machine.

    Parameters
    ----------
    device : auto (CUDA, else Apple MPS, else CPU), cpu, cuda or mps.

    Raises
    ------
    RuntimeError
        The device asked for is not there, there are more processes than GPUs on a node, the
        launcher's variables contradict each other (see `detect`), the processes cannot meet, or not
        all of them joined.
    """
    global _joined
    available = _available(device)

    from physicsnemo.distributed import DistributedManager

    again = DistributedManager.is_initialized()
    layout = _joined if again and _joined else detect(os.environ)
    several = layout.world_size > 1
    chosen = device
    if device == "auto":
        chosen = _best(available, several)
    if several and chosen == "mps":
        raise RuntimeError(
            f"training.device=mps runs in one process and {layout.world_size} were launched; use"
            " training.device=cpu"
        )
    backend = _backend(chosen) if several else None
    index = _device_index(layout, chosen)
    if not again:
        keep_freed()
        _share_threads(layout)
        if backend is not None:
            _join(layout, chosen, backend, index)
        else:
            _stay_alone()
        _joined = layout
        if layout.note and layout.rank == 0:
            print(f"WARNING: {layout.note}", file=sys.stderr, flush=True)
    _check_all_joined(layout)
    where = torch.device("cuda", index) if chosen == "cuda" else torch.device(chosen)
    return Machine(
        rank=layout.rank,
        world_size=layout.world_size,
        device=where,
        local_rank=layout.local_rank,
        nodes=layout.nodes,
        method=layout.method,
        backend=backend,
        local_size=layout.local_size,
    )


def _available(device: str) -> dict[str, bool]:
    """Which kinds of device are here. Raises RuntimeError where `device` is not among them."""
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise RuntimeError(f"training.device must be auto, cpu, cuda or mps; got {device!r}")
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device != "auto" and not available[device]:
        raise RuntimeError(
            f"training.device={device} was asked for, and this machine has none; use"
            " training.device=auto"
        )
    return available


def _best(available: dict[str, bool], several: bool) -> str:
    """What training.device=auto stands for: Apple's MPS has no process groups."""
    if available["cuda"]:
        return "cuda"
    if available["mps"] and not several:
        return "mps"
    return "cpu"


def _backend(chosen: str) -> str:
    nccl = chosen == "cuda" and torch.distributed.is_nccl_available()
    return "nccl" if nccl else "gloo"


def _check_all_joined(layout: Layout) -> None:
    """Raise RuntimeError where DistributedManager has made something else of this process."""
    from physicsnemo.distributed import DistributedManager

    manager = DistributedManager()
    members = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    wanted = (layout.rank, layout.world_size, layout.world_size)
    if (manager.rank, manager.world_size, members) != wanted:
        raise RuntimeError(
            f"this is rank {layout.rank} of {layout.world_size} ({layout.method}), and"
            f" DistributedManager made it {manager.rank} of {manager.world_size} in a group of"
            f" {members}: not all processes would train together"
        )


def agreed(value: Any) -> Any:
    """The value that rank 0 has, on all ranks. All must call it."""
    box = [value]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def finalize() -> None:
    """Leave the process group, if there is one."""
    global _joined
    from physicsnemo.distributed import DistributedManager

    DistributedManager.cleanup()
    _joined = None


def _device_index(layout: Layout, chosen: str) -> int:
    """The GPU of this process among those it can see.

    Where it computes on the CPU, one that DistributedManager accepts.
    """
    count = torch.cuda.device_count()
    if chosen != "cuda":
        return layout.local_rank % count if count else layout.local_rank
    one_visible = "," not in os.environ.get("CUDA_VISIBLE_DEVICES", ",")
    if count == 1 and layout.local_size > 1 and one_visible:
        return 0  # the launcher gave each process a GPU of its own, which each sees as the first
    if layout.local_rank >= count:
        raise RuntimeError(
            f"{socket.gethostname()} has {count} {plural('GPU', count)} for the {layout.local_size}"
            f" processes on it: start at most {count} a node, or use training.device=cpu"
        )
    return layout.local_rank


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_threads(layout: Layout) -> None:
    """Ranks of one node share its cores.

    Each would start a thread on every one of them, and they would wait for each other.
    """
    if layout.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, _cores() // layout.local_size)))


def _join(layout: Layout, chosen: str, backend: str, index: int) -> None:
    from physicsnemo.distributed import DistributedManager

    os.environ.update(
        RANK=str(layout.rank),
        WORLD_SIZE=str(layout.world_size),
        LOCAL_RANK=str(index),
        MASTER_ADDR=layout.master_addr,
        MASTER_PORT=str(layout.master_port),
        PHYSICSNEMO_DISTRIBUTED_INITIALIZATION_METHOD="ENV",
    )
    if backend == "gloo" and layout.nodes > 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
        # gloo takes the one of the host's name, which may be the loopback (127.0.1.1)
        interface = _interface_towards(layout.master_addr)
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
    try:
        with _corrected_process_group(backend, chosen):
            DistributedManager.initialize()
    except (RuntimeError, ValueError, OSError) as error:
        # it counts as initialised, and would leave a group that does not exist at exit
        DistributedManager._shared_state.clear()
        raise RuntimeError(
            f"rank {layout.rank} of {layout.world_size} could not join the others at"
            f" {layout.master_addr}:{layout.master_port} with {backend} ({layout.method}): {error}"
        ) from error


@contextlib.contextmanager
def _corrected_process_group(backend: str, chosen: str) -> Iterator[None]:
    """What DistributedManager hands to `init_process_group`, put right.

    Its one time-out would be that of the first meeting and of every later wait. It passes
    device_id=cpu, which gloo refuses (PhysicsNeMo issue 1936), and sets
    TORCH_NCCL_ASYNC_ERROR_HANDLING=0, with which a lost rank hangs the others to the walltime. NCCL
    reads the variable when a group is made, so that it is set at that moment, and stays set for
    groups made later.
    """
    distributed: Any = torch.distributed
    original = distributed.init_process_group
    handling = os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")

    def corrected(_backend: str, device_id: Any = None, **rest: Any) -> None:
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = handling
        store, *_ = next(distributed.rendezvous("env://", timeout=MEETING))
        # as torch does where it makes the store itself
        store = distributed.PrefixStore("default_pg", store)
        if chosen == "cuda":
            rest["device_id"] = device_id
        original(backend, **rest, store=store, timeout=WAIT)

    distributed.init_process_group = corrected
    try:
        yield
    finally:
        distributed.init_process_group = original
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = handling


def _stay_alone() -> None:
    """DistributedManager for one process.

    It must see nothing that could start a process group, and leave nothing behind.
    """
    from physicsnemo.distributed import DistributedManager

    hidden = (
        "RANK",
        "WORLD_SIZE",
        "SLURM_PROCID",
        "OMPI_COMM_WORLD_RANK",
        "PHYSICSNEMO_DISTRIBUTED_INITIALIZATION_METHOD",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    )
    before = {k: os.environ.pop(k) for k in hidden if k in os.environ}
    try:
        with warnings.catch_warnings():
            # "Could not initialize using ENV, SLURM or OPENMPI": right for one process
            warnings.simplefilter("ignore")
            DistributedManager.initialize()
    finally:
        os.environ.pop("TORCH_NCCL_ASYNC_ERROR_HANDLING", None)
        os.environ.update(before)


def _interface_towards(host: str) -> str | None:
    """The network interface that reaches `host`; None where that cannot be told."""
    try:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # no packet is sent: the kernel chooses the address it would send from
            probe.connect((host, 9))
            own = probe.getsockname()[0]
            names = {}
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # an interface without an IPv4 address
                    # SIOCGIFADDR
                    answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))
                    names[socket.inet_ntoa(answer[20:24])] = name
    except (OSError, ImportError):
        return None
    if not is_loopback(own):
        return names.get(own)
    outward = [name for address, name in names.items() if not is_loopback(address)]
    return outward[0] if len(outward) == 1 else None
