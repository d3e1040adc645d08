"""The job scripts, with stubs in place of PBS and of the training: which commands they build, and
what they do with an exit status.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.cluster

PBS = ROOT / "pbs"
SCRIPTS = sorted(p for p in PBS.iterdir() if p.suffix in (".pbs", ".sh"))

#: What each stub does after it has written its own line to the log. python: the training; its
#: status is $TRAINING, or 85 when it gets SIGUSR1.
STUBS = {
    "python": (
        """
        if [[ $* == *--prepare* ]]; then echo "$PREPARED"; exit; fi
        trap 'exit 85' USR1 TERM
        echo ready >> LOG
        for ((i = 0; i < ${TENTHS:-0}; i++)); do sleep 0.1; done
        exit "${TRAINING:-0}" """
    ),
    "mpirun": (
        """
        if [[ $1 == --version ]]; then echo "$MPI"; exit; fi
        echo "grace $OMPI_MCA_odls_base_sigkill_timeout" >> LOG
        exit "${TRAINING:-0}" """
    ),
    "pbsdsh": (
        """
        [[ -z ${UNREACHABLE:-} ]] || exit 0 # as it does
        shift 3 # -n N --
        cd /
        env -i HOME="$HOME" PATH=/usr/bin:/bin TRAINING="${THERE:-0}" "$@"
        exit 0 """
    ),
    "qsub": (
        """
        printf '%q ' handed "RUN=$RUN" "SEED=${SEED:-}" "RESUBMISSIONS=$RESUBMISSIONS" >> LOG
        echo >> LOG
        echo 48214.pbs01; exit "${QSUB:-0}" """
    ),
    "qstat": (
        r"""
        [[ -n ${LIMIT:-} ]] || exit 1
        printf 'Job Id: %s\n    Account_Name = heart\n' "$2"
        printf '    Resource_List.select = 2:ncpus=8:ngpus=4:mpiprocs=4:mem=\n\t64gb\n'
        printf '    Resource_List.walltime = %s\n' "$LIMIT" """
    ),
}


@pytest.fixture
def job(tmp_path):
    """Run a job script as PBS would, in a folder with brackets and a space in its name.

    Returns (the finished process, the lines of the log: one for each stub called, as a list of
    words; environment of python ahead).
    """
    folder = tmp_path / "runs of [7]"
    shutil.copytree(PBS, folder / "pbs")
    (folder / "train.py").write_text("")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    log = tmp_path / "log"
    for name, body in STUBS.items():
        script = stubs / name
        words = f"""$(printf '%q ' {name} "threads=${{OMP_NUM_THREADS:-}}" "in=$PWD" "$@")"""
        line = f'[[ ${{1:-}} == --version ]] || echo "{words}" >> LOG'
        script.write_text(f"#!/bin/bash\n{line}\n{body}\n".replace("LOG", shlex.quote(str(log))))
        script.chmod(0o755)
    # Spawned processes begin with a bare environment: only what site.sh does on that node is there.
    (folder / "pbs" / "site.sh").write_text(f"export PATH={shlex.quote(str(stubs))}:$PATH\n")

    def call(script, nodes, start=False, **variables):
        (tmp_path / "nodes").write_text("".join(f"{n}\n" for n in nodes))
        environ = {
            "PATH": f"{stubs}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PBS_JOBID": "48213.pbs01",
            "PBS_O_WORKDIR": str(folder),
            "PBS_NODEFILE": str(tmp_path / "nodes"),
            "NCPUS": "8",
            "PBS_O_QUEUE": "gpu",
            "LIMIT": "01:00:00",
        } | variables
        words = (
            ["bash", *script]
            if isinstance(script, list)
            else ["bash", str(folder / "pbs" / script)]
        )
        process = subprocess.Popen(
            words,
            env=environ,
            cwd=folder if isinstance(script, list) else tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if start:
            return process, log
        process.printed = process.communicate(timeout=60)[0]
        return process, (
            [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []
        )

    call.folder = folder
    return call


def called(log, name):
    return [words[1:] for words in log if words[0] == name]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_bash_and_shellcheck_finds_nothing(script):
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    done = subprocess.run(
        ["shellcheck", "-x", script.relative_to(ROOT)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [p for p in SCRIPTS if p.suffix == ".pbs"], ids=lambda p: p.name)
def test_directives_hold_no_comment_that_pbs_would_take_for_an_option(script):
    directives = [line for line in script.read_text().splitlines() if line.startswith("#PBS")]
    assert len(directives) >= 5
    assert not [line for line in directives if "#" in line[1:]]
    assert any("SITE" in line for line in script.read_text().splitlines())


def test_one_node_is_one_torchrun(job):
    done, log = job(
        "train.pbs", ["gpu01"] * 4, RUN="limb", OVERRIDES="experiment=base data.grid=[*] seed=3"
    )
    assert done.returncode == 0, done.printed
    (words,) = called(log, "python")
    assert words[:2] == ["threads=2", f"in={job.folder}"]  # 8 CPUs, 4 ranks
    port = words[words.index("--master-port") + 1]
    assert words[2:] == [
        "-m",
        "physics_hybrid",
        "torchrun",
        "--nnodes",
        "1",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        port,
        "--node-rank",
        "0",
        "--nproc-per-node",
        "4",
        "train.py",
        "run=limb",
        "experiment=base",
        "data.grid=[*]",
        "seed=3",
    ]
    assert 61000 <= int(port) < 65536
    assert not called(log, "pbsdsh")
    assert not called(log, "qsub")
    assert "training limb is done" in done.printed


def test_two_nodes_are_two_torchruns_that_agree(job):
    done, log = job(
        "train.pbs", ["gpu01.cluster"] * 2 + ["gpu02.cluster"] * 2, RUN="limb", THREADS="3"
    )
    assert done.returncode == 0, done.printed
    (spawned,) = called(log, "pbsdsh")
    assert spawned[2:5] == ["-n", "2", "--"]  # the first line of the second node in the node file
    first, second = sorted(called(log, "python"), key=lambda w: w[w.index("--node-rank") + 1])
    assert [w[w.index("--node-rank") + 1] for w in (first, second)] == ["0", "1"]
    ranked = first.index("--node-rank")
    assert first[:ranked] == second[:ranked]
    assert first[ranked + 2 :] == second[ranked + 2 :]
    assert first[:2] == ["threads=3", f"in={job.folder}"]
    assert first[first.index("--master-addr") + 1] == "gpu01.cluster"
    assert first[first.index("--nnodes") + 1] == "2"


@pytest.mark.parametrize(
    ("trouble", "words"),
    [({"UNREACHABLE": "1"}, "it could not be started"), ({"THERE": "3"}, "exit status 3")],
    ids=["unreachable", "failed"],
)
def test_a_node_where_training_does_not_begin_ends_the_job_with_an_error(job, trouble, words):
    started = time.monotonic()
    done, log = job(
        "train.pbs", ["gpu01", "gpu02"], RUN="limb", TENTHS="400", NODE_PATIENCE="1", **trouble
    )
    assert time.monotonic() - started < 30, done.printed
    assert f"training on gpu02 ended ({words})" in done.printed
    assert done.returncode == 1
    assert not called(log, "qsub")
    assert not list(job.folder.glob(".nodes*"))


@pytest.mark.parametrize("there", ["0", "85"])
def test_a_node_that_is_done_may_leave_before_the_first_one(job, there):
    done, log = job(
        "train.pbs", ["gpu01", "gpu02"], RUN="limb", TENTHS="40", NODE_PATIENCE="1", THERE=there
    )
    assert done.returncode == 0, done.printed
    assert "ended" not in done.printed


def test_two_jobs_on_a_node_meet_at_different_ports(job):
    ports = set()
    for number in range(48213, 48217):
        _, log = job("train.pbs", ["gpu01"], PBS_JOBID=f"{number}.pbs01")
        words = called(log, "python")[-1]
        ports.add(words[words.index("--master-port") + 1])
    assert len(ports) == 4


def test_a_cell_of_a_study_is_a_run_like_any_other_and_goes_on_alone(job):
    cell = "runs/seeds/cells/coarse-1-2_100_seed1.txt"
    (job.folder / cell).parent.mkdir(parents=True)
    (job.folder / cell).write_text("experiment=base\nseed=1\nruns_folder='runs/seeds'\n")
    done, log = job(
        "study.pbs",
        ["gpu01"],
        STUDY="seeds",
        OVERRIDES="experiment=base",
        PREPARED=cell,
        PBS_JOBID="48213[7].pbs01",
        PBS_ARRAY_INDEX="7",
        TRAINING="85",
    )
    assert done.returncode == 85, done.printed
    asked, words = called(log, "python")
    assert asked[2:] == [
        "-m",
        "physics_hybrid",
        "study",
        "seeds",
        "experiment=base",
        "--output",
        "runs/seeds",
        "--array-index",
        "7",
        "--prepare",
    ]
    assert words[-5:] == [
        "train.py",
        "run=coarse-1-2_100_seed1",
        "experiment=base",
        "seed=1",
        "runs_folder='runs/seeds'",
    ]
    (again,) = called(log, "qsub")
    assert again[-1] == "pbs/train.pbs"
    assert {"RUN", "OVERRIDES"} <= set(again[again.index("-v") + 1].split(","))
    assert called(log, "handed") == [["RUN=coarse-1-2_100_seed1", "SEED=", "RESUBMISSIONS=19"]]
    assert called(log, "qstat")[0][-1] == "48213[7].pbs01"
    done, log = job("study.pbs", ["gpu01"], PBS_ARRAY_INDEX="7")
    assert done.returncode != 0
    assert "STUDY=" in done.printed


def test_a_part_of_a_sweep_is_its_number_in_the_array_and_goes_on_alone(job):
    done, log = job(
        "sweep.pbs",
        ["node01"],
        PARTS="50",
        OVERRIDES="--config sweep.yaml",
        PBS_JOBID="48213[7].pbs01",
        PBS_ARRAY_INDEX="7",
        TRAINING="85",
    )
    assert done.returncode == 85, done.printed
    (words,) = called(log, "python")
    part = ["--config", "sweep.yaml", "--part", "7", "--parts", "50"]
    assert words == ["threads=8", f"in={job.folder}", "-m", "physics_hybrid", "sweep", *part]
    (again,) = called(log, "qsub")
    assert again[-1] == "pbs/sweep.pbs"
    assert "-J" not in again
    assert {"PART", "PARTS", "OVERRIDES"} <= set(again[again.index("-v") + 1].split(","))
    assert "sweep 48213_7 goes on in job" in done.printed
    # that job has no number in an array
    _, log = job("sweep.pbs", ["node01"], PARTS="50", PART="7", OVERRIDES="--config sweep.yaml")
    assert called(log, "python")[-1][2:] == ["-m", "physics_hybrid", "sweep", *part]
    done, log = job("sweep.pbs", ["node01"], PBS_ARRAY_INDEX="7")
    assert done.returncode == 2
    assert "PARTS is not set" in done.printed
    done, _ = job("sweep.pbs", ["node01"], OVERRIDES="--limbs 2", TRAINING="1")
    assert "sweep 48213 failed with exit status 1: not submitted again" in done.printed


def test_overrides_with_commas_come_from_a_file(job):
    (job.folder / "mine.txt").write_text(
        "# the fine grid\ndata.grid=[96,48,48]\n\nexperiment=base\n"
    )
    _, log = job("train.pbs", ["gpu01"], RUN="limb", OVERRIDES="@mine.txt")
    assert called(log, "python")[0][-2:] == ["data.grid=[96,48,48]", "experiment=base"]
    done, _ = job("train.pbs", ["gpu01"], RUN="limb", OVERRIDES="@gone.txt")
    assert done.returncode == 2
    assert "gone.txt" in done.printed


@pytest.mark.parametrize(
    ("mpi", "expected"),
    [
        (
            "mpirun (Open MPI) 4.1.4",
            [
                "-n",
                "4",
                "--hostfile",
                "{nodes}",
                "--map-by",
                "ppr:2:node",
                "--bind-to",
                "none",
                "-x",
                "MASTER_ADDR",
                "-x",
                "MASTER_PORT",
                "-x",
                "WORLD_SIZE",
                "-x",
                "OMP_NUM_THREADS",
                "-x",
                "PATH",
            ],
        ),
        ("HYDRA build details:", ["-n", "4", "--ppn", "2"]),
    ],
)
def test_mpirun_gets_the_ranks_and_the_meeting_point(job, mpi, expected):
    done, log = job(
        "train_mpi.pbs", ["gpu01"] * 2 + ["gpu02"] * 2, RUN="limb", MPI=mpi, TRAINING="85"
    )
    assert done.returncode == 85, done.printed
    (words,) = called(log, "mpirun")
    nodes = str(job.folder.parent / "nodes")
    assert words == [
        "threads=4",
        f"in={job.folder}",
        *[w.format(nodes=nodes) for w in expected],
        "python",
        "train.py",
        "run=limb",
    ]
    assert called(log, "qsub")[0][-1] == "pbs/train_mpi.pbs"
    assert called(log, "grace") == [["10"]]


def test_evaluation_is_one_process(job):
    done, log = job("evaluate.pbs", ["gpu01"], CHECKPOINT="runs/limb [2]")
    assert done.returncode == 0
    assert called(log, "python") == [
        ["threads=", f"in={job.folder}", "evaluate.py", "checkpoint='runs/limb [2]'"]
    ]
    done, _ = job("evaluate.pbs", ["gpu01"])
    assert done.returncode != 0
    assert "CHECKPOINT=" in done.printed


@pytest.mark.parametrize("script", ["train.pbs", "train_mpi.pbs"])
@pytest.mark.parametrize(
    "change",
    [{}, {"PBS_NODEFILE": "/nowhere/48213[7].pbs01"}, {"PBS_NODEFILE": ""}],
    ids=["empty", "gone", "unset"],
)
def test_a_node_file_that_says_nothing_is_an_error(job, script, change):
    done, log = job(script, [], **change)
    assert done.returncode == 2, done.printed
    assert "cannot be read or is empty" in done.printed
    assert not called(log, "python")


def test_a_folder_without_the_program_is_an_error(job):
    (job.folder / "train.py").unlink()
    done, log = job("train.pbs", ["gpu01"])
    assert done.returncode == 2
    assert "has no train.py" in done.printed
    assert not log


# --- walltime, signals and the chain


def test_training_is_told_before_the_walltime_and_submitted_again_with_the_same_resources(job):
    started = time.monotonic()
    done, log = job("train.pbs", ["gpu01"], RUN="limb", LIMIT="00:01:00", MARGIN="59", TENTHS="300")
    assert done.returncode == 85, done.printed
    assert time.monotonic() - started < 20
    (again,) = called(log, "qsub")
    options = again[2:]
    for pair in (
        ["-l", "select=2:ncpus=8:ngpus=4:mpiprocs=4:mem=64gb"],
        ["-l", "walltime=00:01:00"],
        ["-A", "heart"],
        ["-q", "gpu"],
    ):
        assert any(options[i : i + 2] == pair for i in range(len(options))), (pair, options)
    assert {"RUN", "MARGIN", "RESUBMISSIONS"} <= set(options[options.index("-v") + 1].split(","))
    assert "goes on in job 48214.pbs01 (19 resubmissions left)" in done.printed


def test_a_walltime_that_is_not_known_or_too_short_is_said(job):
    done, log = job("train.pbs", ["gpu01"], LIMIT="")
    assert done.returncode == 0
    assert "the walltime is not known" in done.printed
    assert called(log, "python")
    done, log = job("train.pbs", ["gpu01"], LIMIT="", WALLTIME="00:05:00")
    assert done.returncode == 2
    assert "leaves no time to train" in done.printed
    assert len(called(log, "python")) == 1


def test_a_deleted_job_saves_and_is_not_submitted_again(job):
    process, log = job("train.pbs", ["gpu01"], start=True, RUN="limb", TENTHS="300")
    while not (log.exists() and "ready" in log.read_text()):
        time.sleep(0.05)
    for child in Path("/proc").glob("[0-9]*/stat"):  # qdel: SIGTERM to all processes of the job
        fields = child.read_text().rpartition(")")[2].split()
        if int(fields[1]) == process.pid:
            os.kill(int(child.parent.name), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=20)[0]
    assert process.returncode == 85, printed
    assert "not submitted again" in printed
    assert "qsub threads" not in log.read_text()


@pytest.mark.parametrize(
    ("status", "left", "expected", "submitted", "words"),
    [
        (0, 5, 0, False, "is done"),
        (85, 5, 0, True, "goes on in job 48214.pbs01 (4 resubmissions left)"),
        (85, 0, 85, False, "no resubmissions are left"),
        (1, 5, 1, False, "failed with exit status 1"),
        (130, 5, 130, False, "failed with exit status 130"),
        (137, 5, 137, False, "failed with exit status 137"),
        (138, 5, 138, False, "told to leave while there was nothing to save"),
    ],
)
def test_only_a_saved_training_goes_on_and_not_for_ever(
    job, status, left, expected, submitted, words
):
    done, log = job(
        ["pbs/resubmit.sh", str(status), "pbs/train.pbs"],
        ["gpu01"],
        RUN="limb",
        RESUBMISSIONS=str(left),
    )
    assert done.returncode == expected, done.printed
    assert words in done.printed
    assert bool(called(log, "qsub")) == submitted


def test_the_status_that_means_saved_can_be_another(job):
    done, log = job(
        ["pbs/resubmit.sh", "75", "pbs/train.pbs"],
        ["gpu01"],
        RUN="limb",
        RESUBMISSIONS="1",
        REQUEUE_EXIT_CODE="75",
    )
    assert done.returncode == 0
    assert called(log, "qsub")


def test_where_nodes_may_not_submit_the_line_to_type_is_printed(job):
    done, _ = job("train.pbs", ["gpu01"], RUN="limb", TRAINING="85", QSUB="1")
    assert done.returncode == 85
    assert "could not be submitted from here" in done.printed
    assert "RUN=limb" in done.printed


def test_the_chain_counts_down_over_jobs(job):
    """Each job hands the next one fewer: a training that never ends stops."""
    left, jobs = 3, 0
    while jobs < 10:
        done, log = job("train.pbs", ["gpu01"], RUN="limb", TRAINING="85", RESUBMISSIONS=str(left))
        jobs += 1
        if len(called(log, "handed")) < jobs:
            break
        left = int(called(log, "handed")[-1][2].partition("=")[2])
    assert jobs == 4
    assert done.returncode == 85
    assert "no resubmissions are left" in done.printed
