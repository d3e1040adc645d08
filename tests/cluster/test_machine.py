"""Every way to be launched, as the variables that launchers set; then two real processes that must
meet.

torchrun, Open MPI 4 and Hydra (MPICH 4.0) were recorded; PBS follows OpenPBS's
src/resmom/start_exec.c; the others follow documentation and logs.
"""

import os
import shutil
import socket
import subprocess
import sys
import zlib
from datetime import timedelta

import pytest
import torch

from physics_hybrid.cluster import machine as launch
from physics_hybrid.cluster.machine import Machine, finalize, initialize
from physics_hybrid.cluster.processes import PORTS, Layout, detect
from tests.conftest import ROOT


def recorded(text: str) -> dict[str, str]:
    return dict(line.strip().split("=", 1) for line in text.strip().splitlines())


#: A PBS Professional job script; spawned tasks (pbsdsh) get the same without PBS_NODEFILE, and
#: their number as eight hexadecimal digits.
PBS = recorded("""
    PBS_ENVIRONMENT=PBS_BATCH
    PBS_JOBID=48213.pbs01
    PBS_JOBNAME=physics_hybrid
    PBS_NODEFILE=/var/spool/pbs/aux/48213.pbs01
    PBS_NODENUM=0
    PBS_TASKNUM=1
    PBS_MOMPORT=15003
    PBS_O_WORKDIR=/home/mia/physics_hybrid
    PBS_QUEUE=workq
    NCPUS=4
    OMP_NUM_THREADS=4
    TMPDIR=/var/tmp/pbs.48213.pbs01
""")
PBS_TASK = {k: v for k, v in PBS.items() if k != "PBS_NODEFILE"} | {
    "PBS_NODENUM": "1",
    "PBS_TASKNUM": "00000003",
}
NODES = ["gpu01.cluster.local"] * 2 + ["gpu02.cluster.local"] * 2

