"""How many processes were launched, and which of them this one is.

Read from the variables that launchers leave behind.

PhysicsNeMo's DistributedManager knows torchrun, Open MPI and SLURM, and where it cannot tell it
goes on as "0 of 1": an allocation of many nodes then trains the same model many times. Here PBS,
PMI and PALS are known too, and what cannot be told is an error.
"""

from __future__ import annotations

import math
import re
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

LOOPBACK = "127.0.0.1"

#: Ports for the first meeting of the ranks where MASTER_PORT is not set: above those that Linux
#: gives to outgoing connections.
PORTS = range(61000, 65536)


#: The lines of a PBS node file, given its path.
ReadNodefile = Callable[[str], list[str]]


@dataclass(frozen=True)
class Layout:
    """One process among those that were launched; `method` says how it was detected, `note` what a
    person should know.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    nodes: int = 1
    master_addr: str = LOOPBACK
    master_port: int = PORTS[0]
    method: str = "one process"
    note: str = ""


@dataclass(frozen=True)
class Launcher:
    """The variables a launcher gives its processes; of several names the first one set counts.

    `job`: what is the same in all processes of a launch and differs between launches.
    """

    method: str
    rank: str
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    job: tuple[str, ...] = ("PBS_JOBID",)


TORCHRUN = Launcher(
    "torchrun",
    "RANK",
    ("WORLD_SIZE",),
    ("LOCAL_RANK",),
    ("LOCAL_WORLD_SIZE",),
    ("GROUP_WORLD_SIZE",),
)
LAUNCHERS = (
    Launcher(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        job=("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PBS_JOBID"),
    ),
    # With PALS_PMI=pmix PALS gives no size at all; the job script exports WORLD_SIZE.
    Launcher(
        "Cray PALS",
        "PALS_RANKID",
        ("PMI_SIZE", "WORLD_SIZE"),
        ("PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
        ("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
        job=("PALS_APID", "PBS_JOBID"),
    ),
    # Ahead of SLURM: Hydra starts its proxies with srun, and its processes inherit the proxy's
    # SLURM_PROCID.
    Launcher(
        "MPICH/PMI",
        "PMI_RANK",
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
        job=("PBS_JOBID", "SLURM_JOB_ID"),
    ),
    # SLURM_NTASKS may be that of the whole job (an interactive step has one task).
    Launcher(
        "SLURM",
        "SLURM_PROCID",
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        ("SLURM_LOCALID",),
        (),
        ("SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
        job=("SLURM_JOB_ID",),
    ),
)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().split()


def detect(
    environ: Mapping[str, str],
    read_nodefile: ReadNodefile = _lines,
    hostname: str = socket.gethostname(),
) -> Layout:
    """The layout that the environment of a process describes.

    Asked in this order: RANK and WORLD_SIZE (torchrun), Open MPI, Cray PALS, MPICH and Intel MPI,
    SLURM (inside a step), a slot of PBS_NODEFILE (pbsdsh); else this is one process.

    Parameters
    ----------
    environ : the variables; nothing else of the machine is asked.
    read_nodefile : the lines of a PBS node file, one for each slot (mpiprocs).
    hostname : of this node.

    Raises
    ------
    RuntimeError
        The variables contradict each other, or leave open what all processes must agree on.
    """
    environ = {k: v for k, v in environ.items() if v}
    found = [launcher for launcher in LAUNCHERS if _has_started(launcher, environ)]
    if "RANK" in environ:
        layout = _from_environment(environ, found, read_nodefile, hostname)
    elif found:
        layout = _from_launcher(found[0], environ, read_nodefile)
    elif _whole(environ, "WORLD_SIZE") not in (None, 1):
        raise RuntimeError(
            f"WORLD_SIZE={environ['WORLD_SIZE']}, and neither RANK nor a launcher's variables say"
            " which of them this process is: unset it, or start with torchrun or mpirun"
        )
    # the job script is task "1"; pbsdsh's are "00000002" or, with TORQUE, "2"
    elif environ.get("PBS_TASKNUM", "1") != "1":
        layout = _from_slot(environ, read_nodefile, hostname)
    else:
        layout = Layout(master_port=_port(environ, ("PBS_JOBID",)))
    return replace(layout, note=_idle(layout, environ, read_nodefile))


def _has_started(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether its rank is set; SLURM sets one in an allocation, too, where no step has begun."""
    if launcher.method == "SLURM" and "SLURM_STEP_ID" not in environ:
        return False
    return launcher.rank in environ


