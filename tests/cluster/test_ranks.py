"""Several processes train the model that one would have trained; and a training cannot be lost."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from physics_hybrid.cluster.heartbeat import LOST_RANK_EXIT_CODE
from physics_hybrid.cluster.machine import Machine
from physics_hybrid.evidence.scaling import fit, predict, ring, tables
from physics_hybrid.run import staging
from physics_hybrid.training import checkpoint
from tests.conftest import ROOT, TINY

MPIRUN = shutil.which("mpirun")
OPTIONS = [o for group in ("always", "limbs", "fno") for o in TINY[group]] + [
    "data.samples_per_epoch=16",
    "evaluation.samples=1",
    "evaluation.after_training=false",
    "training.checkpoint_every=2",
    "training.lost_rank_seconds=10",
    "evaluation.resolutions=[[16,12,12]]",
]
LAUNCHERS = {
    "torchrun": [
        sys.executable,
        "-m",
        "physics_hybrid",
        "torchrun",
        "--standalone",
        "--nproc_per_node",
        "2",
    ],
    "mpirun": [
        "mpirun",
        "-n",
        "2",
        "--oversubscribe",
        *(["--allow-run-as-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        sys.executable,
    ],
}


def command(launcher: str, folder: Path, run: str, *overrides: str) -> list[str]:
    words = {
        o.split("=")[0]: o
        for o in (
            *OPTIONS,
            f"runs_folder={folder / 'runs'}",
            f"data.folder={folder / 'data'}",
            f"run={run}",
            *overrides,
        )
    }
    return [*LAUNCHERS.get(launcher, [sys.executable]), str(ROOT / "train.py"), *words.values()]


def start(launcher: str, folder: Path, run: str, *overrides: str) -> subprocess.Popen:
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        command(launcher, folder, run, *overrides),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen, expect: int | None = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert expect is None or process.returncode == expect, f"exit {process.returncode}\n{output}"
    return output


def losses(folder: Path, run: str) -> torch.Tensor:
    records = [
        json.loads(line) for line in (folder / "runs" / run / "log.jsonl").read_text().splitlines()
    ]
    return torch.tensor(
        [[r["train/loss"], r["validation/relative_l2"]] for r in records], dtype=torch.float64
    )


def weights(folder: Path, run: str) -> torch.Tensor:
    return torch.cat(
        [
            v.flatten()
            for v in checkpoint.load_state(folder / "runs" / run / checkpoint.LATEST)[
                "model"
            ].values()
        ]
    )


def ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The training processes under a launcher."""
    return [
        p
        for p in psutil.Process(process.pid).children(recursive=True)
        if "train.py" in " ".join(p.cmdline())
        and "torchrun" not in p.cmdline()
        and "mpirun" not in p.name()
    ]


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same training by two ranks under torchrun, and by one process with the same global
    batch.
    """
    folder = tmp_path_factory.mktemp("cluster")
    out = finish(
        start("torchrun", folder, "torchrun", "data.batch_size=2", "evaluation.after_training=true")
    )
    finish(start("alone", folder, "alone", "data.batch_size=4"))
    return folder, out


@pytest.mark.cluster
def test_two_ranks_train_as_one_with_the_same_global_batch(together):
    folder, out = together
    assert torch.allclose(losses(folder, "torchrun"), losses(folder, "alone"), rtol=1e-4)
    assert "rank 0 of 2" in out
    assert out.count("report:") == 1


@pytest.mark.cluster
@pytest.mark.skipif(MPIRUN is None, reason="no mpirun on this machine (Debian: openmpi-bin)")
def test_mpirun_gives_the_same_curve_as_torchrun(together):
    folder, _ = together
    finish(start("mpirun", folder, "mpirun", "data.batch_size=2"))
    assert torch.allclose(losses(folder, "mpirun"), losses(folder, "torchrun"), rtol=1e-6)


@pytest.mark.cluster
def test_stored_limbs_and_accumulation_too(tmp_path):
    """Samples from files, shuffled, an odd number of them (12 of 11, one repeated), two batches a
    step, staged to a scratch disk.
    """
    scratch = tmp_path / "scratch"
    options = (
        "data=generated",
        "data.train_samples=12",
        "data.workers=0",
        "training.accumulate=2",
        f"data.stage_to={scratch}",
    )
    out = finish(start("torchrun", tmp_path, "two", "data.batch_size=1", *options))
    finish(start("alone", tmp_path, "one", "data.batch_size=2", *options))
    assert torch.allclose(losses(tmp_path, "two"), losses(tmp_path, "one"), rtol=1e-4)
    assert "checksums agree" in out
    assert not list(scratch.glob("**/*.h5"))


@pytest.mark.cluster
def test_a_killed_rank_is_named_the_other_leaves_and_the_restart_gives_the_same_bits(
    together, tmp_path
):
    folder, _ = together
    options = ("data.batch_size=2", "training.epochs=2")
    process = start(
        "torchrun",
        folder,
        "killed",
        *options,
        "data.samples_per_epoch=16",
        "training.checkpoint_every=1",
    )
    wait_for(lambda: (folder / "runs/killed" / checkpoint.PREVIOUS).exists(), process)
    victim, other = sorted(ranks_of(process), key=lambda p: int(p.environ()["RANK"]), reverse=True)
    victim.kill()
    died = time.monotonic()
    out = finish(process, expect=None)
    assert process.returncode != 0
    assert not other.is_running()
    assert time.monotonic() - died < 60
    assert "rank 1 on " in out or "rank      : 1" in out, out
    assert checkpoint.load_latest(folder / "runs/killed")["progress"]["step"] >= 1
    finish(start("torchrun", folder, "killed", *options, "training.checkpoint_every=1"))
    assert torch.equal(weights(folder, "killed"), weights(folder, "torchrun"))


LONE = """
import sys
from physics_hybrid.cluster.heartbeat import Heartbeat
from physics_hybrid.cluster.machine import initialize
import torch, torch.distributed as dist
machine = initialize("cpu")
with Heartbeat(machine.rank, machine.world_size, 3.0, "127.0.0.1"):
    print("up", flush=True)
    while True:
        dist.all_reduce(torch.ones(1))