TORCHRUN = recorded("""
    LOCAL_RANK=1
    RANK=3
    GROUP_RANK=1
    ROLE_RANK=3
    ROLE_NAME=default
    LOCAL_WORLD_SIZE=2
    WORLD_SIZE=4
    GROUP_WORLD_SIZE=2
    ROLE_WORLD_SIZE=4
    MASTER_ADDR=gpu01
    MASTER_PORT=43399
    TORCHELASTIC_RESTART_COUNT=0
    TORCHELASTIC_MAX_RESTARTS=0
    TORCHELASTIC_RUN_ID=bf938004-9537-488c-8387-b132ba3e65f7
    TORCHELASTIC_USE_AGENT_STORE=True
    TORCH_NCCL_ASYNC_ERROR_HANDLING=1
    OMP_NUM_THREADS=1
""")
OPEN_MPI_4 = recorded("""
    OMPI_APP_CTX_NUM_PROCS=2
    OMPI_COMMAND=python
    OMPI_COMM_WORLD_LOCAL_RANK=1
    OMPI_COMM_WORLD_LOCAL_SIZE=2
    OMPI_COMM_WORLD_NODE_RANK=1
    OMPI_COMM_WORLD_RANK=1
    OMPI_COMM_WORLD_SIZE=2
    OMPI_FIRST_RANKS=0
    OMPI_MCA_ess_base_jobid=1988231169
    OMPI_MCA_ess_base_vpid=1
    OMPI_MCA_orte_bound_at_launch=1
    OMPI_MCA_orte_ess_num_procs=2
    OMPI_MCA_orte_hnp_uri=1988231168.0;tcp://10.1.0.2:46729
    OMPI_MCA_orte_num_nodes=1
    OMPI_UNIVERSE_SIZE=2
    PMIX_ID=1988231169.1
    PMIX_NAMESPACE=1988231169
    PMIX_RANK=1
    PMIX_VERSION=4.2.2rc2
""")
OPEN_MPI_5 = recorded("""
    OMPI_COMM_WORLD_LOCAL_RANK=0
    OMPI_COMM_WORLD_LOCAL_SIZE=2
    OMPI_COMM_WORLD_NODE_RANK=0
    OMPI_COMM_WORLD_RANK=2
    OMPI_COMM_WORLD_SIZE=4
    OMPI_UNIVERSE_SIZE=4
    PMIX_NAMESPACE=prterun-gpu01-20311@1
    PMIX_RANK=2
    PRTE_LAUNCHED=1
""")
HYDRA = recorded("""
    HYDI_CONTROL_FD=7
    MPIR_CVAR_CH3_INTERFACE_HOSTNAME=gpu02
    MPI_LOCALNRANKS=2
    MPI_LOCALRANKID=1
    PMI_FD=8
    PMI_RANK=3
    PMI_SIZE=4
""")
INTEL_MPI = recorded("""
    I_MPI_ROOT=/opt/intel/oneapi/mpi/2021.12
    I_MPI_HYDRA_BOOTSTRAP=pbsdsh
    MPI_LOCALNRANKS=2
    MPI_LOCALRANKID=0
    PMI_FD=9
    PMI_RANK=2
    PMI_SIZE=4
    PMI_SPAWNED=0
""")
PALS = recorded("""
    PALS_APID=2f1c4d2e-7a0b-4c58-9f5e-0c1f6a1d8b7a
    PALS_DEPTH=1
    PALS_LOCAL_RANKID=1
    PALS_LOCAL_SIZE=2
    PALS_NODEID=1
    PALS_RANKID=3
    PALS_SPOOL_DIR=/var/run/palsd/2f1c4d2e-7a0b-4c58-9f5e-0c1f6a1d8b7a
    PMI_CONTROL_PORT=20164
    PMI_JOBID=2f1c4d2e-7a0b-4c58-9f5e-0c1f6a1d8b7a
    PMI_LOCAL_RANK=1
    PMI_LOCAL_SIZE=2
    PMI_RANK=3
    PMI_SIZE=4
    PMI_UNIVERSE_SIZE=4
""")
PALS_PMIX = {k: v for k, v in PALS.items() if not k.startswith("PMI_")} | {
    "PALS_PMI": "pmix",
    "PMIX_RANK": "3",
}
SRUN = recorded("""
    SLURM_JOB_ID=9001
    SLURM_JOB_NODELIST=gpu[07-08]
    SLURM_LAUNCH_NODE_IPADDR=10.0.0.250
    SLURM_LOCALID=1
    SLURM_NNODES=2
    SLURM_NODEID=1
    SLURM_NPROCS=3
    SLURM_NTASKS=3
    SLURM_PROCID=2
    SLURM_STEP_ID=0
    SLURM_STEP_NODELIST=gpu[07-08]
    SLURM_STEP_NUM_NODES=2
    SLURM_STEP_NUM_TASKS=3
    SLURM_STEP_TASKS_PER_NODE=1,2
    SLURM_TASKS_PER_NODE=1,2
""")
SBATCH_SCRIPT = {k: v for k, v in SRUN.items() if "STEP" not in k} | {
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
INTERACTIVE_STEP = SRUN | {
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
TORQUE_TASK = PBS | {
    "PBS_TASKNUM": "4",
    "PBS_NODENUM": "1",
    "PBS_VNODENUM": "2",
    "PBS_VERSION": "TORQUE-6.1.2",
}
LOCAL = {"HOME": "/home/mia", "PATH": "/usr/bin", "OMP_NUM_THREADS": "8"}


def port_of(job: str) -> int:
    return PORTS[zlib.crc32(job.encode()) % len(PORTS)]


def look(environ, nodes=NODES, hostname="gpu02") -> Layout:
    def read(path):
        assert path == environ["PBS_NODEFILE"]
        if isinstance(nodes, Exception):
            raise nodes
        return list(nodes)

    return detect(environ, read, hostname)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (TORCHRUN, Layout(3, 4, 1, 2, 2, "gpu01", 43399, "torchrun")),
        # mpirun starts torchrun once a node
        (TORCHRUN | OPEN_MPI_4, Layout(3, 4, 1, 2, 2, "gpu01", 43399, "torchrun")),
        # two torchruns on one machine
        (
            TORCHRUN | {"MASTER_ADDR": "127.0.0.1"},
            Layout(3, 4, 1, 2, 2, "127.0.0.1", 43399, "torchrun"),
        ),
        (OPEN_MPI_4, Layout(1, 2, 1, 2, 1, "127.0.0.1", port_of("1988231169"), "Open MPI")),
        (
            OPEN_MPI_5 | {"MASTER_ADDR": "gpu01", "MASTER_PORT": "29500"},
            Layout(2, 4, 0, 2, 2, "gpu01", 29500, "Open MPI"),
        ),
        (
            OPEN_MPI_5 | PBS,
            Layout(
                2, 4, 0, 2, 2, "gpu01.cluster.local", port_of("prterun-gpu01-20311@1"), "Open MPI"
            ),
        ),
        (
            HYDRA | PBS,
            Layout(3, 4, 1, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "MPICH/PMI"),
        ),
        (
            INTEL_MPI | PBS,
            Layout(2, 4, 0, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "MPICH/PMI"),
        ),
        (
            HYDRA | SRUN | PBS | {"SLURM_PROCID": "1"},
            Layout(3, 4, 1, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "MPICH/PMI"),
        ),
        (
            PALS | PBS,
            Layout(3, 4, 1, 2, 2, "gpu01.cluster.local", port_of(PALS["PALS_APID"]), "Cray PALS"),
        ),
        (
            PALS_PMIX | PBS | {"WORLD_SIZE": "4"},
            Layout(3, 4, 1, 2, 2, "gpu01.cluster.local", port_of(PALS["PALS_APID"]), "Cray PALS"),
        ),
        (SRUN, Layout(2, 3, 1, 2, 2, "gpu07", port_of("9001"), "SLURM")),
        (
            SRUN | {"SLURM_STEP_NODELIST": "login1,gpu[07-08]"},
            Layout(2, 3, 1, 2, 2, "login1", port_of("9001"), "SLURM"),
        ),
        (INTERACTIVE_STEP, Layout(0, 1, 0, 1, 1, "127.0.0.1", port_of("9001"), "SLURM")),
        (SBATCH_SCRIPT, Layout(master_port=port_of(""))),
        (
            TORQUE_TASK,
            Layout(2, 4, 0, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "PBS_NODEFILE"),
        ),
        (
            TORQUE_TASK | {"PBS_VNODENUM": "3"},
            Layout(3, 4, 1, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "PBS_NODEFILE"),
        ),
        (
            PBS_TASK | {"PBS_NODEFILE": "/home/mia/nodes", "PBS_VNODENUM": "2"},
            Layout(2, 4, 0, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "PBS_NODEFILE"),
        ),
        (
            PBS | {"RANK": "3", "WORLD_SIZE": "4"},
            Layout(
                3, 4, 1, 2, 2, "gpu01.cluster.local", port_of("48213.pbs01"), "RANK and WORLD_SIZE"
            ),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "5000"},
            Layout(1, 2, 1, 2, 1, "localhost", 5000, "RANK and WORLD_SIZE"),
        ),
        (
            {
                "RANK": "0",
                "WORLD_SIZE": "2",
                "LOCAL_RANK": "0",
                "LOCAL_WORLD_SIZE": "1",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "5000",
            },
            Layout(0, 2, 0, 1, 2, "a", 5000, "RANK and WORLD_SIZE"),
        ),
        (
            {
                "PMI_RANK": "3",
                "PMI_SIZE": "8",
                "PMI_LOCAL_RANK": "1",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "5000",
            },
            Layout(3, 8, 1, 2, 4, "a", 5000, "MPICH/PMI"),
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "1"},
            Layout(master_port=port_of(""), method="RANK and WORLD_SIZE"),
        ),
        (
            PBS_TASK | {"RANK": "0", "WORLD_SIZE": "1"},
            Layout(master_port=port_of("48213.pbs01"), method="RANK and WORLD_SIZE"),
        ),
        (LOCAL, Layout(master_port=port_of(""))),
        (LOCAL | {"WORLD_SIZE": "1", "RANK": ""}, Layout(master_port=port_of(""))),
    ],
)
def test_the_environment_of_a_launcher_gives_the_layout(environ, expected):
    assert look(environ) == expected