# --- the ways to be launched


def _from_environment(
    environ: Mapping[str, str], others: list[Launcher], read_nodefile: ReadNodefile, hostname: str
) -> Layout:
    """RANK and WORLD_SIZE: torchrun, or set by hand."""
    if "WORLD_SIZE" not in environ:
        raise RuntimeError(
            f"RANK={environ['RANK']} is set and WORLD_SIZE is not: set both, or neither to run one"
            " process"
        )
    # whatever started torchrun (mpirun, once a node) has its own numbers
    if "TORCHELASTIC_RUN_ID" in environ:
        return _from_launcher(TORCHRUN, environ, read_nodefile)
    rank, size = _given(environ, "RANK"), _given(environ, "WORLD_SIZE")
    for other in others:
        their_rank, their_size = _whole(environ, other.rank), _first(environ, other.size)[1]
        if their_rank != rank or their_size not in (None, size):
            theirs = f"{their_rank}" if their_size is None else f"{their_rank} of {their_size}"
            raise RuntimeError(
                f"RANK={rank} and WORLD_SIZE={size}, and this is process {theirs} of"
                f" {other.method}: unset RANK and WORLD_SIZE, they are left from something else"
            )
    local = {}
    # DistributedManager would divide by the number of GPUs, 0 on a CPU
    if size > 1 and "LOCAL_RANK" not in environ:
        hosts: list[str] = []
        if "PBS_NODEFILE" in environ:
            hosts = [_short(h) for h in _nodefile(environ, read_nodefile)]
        if is_loopback(environ.get("MASTER_ADDR", "")):
            local = {"LOCAL_RANK": str(rank)}
        elif len(hosts) == size > rank and hosts[rank] == _short(hostname):
            local = {
                "LOCAL_RANK": str(hosts[:rank].count(hosts[rank])),
                "LOCAL_WORLD_SIZE": str(hosts.count(hosts[rank])),
            }
        else:
            raise RuntimeError(
                f"RANK={rank} and WORLD_SIZE={size} are set and LOCAL_RANK is not: set it to the"
                " number of this process on its node, from 0"
            )
    return _from_launcher(
        replace(TORCHRUN, method="RANK and WORLD_SIZE"), {**environ, **local}, read_nodefile
    )


