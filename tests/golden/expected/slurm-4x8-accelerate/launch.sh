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
# NCCL takes the beginning of a name for the name, as ib for ib0; gloo and ip want it whole.
ptx_interfaces=
for ptx_name in ib0; do
  for ptx_path in /sys/class/net/"$ptx_name"*; do
    if [[ ! -e $ptx_path ]]; then ptx_path=$ptx_name; fi
    ptx_interfaces+=${ptx_interfaces:+,}${ptx_path##*/}
    break
  done
done
PTX_NODE_RANK=$SLURM_NODEID

# Prints where a node can be reached: its name, or SLURM's own address for it where the name is
# unknown here or, as on some clouds, means this machine itself.
ptx_address() {
  local name=$1 address
  if ptx_is_remote "$name"; then
    printf '%s\n' "$name"
    return
  fi
  address=$(scontrol show node -o "$name" 2>/dev/null) || address=
  address=${address##* NodeAddr=}
  address=${address%% *}
  # An address of this machine is right only where SLURM itself uses it (all nodes on one host).
  if [[ $address == 127.* || $address == *:* ]] || ptx_is_remote "${address:-$name}"; then
    printf '%s\n' "$address"
  elif [[ $name == "${SLURMD_NODENAME:-}" ]]; then
    printf '%s\n' "$name"
  else
    return 1
  fi
}

# Does this name mean another machine than this one? Yes, too, where there is no getent to ask.
ptx_is_remote() {
  local found
  type -P getent >/dev/null || return 0
  found=$(getent ahostsv4 "$1" || getent hosts "$1") || return 1
  [[ $found != 127.* && $found != ::1* ]]
}

# The step's nodes: the job may have others, in reserve or dead.
ptx_nodes=${SLURM_STEP_NODELIST:-$SLURM_JOB_NODELIST}
ptx_head=$(scontrol show hostnames "$ptx_nodes") ||
  ptx_fail "scontrol cannot read the node list $ptx_nodes"
ptx_head=${ptx_head%%$'\n'*}
PTX_HEAD_ADDR=$(ptx_address "$ptx_head") ||
  ptx_fail "on $ptx_host the head node's name $ptx_head means this machine or nothing, and SLURM has no other address for it; correct /etc/hosts or DNS there"
PTX_LOCAL_ADDR=$(ptx_address "$SLURMD_NODENAME")
if type -P ip >/dev/null; then
  ptx_inet=$(ip -o -4 addr show dev "${ptx_interfaces%%,*}" 2>/dev/null) || ptx_inet=
  read -r _ _ _ ptx_inet _ <<<"$ptx_inet" || true
  PTX_LOCAL_ADDR=${ptx_inet%%/*}
  [[ -n $PTX_LOCAL_ADDR ]] ||
    ptx_fail "on $ptx_host the interface ${ptx_interfaces%%,*} of rendezvous.interface has no IPv4 address"
fi
# Below every ephemeral range, and another one for each job and attempt: the attempts of one job lie
# far from each other, and so from those of the jobs that came just before and after it.
PTX_HEAD_PORT=$((10000 + (SLURM_JOB_ID + PTX_ATTEMPT * 11743) % 19000))
ptx_threads=$((${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}} / 8))
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
export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
export OMP_NUM_THREADS=$((ptx_threads > 0 ? ptx_threads : 1))
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=$ptx_interfaces
export PET_LOCAL_ADDR="${PTX_LOCAL_ADDR}"
export PET_RDZV_ID="slurm-4x8-20261121-004711-k3x.${PTX_ATTEMPT}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=10

ptx_workdir=/scratch/lora
# The setup lines are the person's own shell. Each runs in this shell, so that what it loads and
# exports lasts, and without our strictness, which `conda activate` and `module load` fail under.
cd -- "$ptx_workdir" 2>/dev/null || true
ptx_setup_ended() {
  printf 'ptx: setup line %s of the spec failed: exit code %s from: %s\n' "$ptx_line" "$1" "$ptx_text" >&2
  exit "$(($1 > 0 ? $1 : 1))"
}
trap 'ptx_setup_ended $?' EXIT
set +euo pipefail
ptx_line=1 ptx_text='module load cuda/12.8'
eval "$ptx_text" || exit
ptx_line=2 ptx_text='source /scratch/lora/env/bin/activate'
eval "$ptx_text" || exit
set -euo pipefail
trap - EXIT
# Kept for the setup lines, as for /scratch/$SLURM_JOB_ID; ranks would take it for their launcher's.
unset "${!SLURM_@}" "${!SLURMD_@}" "${!SRUN_@}" "${!SBATCH_@}"

cd -- "$ptx_workdir" || ptx_fail "the ranks cannot start in $ptx_workdir on $ptx_host"
ptx_python=python3.12
PTX_PYTHON=$(type -P -- "$ptx_python") ||
  ptx_fail "there is no python called $ptx_python on $ptx_host; set \`python\` in the spec, or load it in \`setup\`"
[[ $PTX_PYTHON == /* ]] || PTX_PYTHON=$PWD/$PTX_PYTHON
export PTX_PYTHON
# The launcher would say so too, in words that tell neither the port nor that another would do.
if [[ $PTX_IS_HEAD == true ]] && (: <"/dev/tcp/127.0.0.1/$PTX_HEAD_PORT") 2>/dev/null; then
  ptx_fail "port $PTX_HEAD_PORT, where the ranks are to meet, is in use on $ptx_host"
fi
printf 'ptx: node %s of %s on %s, head %s:%s, python %s\n' \
  "$PTX_NODE_RANK" 4 "$ptx_host" "$PTX_HEAD_ADDR" "$PTX_HEAD_PORT" "$PTX_PYTHON"
: >"$PTX_NODE_DIR/launching" # from here on an end is the launcher's, not the setup's

exec "${PTX_PYTHON}" \
  -m \
  accelerate.commands.launch \
  "--config_file=${PTX_BUNDLE}/accelerate.yaml" \
  "--deepspeed_config_file=${PTX_BUNDLE}/deepspeed.json" \
  "--machine_rank=${PTX_NODE_RANK}" \
  "--main_process_ip=${PTX_HEAD_ADDR}" \
  "--main_process_port=${PTX_HEAD_PORT}" \
  --rdzv_backend=c10d \
  "--rdzv_conf=is_host=${PTX_IS_HEAD},join_timeout=600,read_timeout=600" \
  --no_python \
  "$PTX_PYTHON" -I -S "$PTX_BUNDLE/agent.pyz" shim -- \
  ./run.sh \
  'two words'