def test_one_slot_a_node_needs_no_number_and_one_node_no_name():
    task = PBS_TASK | {"PBS_NODEFILE": "/home/mia/nodes"}
    assert look(task, ["gpu01", "gpu02", "gpu03"]) == Layout(
        1, 3, 0, 1, 3, "gpu01", port_of("48213.pbs01"), "PBS_NODEFILE"
    )
    alone = look(task | {"PBS_VNODENUM": "1"}, ["gpu02.cluster.local"] * 2)
    assert (alone.rank, alone.world_size, alone.local_rank, alone.nodes, alone.master_addr) == (
        1,
        2,
        1,
        1,
        "127.0.0.1",
    )


def test_all_slots_of_a_job_make_one_world():
    world = [look(TORQUE_TASK | {"PBS_VNODENUM": str(i)}, hostname=NODES[i]) for i in range(4)]
    assert [w.rank for w in world] == [0, 1, 2, 3]
    assert [w.local_rank for w in world] == [0, 1, 0, 1]
    assert len({(w.world_size, w.master_addr, w.master_port) for w in world}) == 1


def test_two_jobs_on_one_node_meet_at_different_ports_above_those_of_outgoing_connections():
    ports = {
        look(TORQUE_TASK | {"PBS_JOBID": f"{n}[7].pbs01"}).master_port for n in range(48213, 48233)
    }
    assert len(ports) == 20
    assert min(ports) > 60999