"""


@contextlib.contextmanager
def two_bare_ranks(code):
    """A bare start on each slot, with nobody but the heartbeat that looks; both have printed
    "up".
    """
    with socket.socket() as probe:  # a port that nobody has, where a random one may be taken
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in (0, 1):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        assert all(any("up" in line for line in iter(p.stdout.readline, "")) for p in processes)
        yield processes
    finally:
        for p in processes:
            p.kill()


@pytest.mark.cluster
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_without_a_launcher_that_cares_a_lost_rank_is_named(victim, how):
    """Killed, or frozen as a node that hangs."""
    with two_bare_ranks(LONE) as processes:
        time.sleep(1)
        processes[victim].send_signal(getattr(signal, how))
        _, errors = processes[1 - victim].communicate(timeout=30)
        assert processes[1 - victim].returncode == LOST_RANK_EXIT_CODE, errors
        assert f"rank {victim} on " in errors


#: Ranks with the patience of a real training; rank VICTIM meets an error of its own, while the
#: other waits for it.
FAILS = LONE.replace("3.0", "30.0").replace(
    "dist.all_reduce",
    """if machine.rank == VICTIM:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        dist.all_reduce""",
)

#: Rank VICTIM still prepares something, while the other waits in a barrier.
PREPARES = LONE.replace("3.0", "30.0").replace(
    "    print",
    """    from physics_hybrid.cluster.signals import Signals
    import time
    with Signals(85):
        print("up", flush=True)
        time.sleep(60 * (machine.rank == VICTIM))
        dist.barrier()
    print""",
)


@pytest.mark.cluster
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (FAILS, 1, "OutOfMemoryError: CUDA out of memory"),
        (PREPARES, 143, "SIGTERM asked this rank to leave"),
    ],
    ids=["error", "signal"],
)
def test_what_made_a_rank_leave_is_known_to_the_others_at_once(victim, code, status, reason):
    with two_bare_ranks(code.replace("VICTIM", str(victim))) as processes:
        if status == 143:
            processes[victim].send_signal(signal.SIGTERM)
        _, errors = processes[1 - victim].communicate(timeout=15)
        assert processes[1 - victim].returncode == LOST_RANK_EXIT_CODE, errors
        assert f"rank {victim} on " in errors, errors
        assert f"failed: {reason}" in errors, errors
        processes[victim].communicate(timeout=15)
        assert processes[victim].returncode == status


@pytest.mark.cluster
@pytest.mark.parametrize(
    "launcher",
    [
        "torchrun",
        pytest.param(
            "mpirun", marks=pytest.mark.skipif(MPIRUN is None, reason="no mpirun on this machine")
        ),
    ],
)
def test_a_signal_on_one_rank_makes_all_save_and_leave(tmp_path, launcher):
    process = start(launcher, tmp_path, "r", "data.batch_size=2", "data.samples_per_epoch=400")
    folder = tmp_path / "runs/r"
    wait_for(lambda: (folder / checkpoint.LATEST).exists(), process)
    ranks_of(process)[-1].send_signal(signal.SIGUSR1)
    out = finish(process, expect=None)
    assert process.returncode == 85
    assert "SIGUSR1: state saved" in out
    assert checkpoint.load_state(folder / checkpoint.LATEST)["progress"]["step"] >= 2


@pytest.mark.cluster
def test_going_on_with_another_number_of_ranks(tmp_path):
    """Two ranks, then one: the samples seen stay seen, and training ends where it should."""
    options = ("data.batch_size=2", "data.samples_per_epoch=40", "training.checkpoint_every=1")
    process = start("torchrun", tmp_path, "r", *options)
    folder = tmp_path / "runs/r"
    wait_for(lambda: (folder / checkpoint.PREVIOUS).exists(), process)
    process.send_signal(signal.SIGTERM)
    finish(process, expect=None)
    before = checkpoint.load_latest(folder)["progress"]
    out = finish(start("alone", tmp_path, "r", *options))
    assert (
        f"going on from epoch {before['epoch']}, step"
        f" {before['epoch'] * 20 + before['position'] * 2}" in out
    )
    after = checkpoint.load_latest(folder)["progress"]
    assert after["step"] == 40
    assert after["finished"]


MACHINE = Machine(0, 1, torch.device("cpu"))


def stage(source, scratch, run=Path("runs/limb"), job="1.server"):
    return staging.staged(str(source), str(scratch), MACHINE, run, job, [])


def test_staging_copies_verifies_and_cleans_up(tmp_path, capsys):
    source = tmp_path / "data"
    (source / "sub").mkdir(parents=True)
    (source / "a.npz").write_bytes(os.urandom(100_000))
    (source / "sub/b.npy").write_bytes(os.urandom(10))
    with stage(source, tmp_path / "scratch") as here:
        assert here != str(source)
        assert (Path(here) / "a.npz").read_bytes() == (source / "a.npz").read_bytes()
        assert (Path(here) / "sub/b.npy").exists()
    assert not Path(here).exists()
    assert "0.1 MB" in capsys.readouterr().out


def test_a_full_scratch_is_reported_and_the_source_used(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"x" * 1000)
    monkeypatch.setattr(
        staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10)
    )
    with stage(tmp_path / "a.h5", tmp_path / "scratch") as here:
        assert here == str(tmp_path / "a.h5")
    assert "do not fit" in capsys.readouterr().err


def test_a_scratch_that_is_no_folder_or_may_not_be_entered_is_reported_and_the_source_used(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "a.h5").write_bytes(b"x" * 1000)
    (tmp_path / "file").write_text("")
    with stage(tmp_path / "a.h5", tmp_path / "file") as here:
        assert here == str(tmp_path / "a.h5")
    assert "WARNING: cannot stage" in capsys.readouterr().err
    real = os.stat

    def closed(path, **rest):  # as for anyone but root
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **rest)

    monkeypatch.setattr(os, "stat", closed)
    with stage(tmp_path / "a.h5", tmp_path / "closed") as here:
        assert here == str(tmp_path / "a.h5")
    assert "Permission denied" in capsys.readouterr().err


def test_a_signal_during_the_copy_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"x" * 1000)

    def interrupted(_, to):
        to.write_bytes(b"x" * 500)
        raise SystemExit(143)

    monkeypatch.setattr(staging, "_copy", interrupted)
    with pytest.raises(SystemExit), stage(tmp_path / "a.h5", tmp_path / "scratch"):
        pass
    assert not list((tmp_path / "scratch").iterdir())


def test_what_a_killed_run_left_on_the_scratch_is_removed_when_it_comes_back_and_only_that(
    tmp_path,
):
    scratch, source = tmp_path / "scratch", tmp_path / "data"
    source.mkdir()
    (source / "a.npz").write_bytes(b"a")
    kept = stage(source, scratch, Path("runs/limb-2")), stage(source, scratch, Path("others/limb"))
    for other in kept:
        other.__enter__()
    for job in ("1.server", "2.server", "2.server"):
        left = stage(source, scratch, job=job)
        here = Path(left.__enter__())
        (here / "of a file that is gone.npz").write_bytes(b"b")
    with stage(source, scratch, job="2.server") as here:
        assert [p.name for p in Path(here).iterdir()] == ["a.npz"]
        assert len(list(scratch.iterdir())) == 3
    assert len(list(scratch.iterdir())) == 2


COPIES = LONE.replace(
    '3.0, "127.0.0.1"):',
    "3.0, \"127.0.0.1\") as heartbeat, staged('DATA', 'SCRATCH', machine, Path('runs/limb'), '1',"
    " heartbeat.before_leaving):",
).replace(
    "import sys",
    "import sys\nfrom pathlib import Path\nfrom physics_hybrid.run.staging import staged",
)


@pytest.mark.cluster
def test_a_lost_rank_leaves_no_copy_on_the_nodes_of_the_others(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.npz").write_bytes(b"a")
    with two_bare_ranks(
        COPIES.replace("DATA", str(tmp_path / "data")).replace("SCRATCH", str(tmp_path / "scratch"))
    ) as processes:
        assert list(tmp_path.glob("scratch/*/data/a.npz"))
        processes[1].kill()
        processes[0].communicate(timeout=30)
        assert processes[0].returncode == LOST_RANK_EXIT_CODE
        assert not list((tmp_path / "scratch").iterdir())


def test_a_copy_that_differs_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"x" * 1000)
    monkeypatch.setattr(staging, "_digest", lambda _: "another")
    with pytest.raises(OSError, match="differs"):
        staging.copy_verified(tmp_path / "a.h5", tmp_path / "scratch" / "a.h5")
    assert not (tmp_path / "scratch" / "a.h5").exists()


def test_ring_model_is_recovered_from_its_own_times_and_large_jobs_are_slower():
    points = [(n, s, ring(n, s, 20e-6, 5e9)) for n in (2, 4, 8) for s in (10**4, 10**6, 10**8)]
    latency, bandwidth = fit(points)
    assert latency == pytest.approx(20e-6)
    assert bandwidth == pytest.approx(5e9)
    table = predict([1, 4, 8, 64, 512], 0.03, 2e8, 4, (1e-5, 2e11), (1e-5, 2e10), 0.0)
    efficiency = [row["efficiency"] for row in table]
    assert efficiency[0] == 1.0
    assert efficiency == sorted(efficiency, reverse=True)
    assert len(set(efficiency)) == len(efficiency)
    # 512 GPUs in nodes of 4: 3 rings inside, then 128 nodes exchanging a quarter each
    assert table[-1]["communication_s"] == pytest.approx(
        ring(4, 2e8, 1e-5, 2e11) + ring(128, 5e7, 1e-5, 2e10)
    )


def test_the_table_of_scaling_says_what_was_measured_and_what_is_predicted():
    measured = [
        {
            "ranks": n,
            "threads": 1,
            "compute_s": 0.1,
            "step_s": 0.1 * n,
            "batch": [2, 16, 12, 12],
            "device": "cpu",
            "cores": 2,
        }
        for n in (1, 2)
    ]
    rows = predict([8], 0.03, 2e8, 4, (1e-5, 2e11), (1e-5, 2e10), 0.7)
    text = tables(
        {
            "measured": measured,
            "load_before": 3.0,
            "assumptions": {"compute_s": 0.03},
            "predicted": rows,
        }
    )
    assert "| 2 | 1 | 100.0 | 200.0 | 0.50 |" in text
    assert "load average 3.0" in text
    assert "not measured" in text
    assert "| 8 |" in text


@pytest.mark.parametrize(
    ("world", "local", "wanted", "expected"),
    [(1, 1, None, 4), (8, 4, None, 3), (8, 16, None, 0), (8, 4, 2, 2)],
)
def test_readers_scale_with_the_cores_of_a_rank(monkeypatch, world, local, wanted, expected):
    from physics_hybrid.cluster import machine as launch
    from physics_hybrid.run.load import readers

    monkeypatch.setattr(launch, "_cores", lambda: 16)
    assert readers(wanted, Machine(0, world, torch.device("cpu"), local_size=local)) == expected