def _from_launcher(
    launcher: Launcher, environ: Mapping[str, str], read_nodefile: ReadNodefile
) -> Layout:
    rank = _given(environ, launcher.rank)
    size_name, size = _first(environ, launcher.size)
    if size is None:
        raise RuntimeError(
            f"{launcher.rank}={rank} is set ({launcher.method}) and {' or '.join(launcher.size)} is"
            " not, so that the number of processes is not known: export WORLD_SIZE in the job"
            " script, or use torchrun (pbs/train.pbs)"
        )
    _check_below(launcher.rank, rank, size_name, size)
    if _whole(environ, "WORLD_SIZE") not in (None, size):
        raise RuntimeError(
            f"WORLD_SIZE={environ['WORLD_SIZE']} contradicts {size_name}={size}: unset WORLD_SIZE"
        )
    local_name, local_rank = _first(environ, launcher.local_rank)
    if local_rank is None and size > 1:
        names = " or ".join(launcher.local_rank)
        raise RuntimeError(
            f"{launcher.rank}={rank} and {size_name}={size} are set ({launcher.method}) and {names}"
            " is not: which device of the node is this process's?"
        )
    local_rank = local_rank or 0
    local_size_name, local_size = _first(environ, (*launcher.local_size, "LOCAL_WORLD_SIZE"))
    if local_size is not None:
        _check_below(local_name, local_rank, local_size_name, local_size)
    elif "SLURM_STEP_TASKS_PER_NODE" in environ:
        local_size = _slurm_tasks(
            environ["SLURM_STEP_TASKS_PER_NODE"], _whole(environ, "SLURM_NODEID") or 0
        )
    elif size == 1 or is_loopback(environ.get("MASTER_ADDR", "")):
        local_size = size
    else:
        raise RuntimeError(
            f"{launcher.rank}={rank} and {size_name}={size} are set ({launcher.method}), and not"
            " how many of them share this node, so that devices and cores cannot be shared out:"
            f" set {' or '.join(dict.fromkeys((*launcher.local_size, 'LOCAL_WORLD_SIZE')))}, or"
            " MASTER_ADDR=localhost where all are on this one"
        )
    nodes = _first(environ, launcher.nodes)[1] or math.ceil(size / local_size)
    if launcher in LAUNCHERS and nodes > 1 and is_loopback(environ.get("MASTER_ADDR", "")):
        raise RuntimeError(
            f"MASTER_ADDR={environ['MASTER_ADDR']}, and {launcher.method} started processes on"
            f" {nodes} nodes: each node would wait for itself; set it to the host of rank 0"
        )
    return Layout(
        rank=rank,
        world_size=size,
        local_rank=local_rank,
        local_size=local_size,
        nodes=nodes,
        master_addr=_master(launcher.method, environ, size, nodes, read_nodefile),
        master_port=_port(environ, launcher.job),
        method=launcher.method,
    )


def _from_slot(environ: Mapping[str, str], read_nodefile: ReadNodefile, hostname: str) -> Layout:
    """One process for each line of the node file.

    TORQUE says which line in PBS_VNODENUM. PBS Professional does not, and leaves out PBS_NODEFILE
    too: there, the line is known where a node has one line only, or PBS_VNODENUM is handed over.
    """
    by_hand = (
        "pbsdsh -n I -- env PBS_VNODENUM=I PBS_NODEFILE=<a copy that all nodes can read> python"
        " train.py"
    )
    if "PBS_NODEFILE" not in environ:
        raise RuntimeError(
            f"pbsdsh started this process (PBS_TASKNUM={environ['PBS_TASKNUM']}), and without"
            " PBS_NODEFILE it cannot know how many there are. Use pbs/train.pbs or mpirun, or"
            f" start each slot I with `{by_hand}`. To work alone: RANK=0 WORLD_SIZE=1"
        )
    hosts = _nodefile(environ, read_nodefile)
    here = [i for i, host in enumerate(hosts) if _short(host) == _short(hostname)]
    if not here:
        raise RuntimeError(
            f"this host, {hostname}, is not in PBS_NODEFILE={environ['PBS_NODEFILE']}"
            f" ({', '.join(dict.fromkeys(hosts))}): the file belongs to another job"
        )
    rank = _whole(environ, "PBS_VNODENUM")
    if rank is None:
        if len(here) > 1:
            raise RuntimeError(
                f"PBS_NODEFILE has {len(here)} slots on {hostname}, and PBS_VNODENUM does not say"
                f" which of them is this process's: start each slot I with `{by_hand}`"
            )
        rank = here[0]
    if rank not in here:
        raise RuntimeError(
            f"PBS_VNODENUM={rank}, and the slots of {hostname} in PBS_NODEFILE are"
            f" {', '.join(map(str, here))} (of {len(hosts)})"
        )
    nodes = len({_short(h) for h in hosts})
    master = _master("pbsdsh", environ, len(hosts), nodes, read_nodefile)
    return Layout(
        rank=rank,
        world_size=len(hosts),
        local_rank=here.index(rank),
        local_size=len(here),
        nodes=nodes,
        master_addr=master,
        master_port=_port(environ, ("PBS_JOBID",)),
        method="PBS_NODEFILE",
    )