@pytest.mark.parametrize(
    ("environ", "nodes", "words"),
    [
        (
            PBS | {"PBS_ENVIRONMENT": "PBS_INTERACTIVE"},
            NODES,
            ["4 slots on 2 nodes", "3 slots will be idle", "qsub pbs/train.pbs", "mpirun"],
        ),
        (PBS, NODES, ["3 slots will be idle"]),
        (PBS, NODES[:2], ["2 slots on 1 node ", "1 slot will be idle"]),
        (PBS, NODES[:1], []),
        (OPEN_MPI_4 | PBS, NODES, ["2 nodes", "Open MPI started processes on 1", "1 will be idle"]),
        (OPEN_MPI_5 | PBS, NODES, []),
        # the second node of a job has no node file
        (OPEN_MPI_4 | PBS, FileNotFoundError(2, "No such file or directory"), []),
    ],
)
def test_an_allocation_larger_than_the_launch_is_noted(environ, nodes, words):
    note = look(environ, nodes).note
    assert bool(note) == bool(words), note
    assert all(w in note for w in words), note


@pytest.mark.parametrize(
    ("environ", "nodes", "hostname", "words"),
    [
        (TORCHRUN | {"RANK": "4"}, NODES, "gpu02", ["RANK=4", "WORLD_SIZE=4"]),
        (TORCHRUN | {"LOCAL_RANK": "2"}, NODES, "gpu02", ["LOCAL_RANK=2", "LOCAL_WORLD_SIZE=2"]),
        ({"RANK": "0"}, NODES, "gpu02", ["RANK=0", "WORLD_SIZE"]),
        ({"RANK": "one", "WORLD_SIZE": "2"}, NODES, "gpu02", ["RANK='one'", "whole number"]),
        (
            OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "-2"},
            NODES,
            "gpu02",
            ["OMPI_COMM_WORLD_SIZE='-2'", "whole number"],
        ),
        (
            OPEN_MPI_4 | {"MASTER_PORT": "tcp"},
            NODES,
            "gpu02",
            ["MASTER_PORT='tcp'", "whole number"],
        ),
        (
            OPEN_MPI_4 | {"OMPI_COMM_WORLD_RANK": "2"},
            NODES,
            "gpu02",
            ["OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=2"],
        ),
        ({"WORLD_SIZE": "4"}, NODES, "gpu02", ["WORLD_SIZE=4", "RANK"]),
        (
            {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            NODES,
            "gpu02",
            ["MASTER_ADDR", "PBS_NODEFILE"],
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu01"},
            NODES,
            "gpu02",
            ["share this node", "LOCAL_WORLD_SIZE", "MASTER_ADDR=localhost"],
        ),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "1", "MASTER_ADDR": "gpu01"},
            NODES,
            "gpu02",
            ["MPI_LOCALNRANKS or PMI_LOCAL_SIZE or LOCAL_WORLD_SIZE"],
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu01"},
            NODES,
            "gpu02",
            ["LOCAL_RANK is not"],
        ),
        (
            OPEN_MPI_5,
            NODES,
            "gpu02",
            ["4 processes on 2 nodes", "MASTER_ADDR", "PBS_NODEFILE", "-x MASTER_ADDR"],
        ),
        (
            OPEN_MPI_5 | {"MASTER_ADDR": "localhost"},
            NODES,
            "gpu02",
            ["MASTER_ADDR=localhost", "2 nodes"],
        ),
        (
            OPEN_MPI_5 | {"RANK": "0", "WORLD_SIZE": "1"},
            NODES,
            "gpu02",
            ["RANK=0", "WORLD_SIZE=1", "2 of 4", "Open MPI"],
        ),
        (
            OPEN_MPI_5 | {"WORLD_SIZE": "8", "MASTER_ADDR": "gpu01"},
            NODES,
            "gpu02",
            ["WORLD_SIZE=8", "OMPI_COMM_WORLD_SIZE=4"],
        ),
        (PALS_PMIX | PBS, NODES, "gpu02", ["PALS_RANKID=3", "PMI_SIZE or WORLD_SIZE"]),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, NODES, "gpu02", ["MPI_LOCALRANKID or PMI_LOCAL_RANK"]),
        (
            PBS_TASK,
            NODES,
            "gpu02",
            ["PBS_TASKNUM=00000003", "PBS_NODEFILE", "pbs/train.pbs", "RANK=0 WORLD_SIZE=1"],
        ),
        (
            PBS_TASK | {"PBS_NODEFILE": "nodes"},
            NODES,
            "gpu02",
            ["2 slots on gpu02", "PBS_VNODENUM"],
        ),
        (
            TORQUE_TASK,
            NODES,
            "gpu03",
            ["gpu03, is not in PBS_NODEFILE", "gpu01.cluster.local, gpu02.cluster.local"],
        ),
        (TORQUE_TASK | {"PBS_VNODENUM": "0"}, NODES, "gpu02", ["PBS_VNODENUM=0", "2, 3"]),
        (TORQUE_TASK | {"PBS_VNODENUM": "4"}, NODES, "gpu02", ["PBS_VNODENUM=4", "of 4"]),
        (TORQUE_TASK, [], "gpu02", ["PBS_NODEFILE", "is empty"]),
        (
            TORQUE_TASK,
            PermissionError(13, "Permission denied"),
            "gpu02",
            ["PBS_NODEFILE", "cannot be read (Permission denied)"],
        ),
        (
            PBS,
            FileNotFoundError(2, "No such file or directory"),
            "gpu01",
            ["PBS_NODEFILE", "cannot be read"],
        ),
        (PBS, [], "gpu01", ["PBS_NODEFILE", "is empty"]),
        (
            HYDRA | PBS,
            FileNotFoundError(2, "No such file or directory"),
            "gpu02",
            ["PBS_NODEFILE", "cannot be read", "first node"],
        ),
    ],
)
def test_contradictions_are_named(environ, nodes, hostname, words):
    with pytest.raises(RuntimeError) as error:
        look(environ, nodes, hostname)
    assert all(w in str(error.value) for w in words), error.value


