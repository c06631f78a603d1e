#!/bin/bash
# Runs examples/cluster/slurm.sh on a SLURM cluster of two nodes on this machine, each with processes, network and host
# name of its own. Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge.
#
# tools/try_slurm.sh PHOTOS      the run, quick and tiny, stays in build/slurm/run
set -euo pipefail
photos=$(realpath "$1")
root=$(realpath "$(dirname "$0")/..")
work=$root/build/slurm
export SLURM_CONF=$work/slurm.conf
rm -rf "$work"
mkdir -p "$work"/{state,n1,n2} /run/munge

stop() {
  cp "$work/hosts" /etc/hosts
  kill $(jobs -p) 2>/dev/null || true
  for link in potstill0 potstill-h1 potstill-h2; do ip link del $link 2>/dev/null || true; done
}
cp /etc/hosts "$work/hosts"
trap stop EXIT

[ -e /etc/munge/munge.key ] || /usr/sbin/mungekey --create
chown -R munge: /etc/munge /run/munge
pgrep munged >/dev/null || setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged

cat > "$SLURM_CONF" <<END
ClusterName=potstill
SlurmctldHost=control(10.77.0.1)
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmctldLogFile=$work/control.log
SlurmdLogFile=$work/%n.log
SlurmctldPidFile=$work/control.pid
SlurmdPidFile=$work/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeAddr=10.77.0.11 CPUs=1 State=UNKNOWN
NodeName=n2 NodeAddr=10.77.0.12 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES State=UP
END
printf '10.77.0.1 control\n10.77.0.11 n1\n10.77.0.12 n2\n' >> /etc/hosts

ip link add potstill0 type bridge
ip addr add 10.77.0.1/24 dev potstill0
ip link set potstill0 up
unshare --uts bash -c "hostname control; exec slurmctld -D -c" >"$work/daemons.txt" 2>&1 &
for i in 1 2; do
  # The node waits for its network, then becomes slurmd.
  unshare --net --uts --pid --mount --fork --kill-child --mount-proc bash -c "
    hostname n$i; ip link set lo up
    until ip link set potstill-n$i up 2>/dev/null; do sleep 0.1; done
    ip addr add 10.77.0.1$i/24 dev potstill-n$i
    exec slurmd -D -N n$i" >>"$work/daemons.txt" 2>&1 &
  sleep 0.5
  ip link add potstill-h$i type veth peer name potstill-n$i netns "$(pgrep --parent $!)"
  ip link set potstill-h$i master potstill0 up
done
until [ "$(sinfo --noheader --states idle --format %D)" = 2 ]; do sleep 0.5; done

quick="--quick --teacher efficientnet_lite0 --teacher.size 64 --students mobilenetv1_025@64 --student.weights none"
sed -e '/gpus-per-node/d' -e 's/--nodes=4/--nodes=2/' -e 's/--cpus-per-task=16/--cpus-per-task=1/' \
  -e "s#/shared/potstill/#$root/.venv/#" -e "s#/shared/photos#$photos#" -e "s#/shared/runs/birds#$work/run#" \
  -e "s#--machine.engine ray#--machine.engine ray $quick#" "$root/examples/cluster/slurm.sh" > "$work/slurm.sh"
sbatch --wait --output "$work/job.txt" "$work/slurm.sh"
grep -a "^Ray cluster\|^Done" "$work/job.txt"
