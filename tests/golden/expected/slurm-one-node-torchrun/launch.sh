#!/bin/bash
# Run once on every node by the agent: finds out where the ranks meet, sets the environment, runs
# the setup lines and becomes the launcher.
set -euo pipefail

ptx_fail() {
  printf 'ptx: %s\n' "$*" >&2
  exit 78
}

# Not $HOSTNAME: SLURM carries that one over from where the job was submitted.
ptx_host=$(uname -n)
PTX_NODE_RANK=$SLURM_NODEID
PTX_HEAD_ADDR=127.0.0.1
PTX_LOCAL_ADDR=127.0.0.1
# Below every ephemeral range, and another one for each job and attempt: the attempts of one job lie
# far from each other, and so from those of the jobs that came just before and after it.
PTX_HEAD_PORT=$((10000 + (SLURM_JOB_ID + PTX_ATTEMPT * 11743) % 19000))
PTX_IS_HEAD=false
if ((PTX_NODE_RANK == 0)); then PTX_IS_HEAD=true; fi

# What an outer launcher, MPI or the scheduler left behind would be taken for ours.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE LOCAL_SIZE NODE_RANK CROSS_RANK CROSS_SIZE \
  GROUP_RANK GROUP_WORLD_SIZE ROLE_NAME ROLE_RANK ROLE_WORLD_SIZE \
  "${!PET_@}" "${!MASTER_@}" "${!ACCELERATE_@}" "${!FSDP_@}" "${!PARALLELISM_CONFIG_@}" \
  "${!TORCHELASTIC_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_COMM_@}" "${!MV2_COMM_@}"

export PTX_NODE_RANK PTX_HEAD_ADDR PTX_HEAD_PORT PTX_IS_HEAD PTX_LOCAL_ADDR
export MASTER_ADDR=$PTX_HEAD_ADDR MASTER_PORT=$PTX_HEAD_PORT
# Slots, whatever the devices are called: launchers stumble over UUIDs and MIG names.
export CUDA_VISIBLE_DEVICES=0,1
export OMP_NUM_THREADS=8
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=10

ptx_workdir=/home/kim/project
# Kept for the setup lines, as for /scratch/$SLURM_JOB_ID; ranks would take it for their launcher's.
unset "${!SLURM_@}" "${!SLURMD_@}" "${!SRUN_@}" "${!SBATCH_@}"

cd -- "$ptx_workdir" || ptx_fail "the ranks cannot start in $ptx_workdir on $ptx_host"
ptx_python=/opt/ptx/bin/python
PTX_PYTHON=$(type -P -- "$ptx_python") ||
  ptx_fail "there is no python called $ptx_python on $ptx_host; set \`python\` in the spec, or load it in \`setup\`"
[[ $PTX_PYTHON == /* ]] || PTX_PYTHON=$PWD/$PTX_PYTHON
export PTX_PYTHON
printf 'ptx: node %s of %s on %s, head %s:%s, python %s\n' \
  "$PTX_NODE_RANK" 1 "$ptx_host" "$PTX_HEAD_ADDR" "$PTX_HEAD_PORT" "$PTX_PYTHON"
: >"$PTX_NODE_DIR/launching" # from here on an end is the launcher's, not the setup's

exec "${PTX_PYTHON}" \
  -m \
  torch.distributed.run \
  --nnodes=1 \
  --nproc-per-node=2 \
  --max-restarts=0 \
  --standalone \
  --no-python \
  "$PTX_PYTHON" -I -S "$PTX_BUNDLE/agent.pyz" shim -- \
  "${PTX_PYTHON}" \
  -u \
  -m \
  pretrain \
  --config \
  conf/base.toml