def test_the_node_file_is_read_as_pbs_writes_it(tmp_path):
    path = tmp_path / "48213[7].pbs01"
    path.write_text("\n".join(NODES) + "\n")
    assert (
        detect(TORQUE_TASK | {"PBS_NODEFILE": str(path)}, hostname="gpu02.cluster.local").rank == 2
    )
    with pytest.raises(RuntimeError, match="cannot be read"):
        detect(TORQUE_TASK | {"PBS_NODEFILE": str(path) + ".gone"}, hostname="gpu02")


# --- joining


@pytest.fixture
def alone(monkeypatch):
    """No variables of a launcher, and no process group before or after."""
    for name in list(os.environ):
        if name.startswith(("PBS_", "SLURM_", "OMPI_", "PMI", "PALS_")) or name in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "MASTER_ADDR",
            "MASTER_PORT",
        ):
            monkeypatch.delenv(name)
    finalize()
    yield monkeypatch
    finalize()


def test_one_process_needs_no_group_and_leaves_the_environment_alone(alone):
    left_over = {
        "MASTER_PORT": "1",
        "PHYSICSNEMO_DISTRIBUTED_INITIALIZATION_METHOD": "SLURM",
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "1",
    }
    for name, value in (SBATCH_SCRIPT | left_over).items():
        alone.setenv(name, value)
    before = dict(os.environ)
    machine = initialize("cpu")
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()
    assert (machine.rank, machine.world_size, machine.writes, machine.device, machine.backend) == (
        0,
        1,
        True,
        torch.device("cpu"),
        None,
    )
    assert "rank 0 of 1 on 1 node, cpu" in str(machine)
    assert "no process group" in str(machine)
    assert initialize("cpu") == machine


