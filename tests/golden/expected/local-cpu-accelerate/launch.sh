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
PTX_HEAD_ADDR=127.0.0.1
PTX_LOCAL_ADDR=127.0.0.1
PTX_HEAD_PORT=$PTX_PORT
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
export CUDA_VISIBLE_DEVICES=''
export OMP_NUM_THREADS=4
export ACCELERATE_USE_CPU=true
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=10
export GREETING='a '"'"'quoted'"'"' `value`, 100%'

ptx_workdir=/home/kim/project
# The setup lines are the person's own shell. Each runs in this shell, so that what it loads and
# exports lasts, and without our strictness, which `conda activate` and `module load` fail under.
cd -- "$ptx_workdir" 2>/dev/null || true
ptx_setup_ended() {
  printf 'ptx: setup line %s of the spec failed: exit code %s from: %s\n' "$ptx_line" "$1" "$ptx_text" >&2
  exit "$(($1 > 0 ? $1 : 1))"
}
trap 'ptx_setup_ended $?' EXIT
set +euo pipefail
ptx_line=1 ptx_text='source .venv/bin/activate'
eval "$ptx_text" || exit
set -euo pipefail
trap - EXIT
# Kept for the setup lines, as for /scratch/$SLURM_JOB_ID; ranks would take it for their launcher's.
unset "${!SLURM_@}" "${!SLURMD_@}" "${!SRUN_@}" "${!SBATCH_@}"

cd -- "$ptx_workdir" || ptx_fail "the ranks cannot start in $ptx_workdir on $ptx_host"
ptx_python=/opt/ptx/bin/python
PTX_PYTHON=$(type -P -- "$ptx_python") ||
  ptx_fail "there is no python called $ptx_python on $ptx_host; set \`python\` in the spec, or load it in \`setup\`"
[[ $PTX_PYTHON == /* ]] || PTX_PYTHON=$PWD/$PTX_PYTHON
export PTX_PYTHON
# The launcher would say so too, in words that tell neither the port nor that another would do.
if [[ $PTX_IS_HEAD == true ]] && (: <"/dev/tcp/127.0.0.1/$PTX_HEAD_PORT") 2>/dev/null; then
  ptx_fail "port $PTX_HEAD_PORT, where the ranks are to meet, is in use on $ptx_host"
fi
printf 'ptx: node %s of %s on %s, head %s:%s, python %s\n' \
  "$PTX_NODE_RANK" 1 "$ptx_host" "$PTX_HEAD_ADDR" "$PTX_HEAD_PORT" "$PTX_PYTHON"
: >"$PTX_NODE_DIR/launching" # from here on an end is the launcher's, not the setup's

# This launcher takes a rank's arguments for templates: each $$ arrives as one $.
exec "${PTX_PYTHON}" \
  -m \
  accelerate.commands.launch \
  "--config_file=${PTX_BUNDLE}/accelerate.yaml" \
  "--main_process_port=${PTX_HEAD_PORT}" \
  --no_python \
  "$PTX_PYTHON" -I -S "$PTX_BUNDLE/agent.pyz" shim -- \
  "${PTX_PYTHON}" \
  -u \
  /home/kim/project/jobs/train.py \
  --steps=20 \
  '--data=it'"'"'s $$(here)'
