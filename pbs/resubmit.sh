#!/bin/bash
# Go on with a training in another job, or not: `pbs/resubmit.sh STATUS SCRIPT`, at the end of the job scripts.
#
#   STATUS 0    it is done
#          85   this job saved a state before it had to leave: SCRIPT is submitted again, with the resources of this job
#          138  the walltime's warning (SIGUSR1) came while there was nothing to save: before the first step, or in the evaluation of a run that
#               was complete already; another job of this length would come no further
#          else it failed: a broken training must not go on using up an allocation
#
# RESUBMISSIONS (how many are left) bounds the chain. Where compute nodes may not submit jobs, it prints the line to type elsewhere.
set -uo pipefail
status=${1:?usage: pbs/resubmit.sh STATUS SCRIPT}
script=${2:?usage: pbs/resubmit.sh STATUS SCRIPT}
# of what: a training, or what the job script says
what="${WHAT_RUNS:-training} ${RUN:-}"
# training.requeue_exit_code
saved=${REQUEUE_EXIT_CODE:-85}

if ((status == 0)); then
    echo "$what is done"
    exit 0
fi
if ((status > 128)) && [[ $(kill -l "$status" 2> /dev/null) == USR1 ]]; then
    hint=
    if [[ -z ${WHAT_RUNS:-} ]]; then
        hint="; where training is complete and only the test is left: qsub -v CHECKPOINT=runs/${RUN:-} pbs/evaluate.pbs"
    fi
    echo "$what was told to leave while there was nothing to save, and a next job would come no further: not submitted again. Ask for more walltime or" \
        "a smaller MARGIN$hint" >&2
    exit "$status"
fi
if ((status != saved)); then
    echo "$what failed with exit status $status: not submitted again" >&2
    exit "$status"
fi
if ((${RESUBMISSIONS:-0} <= 0)); then
    echo "$what is saved and not done, and no resubmissions are left: qsub -v RUN=${RUN:-} ... $script goes on" >&2
    exit "$status"
fi

attribute() {
    qstat -f "${PBS_JOBID:-}" 2> /dev/null | sed ':a;N;$!ba;s/\n\t//g' | sed -n "s/^ *$1 = //p"
}

# What was asked for on qsub's command line is not in the script.
options=()
for resource in select place walltime; do
    value=$(attribute "Resource_List.$resource")
    options+=(${value:+-l "$resource=$value"})
done
account=$(attribute Account_Name)
options+=(${account:+-A "$account"} ${PBS_O_QUEUE:+-q "$PBS_O_QUEUE"})

RESUBMISSIONS=$((RESUBMISSIONS - 1))
variables=RESUBMISSIONS
for name in RUN OVERRIDES SEED RANKS_PER_NODE THREADS MARGIN NODE_PATIENCE WALLTIME REQUEUE_EXIT_CODE MPIRUN PART PARTS; do
    if [[ -n ${!name:-} ]]; then
        variables+=,$name # qsub takes the value from its environment
        export "${name?}"
    fi
done
export RESUBMISSIONS
if job=$(qsub "${options[@]}" -v "$variables" "$script"); then
    echo "$what goes on in job $job ($RESUBMISSIONS resubmissions left)"
else
    echo "$what is saved and could not be submitted from here; from a login node: RUN=${RUN:-} OVERRIDES='${OVERRIDES:-}' qsub ${options[*]} -v $variables $script" >&2
    exit "$status"
fi