def test_a_warning_is_printed_where_slots_are_idle(alone, tmp_path, capsys):
    (tmp_path / "nodes").write_text("\n".join(NODES))
    for name, value in (PBS | {"PBS_NODEFILE": str(tmp_path / "nodes")}).items():
        alone.setenv(name, value)
    assert initialize("cpu").world_size == 1
    assert (
        "WARNING: PBS gave this job 4 slots on 2 nodes and this is one process"
        in capsys.readouterr().err
    )


def test_a_world_without_a_meeting_point_is_an_error_where_physicsnemo_would_make_every_rank_0_of_1(
    alone,
):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        alone.setenv(name, value)
    with pytest.raises(RuntimeError, match="MASTER_ADDR"):
        initialize("cpu")


def test_a_world_that_did_not_form_is_an_error(alone):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "5000",
    }.items():
        alone.setenv(name, value)
    # what DistributedManager does by itself without MASTER_ADDR
    alone.setattr(launch, "_join", lambda *_: launch._stay_alone())
    with pytest.raises(RuntimeError, match="rank 0 of 2.*made it 0 of 1"):
        initialize("cpu")


def test_a_meeting_point_that_cannot_be_reached_is_an_error_for_people(alone):
    with socket.socket() as other:  # another job listens there
        other.bind(("127.0.0.1", 0))
        other.listen()
        for name, value in {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(other.getsockname()[1]),
        }.items():
            alone.setenv(name, value)
        alone.setattr(launch.os, "environ", dict(os.environ))  # a failed start exports, too
        with pytest.raises(
            RuntimeError, match="rank 0 of 2 could not join the others at 127.0.0.1"
        ):
            initialize("cpu")
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "words"), [(0, "1/2 clients joined"), (1, "timed out")])
def test_a_rank_that_never_comes_is_not_waited_for_until_the_walltime(alone, rank, words):
    """It died, or its node was never started, before there is a heartbeat."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    alone.setattr(
        launch.os,
        "environ",
        os.environ
        | {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        },
    )
    alone.setattr(launch, "MEETING", timedelta(seconds=1))
    with pytest.raises(RuntimeError, match=f"rank {rank} of 2 could not join.*{words}"):
        initialize("cpu")


@pytest.mark.parametrize(
    ("device", "words"), [("tpu", "auto, cpu, cuda or mps"), ("mps", "this machine has none")]
)
def test_a_device_that_is_not_there_is_an_error(alone, device, words):
    alone.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=words):
        initialize(device)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("gpus", "visible", "local_rank", "expected"),
    [(4, None, 2, 2), (1, "3", 2, 0), (1, None, 1, None), (2, "0,1", 2, None)],
)
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one_it_sees(
    monkeypatch, gpus, visible, local_rank, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    layout = Layout(local_rank, 4, local_rank, 4)
    if expected is None:
        with pytest.raises(RuntimeError, match=f"{gpus} GPU.* for the 4 processes"):
            launch._device_index(layout, "cuda")
    else:
        assert launch._device_index(layout, "cuda") == expected
    assert launch._device_index(layout, "cpu") < gpus


def test_the_startup_line_says_ranks_nodes_device_backend_and_how_it_was_detected():
    line = str(Machine(3, 8, torch.device("cpu"), 1, 4, "Cray PALS", "gloo"))
    assert line.startswith("rank 3 of 8 on 4 nodes, cpu (")
    assert line.endswith(", gloo, detected: Cray PALS")


def test_the_interface_that_reaches_a_host_is_one_of_this_machine():
    own = launch._interface_towards("127.0.0.1")
    assert own is None or own in [name for _, name in socket.if_nameindex()] and own != "lo"
    assert launch._interface_towards("no-such-host.invalid") is None


#: What a rank does: records what reaches torch, joins, adds up the ranks, says who it is.
RANK = """
import os, sys, torch
original = torch.distributed.init_process_group
def spy(*args, **named):
    handling = os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"]
    print(f"handed on: {args} {sorted(named)} async={handling}", flush=True)
    return original(*args, **named)
