#!/bin/bash
# Runs `potstill distill` on several nodes of a SLURM cluster: sbatch slurm.sh
# Photos, run folder and environment must be on storage that all nodes see.
# Submit it again after a time limit or an error: it goes on where it was.
#SBATCH --job-name=potstill
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
# Remove the next line on nodes without GPUs.
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=potstill-%j.txt
set -euo pipefail

# An environment with `pip install "potstill[ray]"`, Ray 2.49 or newer for `ray symmetric-run`.
source /shared/potstill/bin/activate
# Spinning threads slow down everything else on the node.
export OMP_WAIT_POLICY=PASSIVE

# This script runs on the first node. An address, since Ray does not find every name that the system knows.
head=$(hostname --all-ip-addresses | cut -d ' ' -f 1)
port=$((20000 + SLURM_JOB_ID % 10000))  # so that two jobs on one node do not meet
export RAY_ADDRESS="$head:$port"

# Starts Ray on each node, the command on the first one when all have joined, and stops Ray when it ends.
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --kill-on-bad-exit=1 \
  ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_NNODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
  potstill distill /shared/photos --run /shared/runs/birds --machine.engine ray
