# shellcheck shell=bash
# What the job scripts share: sourced by them, not submitted.
#
# A job may set (qsub -v RUN=limb,OVERRIDES="experiment=base seed=1" ...):
#   RUN             name of the run, runs/RUN; the same name again goes on where it stopped (default: number of the job)
#   OVERRIDES       what follows `python train.py`; or @FILE with one override a line, for values with commas, which versions of qsub -v read differently
#   SEED            seed=SEED
#   RANKS_PER_NODE  default: the lines of a node in PBS_NODEFILE, which are the mpiprocs of the select line
#   THREADS         CPU threads of a rank (default: the ncpus of the select line shared among the node's ranks)
#   MARGIN          seconds before the walltime at which training saves and leaves: room for one step, one validation and the checkpoint
#   WALLTIME        hh:mm:ss, for sites where qstat does not answer inside a job
#   NODE_PATIENCE   seconds after the end of the training on another node in which the one on the first node should end, too (train.pbs)
#   RESUBMISSIONS   how many times a training that met its walltime is submitted again
#   PARTS, PART     of sweep.pbs: how many jobs share the rows, and which of them this is (default: its number in the array)
MARGIN=${MARGIN:-600}
NODE_PATIENCE=${NODE_PATIENCE:-60}
RESUBMISSIONS=${RESUBMISSIONS:-20}

cd "${PBS_O_WORKDIR:?submit this with qsub}" || exit 2
if [[ ! -f train.py ]]; then
    echo "error: $PBS_O_WORKDIR has no train.py: type qsub in the folder that holds it" >&2
    exit 2
fi
# shellcheck source=pbs/site.sh
source pbs/site.sh
set -uo pipefail

# The number of an array job is 1234[7].server: brackets would be patterns wherever the name of the run is used.
RUN=${RUN:-${PBS_JOBID%%[.[]*}}${PBS_ARRAY_INDEX:+_$PBS_ARRAY_INDEX}

OVERRIDES=${OVERRIDES:-}
if [[ $OVERRIDES == @* ]]; then
    if [[ ! -r ${OVERRIDES#@} ]]; then
        echo "error: OVERRIDES=$OVERRIDES names a file that is not in $PWD" >&2
        exit 2
    fi
    mapfile -t overrides < <(grep -v '^ *\(#\|$\)' "${OVERRIDES#@}")
else
    # shellcheck disable=SC2034  # the scripts that source this use it
    read -r -a overrides <<< "$OVERRIDES" # splits at spaces, and leaves [ and * alone
fi

# PBS ends a job with SIGTERM to all its processes (qdel, preemption, walltime): the script has to outlive the training that is saving, and must
# not submit again what a person deleted. `qsig -s USR1 JOB` saves and goes on in a new job.
told_to_leave=
trap 'told_to_leave=yes' TERM
trap : USR1

# hosts: the nodes in order; line[host]: its first line in the node file; ranks[host]: how many processes it gets.
declare -a hosts=()
declare -A line=() ranks=()
read_nodes() {
    local i host all
    if [[ ! -r ${PBS_NODEFILE:-} || ! -s $PBS_NODEFILE ]]; then
        echo "error: PBS_NODEFILE=${PBS_NODEFILE:-} cannot be read or is empty: submit this with qsub" >&2
        exit 2
    fi
    mapfile -t all < "$PBS_NODEFILE"
    for i in "${!all[@]}"; do
        host=${all[i]}
        if [[ -z ${line[$host]:-} ]]; then
            hosts+=("$host")
            line[$host]=$i
        fi
        ranks[$host]=$((${ranks[$host]:-0} + 1))
    done
    for host in "${hosts[@]}"; do
        ranks[$host]=${RANKS_PER_NODE:-${ranks[$host]}}
    done
    THREADS=${THREADS:-$((${NCPUS:-1} / ${ranks[${hosts[0]}]}))}
    THREADS=$((THREADS > 0 ? THREADS : 1))
    # Two jobs on one node must not meet: a port from the job's number, above those that Linux gives to outgoing connections (up to 60999).
    MASTER_PORT=${MASTER_PORT:-$((61000 + $(cksum <<< "$PBS_JOBID" | cut -d ' ' -f 1) % 4536))}
    MASTER_ADDR=${hosts[0]}
    if ((${#hosts[@]} == 1)); then
        MASTER_ADDR=127.0.0.1
    fi
    export MASTER_ADDR MASTER_PORT
}

# An attribute of this job, as the server has it; qstat folds long lines.
attribute() {
    qstat -f "$PBS_JOBID" 2> /dev/null | sed ':a;N;$!ba;s/\n\t//g' | sed -n "s/^ *$1 = //p"
}

# limited: what to put ahead of a command, so that it gets SIGUSR1 $MARGIN seconds before the walltime and keeps its exit status.
#
# By `timeout`, since nothing else works on every PBS Professional: there is no `qsub -l signal`, no variable holds the walltime, and PBS's own
# SIGTERM comes 10 seconds (kill_delay) ahead of SIGKILL, which may be less than a step.
limit_to_walltime() {
    local limit seconds
    limit=$(attribute Resource_List.walltime)
    limit=${limit:-${WALLTIME:-}}
    if [[ ! $limit =~ ^([0-9]+):([0-9]+):([0-9]+)$ ]]; then
        echo "warning: the walltime is not known (set WALLTIME=hh:mm:ss): nothing will be saved ahead of it but the usual checkpoints" >&2
        limited=(env)
        return
    fi
    seconds=$((10#${BASH_REMATCH[1]} * 3600 + 10#${BASH_REMATCH[2]} * 60 + 10#${BASH_REMATCH[3]} - SECONDS - MARGIN))
    if ((seconds <= 0)); then
        echo "error: the walltime $limit leaves no time to train before the last $MARGIN seconds: ask for more, or set MARGIN" >&2
        return 2
    fi
    # shellcheck disable=SC2034  # the scripts that source this use it
    limited=(timeout --preserve-status --signal=USR1 "$seconds" env)
}

# End the job script: submit again what met its walltime, and keep the exit status.
leave() {
    local status=$1 script=$2
    if [[ -n $told_to_leave ]]; then
        echo "PBS ended this job (exit status $status): it is not submitted again; qsub the same RUN=$RUN to go on" >&2
    else
        export RUN OVERRIDES SEED RANKS_PER_NODE THREADS MARGIN NODE_PATIENCE WALLTIME RESUBMISSIONS WHAT_RUNS PART PARTS
        bash pbs/resubmit.sh "$status" "$script"
    fi
    exit "$status"
}