torch.distributed.init_process_group = spy
from physics_hybrid.cluster.machine import agreed, finalize, initialize
machine = initialize("cpu")
assert agreed(f"named by rank {machine.rank}") == "named by rank 0"
total = torch.tensor([machine.rank + 1.0])
torch.distributed.all_reduce(total)
assert initialize("cpu") == machine
handling, threads = os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"], torch.get_num_threads()
print(f"{machine}; sum {total.item():g}; async={handling}; threads {threads}", flush=True)
finalize()
assert not torch.distributed.is_initialized()
"""


@pytest.fixture
def rank_script(tmp_path):
    path = tmp_path / "rank.py"
    path.write_text(RANK)
    return str(path)


def run(*commands, **environ) -> str:
    """Run commands at the same time; all must succeed. Returns what they printed."""
    base = {
        k: v for k, v in os.environ.items() if not k.startswith(("PBS_", "SLURM_", "OMPI_", "OMP_"))
    } | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            words,
            env=base | extra | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words, extra in commands
    ]
    printed = [p.communicate(timeout=120)[0] for p in started]
    assert all(p.returncode == 0 for p in started), "\n".join(printed)
    return "\n".join(printed)


def check_two_ranks(printed: str, method: str) -> None:
    for rank in (0, 1):
        assert f"rank {rank} of 2 on 1 node, cpu" in printed
    assert printed.count(f"gloo, detected: {method}; sum 3; async=1") == 2, printed
    # no device_id (issue 1936)
    assert (
        printed.count("handed on: ('gloo',) ['rank', 'store', 'timeout', 'world_size'] async=1")
        == 2
    ), printed


@pytest.mark.cluster
def test_two_ranks_under_torchrun(rank_script):
    check_two_ranks(
        run(
            (
                [
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--nproc_per_node",
                    "2",
                    rank_script,
                ],
                {},
            )
        ),
        "torchrun",
    )


@pytest.mark.cluster
@pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="mpirun is not installed (apt-get install openmpi-bin)"
)
def test_two_ranks_under_mpirun(rank_script):
    open_mpi = (
        "Open MPI" in subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
    )
    words = [
        "mpirun",
        "-n",
        "2",
        *(["--allow-run-as-root", "--oversubscribe"] if open_mpi else []),
        sys.executable,
        rank_script,
    ]
    check_two_ranks(run((words, {})), "Open MPI" if open_mpi else "MPICH/PMI")


@pytest.mark.cluster
def test_two_ranks_by_hand_without_local_rank_share_the_cores(rank_script):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = [([sys.executable, rank_script], {"RANK": str(r)}) for r in (0, 1)]
    printed = run(*ranks, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    check_two_ranks(printed, "RANK and WORLD_SIZE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shares = [int(line.rsplit(" ", 1)[1]) for line in printed.splitlines() if "; threads " in line]
    assert len(shares) == 2
    assert sum(shares) <= max(2, cores)