def _idle(layout: Layout, environ: Mapping[str, str], read_nodefile: ReadNodefile) -> str:
    """A warning where the allocation is larger than what was launched in it."""
    if "PBS_NODEFILE" not in environ or layout.world_size == 1 and layout.method != "one process":
        return ""
    try:
        hosts = _nodefile(environ, read_nodefile)
    except RuntimeError:
        # the file lies on the first node only, and these processes do not need it
        if layout.world_size > 1:
            return ""
        raise
    nodes = len({_short(h) for h in hosts})
    how = (
        "start on all of them with `qsub pbs/train.pbs` (torchrun) or `qsub pbs/train_mpi.pbs`"
        " (mpirun), or from here as these scripts do"
    )
    if layout.method == "one process" and len(hosts) > 1:
        return (
            f"PBS gave this job {len(hosts)} slots on {nodes} {plural('node', nodes)} and this is"
            f" one process: {len(hosts) - 1} {plural('slot', len(hosts) - 1)} will be idle; {how}"
        )
    if layout.nodes < nodes:
        return (
            f"PBS gave this job {nodes} nodes and {layout.method} started processes on"
            f" {layout.nodes}: {nodes - layout.nodes} will be idle; {how}"
        )
    return ""


# --- reading variables


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    """The whole number that a variable holds; None where it is not set."""
    return _given(environ, name) if name in environ else None


def _given(environ: Mapping[str, str], name: str) -> int:
    """The whole number that a variable holds that is set."""
    value = environ[name]
    if not re.fullmatch(r"[0-9]+", value):
        raise RuntimeError(f"{name}={value!r} is not a whole number")
    return int(value)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, int | None]:
    name = next((n for n in names if n in environ), "")
    return name, _whole(environ, name)


def _check_below(name: str, value: int, limit_name: str, limit: int) -> None:
    if value >= limit:
        raise RuntimeError(
            f"{name}={value} and {limit_name}={limit} contradict each other: ranks count from 0"
        )


def _master(
    method: str, environ: Mapping[str, str], size: int, nodes: int, read_nodefile: ReadNodefile
) -> str:
    """Where rank 0 listens."""
    if "MASTER_ADDR" in environ:
        return environ["MASTER_ADDR"]
    if nodes == 1:
        return LOOPBACK
    if "PBS_NODEFILE" in environ:
        return _nodefile(environ, read_nodefile)[0]
    if "SLURM_STEP_NODELIST" in environ:  # gpu[003-004,7],login1: the first is gpu003
        first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", environ["SLURM_STEP_NODELIST"])
        if first:
            return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])
    raise RuntimeError(
        f"{size} processes on {nodes} nodes ({method}), MASTER_ADDR is not set and there is no"
        " PBS_NODEFILE to take it from: export MASTER_ADDR=<host of rank 0> and hand it on (mpirun"
        " -x MASTER_ADDR ...), or use pbs/train_mpi.pbs"
    )


def _port(environ: Mapping[str, str], job: tuple[str, ...]) -> int:
    """MASTER_PORT, else one that follows from the job, so that two jobs on one node do not meet."""
    given = _whole(environ, "MASTER_PORT")
    if given is not None:
        return given
    name = next((environ[k] for k in job if k in environ), "")
    return PORTS[zlib.crc32(name.encode()) % len(PORTS)]


def _nodefile(environ: Mapping[str, str], read_nodefile: ReadNodefile) -> list[str]:
    path = environ["PBS_NODEFILE"]
    try:
        hosts = read_nodefile(path)
    except OSError as error:
        raise RuntimeError(
            f"PBS_NODEFILE={path} cannot be read ({error.strerror or error}); it lies on the first"
            " node of a job only"
        ) from error
    if not hosts:
        raise RuntimeError(f"PBS_NODEFILE={path} is empty")
    return hosts


def _slurm_tasks(text: str, node: int) -> int:
    """Tasks on a node from SLURM_STEP_TASKS_PER_NODE, such as 4(x2),3."""
    counts: list[int] = []
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(tasks)] * int(times or 1)
    return counts[node]


def _short(host: str) -> str:
    """Node files hold full names, `hostname` often short ones."""
    return host if re.fullmatch(r"[0-9.]+", host) else host.split(".")[0].lower()


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
