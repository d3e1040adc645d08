#!/usr/bin/env bash
# Two "hosts" on one machine, as network namespaces with a name and an address each, run torchrun with a shared PBS_NODEFILE; the
# losses and validation figures must be those of two ranks on one host, to 1e-6. Needs the right to make namespaces (root) and iproute2:
#
#     bash tests/two_hosts.sh [python]        exit 0: the same; 77: no right or no tools here; else: failed
set -euo pipefail
python=${1:-python}
root=$(cd "$(dirname "$0")/.." && pwd)
command -v ip >/dev/null || { echo "two_hosts: iproute2 is not installed"; exit 77; }
id=ph$$
work=$(mktemp -d)
export PYTHONPATH=$root
clean() {
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true
    for n in a b; do ip netns del "$id$n" 2>/dev/null || true; rm -rf "/etc/netns/$id$n"; done
    rm -rf "$work"
}
trap clean EXIT
ip netns add "${id}a" 2>/dev/null || { echo "two_hosts: no right to make network namespaces"; exit 77; }
ip netns add "${id}b"
ip link add "${id}va" netns "${id}a" type veth peer name "${id}vb" netns "${id}b"
printf '%s\n' hosta hosta hostb hostb | sort -u > "$work/nodefile"
for n in a b; do
    address=10.77.0.$([ $n = a ] && echo 1 || echo 2)
    mkdir -p "/etc/netns/$id$n"
    printf '127.0.0.1 localhost\n10.77.0.1 hosta\n10.77.0.2 hostb\n' > "/etc/netns/$id$n/hosts"
    ip -n "$id$n" addr add "$address/24" dev "${id}v$n"
    ip -n "$id$n" link set "${id}v$n" up
    ip -n "$id$n" link set lo up
done
options=(data.grid='[16,12,12]' data.samples_per_epoch=16 data.validation_samples=2 data.batch_size=2 model.backbone.modes='[3,3,3]' model.backbone.width=8
    model.backbone.depth=2 training.epochs=2 training.threads=1 training.device=cpu evaluation.samples=1 evaluation.resolutions='[[16,12,12]]'
    model.statistics_samples=2 tracker=none runs_folder="$work/runs" data.folder="$work/data")
host() { # host LETTER: what a node of the job runs
    # shellcheck disable=SC2016  # the host's own shell expands it
    ip netns exec "$id$1" unshare --uts sh -c 'hostname "host$0"; exec "$@"' "$1" \
        env PBS_JOBID=1.server PBS_NODEFILE="$work/nodefile" OMP_NUM_THREADS=1 \
        "$python" -m physics_hybrid torchrun --nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_endpoint hosta:29400 --rdzv_id 1 \
        "$root/train.py" "${options[@]}" run=hosts
}
host a > "$work/a.log" 2>&1 & a=$!
host b > "$work/b.log" 2>&1 & b=$!
wait $a || { cat "$work/a.log" "$work/b.log"; exit 1; }
wait $b || { cat "$work/a.log" "$work/b.log"; exit 1; }
grep -m1 "rank 0 of 2" "$work/a.log"
"$python" -m physics_hybrid torchrun --standalone --nproc_per_node 2 "$root/train.py" "${options[@]}" run=one_host > "$work/one.log" 2>&1 || { cat "$work/one.log"; exit 1; }
"$python" - "$work/runs" <<'PY'
import json, pathlib, sys
runs = pathlib.Path(sys.argv[1])
read = lambda name: [json.loads(line) for line in (runs / name / "log.jsonl").read_text().splitlines()]
two, one = read("hosts"), read("one_host")
names = [k for k in one[0] if k == "train/loss" or k.startswith("validation/")]
worst = {k: max(abs(a[k] - b[k]) / abs(b[k] or 1) for a, b in zip(two, one)) for k in names}
for k in names:
    print(f"{k}: two hosts {[r[k] for r in two]}, one host {[r[k] for r in one]}, relative difference {worst[k]:.1e}")
sys.exit(0 if len(two) == len(one) == 2 and len(names) > 2 and max(worst.values()) <= 1e-6 else 1)
PY
echo "two_hosts: same losses and validation figures"
