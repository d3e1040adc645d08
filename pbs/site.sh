# shellcheck shell=bash
# What differs from site to site: sourced by every job script, on every node of a job. Change it once.

# SITE: modules, where Python, CUDA or MPI come from them.
# module load python/3.11 cuda/12.8 openmpi/4.1

# SITE: the environment that holds requirements.txt. From here on `python` is its Python.
if [[ -f .venv/bin/activate ]]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi
# source "$HOME/miniforge3/etc/profile.d/conda.sh" && conda activate physics_hybrid

# SITE: the network between nodes, where the automatic choice is not the fast one.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
