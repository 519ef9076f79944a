"""What to type for a Dask cluster that commands run on: on Slurm, on Kubernetes, over SSH, or on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from skyset.errors import UserError
from skyset.versions import install_command

#: Seconds after which workers end whose scheduler is gone.
_DEATH = 60
#: The commands that run on one, beside builds.
COMMANDS = ("adopt", "hats", "push", "verify", "crossmatch", "report", "extract")


@dataclass(frozen=True)
class Wanted:
    """What a cluster shall be.

    Args:
        command: what runs on it, without ``--scheduler``; by default a build, on this machine a small one.
        workers: processes in all; on Slurm and over SSH on each node.
        nodes: jobs on Slurm.
        memory: of one process, in GB.
        port: of the scheduler.
        host: that SSH reaches.
        queue: Slurm's partition.
        walltime: of a job on Slurm.
        image: container image with skyset in it.
        claim: Kubernetes' claim to a volume that all pods may write to.
    """

    command: str = ""
    workers: int = 8
    nodes: int = 4
    memory: int = 4
    port: int = 8786
    host: str = "HOST"
    queue: str = "QUEUE"
    walltime: str = "12:00:00"
    image: str = "IMAGE"
    claim: str = "CLAIM"


def recipe(kind: str, wanted: Wanted) -> str:
    """A shell script, a line each step, with remarks.

    Args:
        kind: one of `KINDS`.
        wanted: what the cluster shall be.

    Raises:
        UserError: there is no such kind, or a number is none of processes.
    """
    if kind not in KINDS:
        raise UserError(f"no recipe for {kind!r}; there are some for {', '.join(KINDS)}")
    if min(wanted.workers, wanted.nodes, wanted.memory) < 1 or not 0 < wanted.port < 65536:
        raise UserError("a cluster has at least one node with one worker with one GB, and a port from 1 to 65535")
    taken = f"# what runs on it: skyset build, {', '.join(COMMANDS)}, each with --scheduler\n"
    usual = "skyset build gz3d --tiny -o gz3d_tiny" if kind == "local" else "skyset build gz3d -o /shared/gz3d"
    return taken + KINDS[kind](replace(wanted, command=wanted.command or usual))


def _worker(wanted: Wanted, address: str) -> str:
    options = (
        f"--nworkers {wanted.workers} --nthreads 1 --memory-limit {wanted.memory}GB --death-timeout {_DEATH} --no-dashboard"
    )
    return f"dask worker {address} {options}"


def _wait(host: str, wanted: Wanted) -> str:
    """Until the scheduler listens; the script ends where it could not start."""
    return f"until (exec 3<>/dev/tcp/{host}/{wanted.port}) 2>/dev/null; do kill -0 $! || exit 1; sleep 1; done"


def _local(wanted: Wanted) -> str:
    address = f"tcp://127.0.0.1:{wanted.port}"
    return f"""\
# {wanted.workers} workers on this machine; needs {install_command("scale")}
dask scheduler --host 127.0.0.1 --port {wanted.port} --no-dashboard & scheduler=$!
{_wait("127.0.0.1", wanted)}
{_worker(wanted, address)} & workers=$!
{wanted.command} --scheduler {address}
kill $workers $scheduler
wait
"""


def _ssh(wanted: Wanted) -> str:
    address = f"tcp://$(hostname):{wanted.port}"
    return f"""\
# {wanted.workers} workers on {wanted.host}. Here and there: the same versions ({install_command("scale")}), the
# same folders under the same names (NFS), and a port {wanted.port} here that {wanted.host} reaches.
dask scheduler --port {wanted.port} --no-dashboard & scheduler=$!
{_wait("$(hostname)", wanted)}
ssh {shlex.quote(wanted.host)} "{_worker(wanted, address)}" & workers=$!
{wanted.command} --scheduler {address}
kill $scheduler  # the workers end {_DEATH} s after it
wait
"""


def _slurm(wanted: Wanted) -> str:
    return f"""\
# {wanted.nodes} jobs of {wanted.workers} workers each. On the login node; environment and folders are those of the nodes:
{install_command("scale")} dask-jobqueue
cat > cluster.py <<'EOF'
import time
from dask_jobqueue import SLURMCluster

cluster = SLURMCluster(
    queue={wanted.queue!r}, walltime={wanted.walltime!r}, cores={wanted.workers}, processes={wanted.workers},
    memory="{wanted.workers * wanted.memory}GB", scheduler_options={{"port": {wanted.port}}},
)
cluster.scale(jobs={wanted.nodes})
print(cluster.job_script(), flush=True)
while True:
    time.sleep(60)
EOF
python cluster.py & cluster=$!
{_wait("$(hostname)", wanted)}  # workers come as the queue lets them
{wanted.command} --scheduler tcp://$(hostname):{wanted.port}
kill $cluster  # the jobs end {_DEATH} s after it
"""


def _kubernetes(wanted: Wanted) -> str:
    return f"""\
# {wanted.workers} pods. Once for each Kubernetes cluster, Dask's operator:
helm install --repo https://helm.dask.org --create-namespace -n dask-operator --generate-name dask-kubernetes-operator
# {wanted.image}: FROM python:3.12, RUN {install_command("scale")}
# {wanted.claim}: a PersistentVolumeClaim (ReadWriteMany). Then, in a pod of that image that has it as /shared:
pip install dask-kubernetes
cat > cluster.py <<'EOF'
from dask_kubernetes.operator import KubeCluster, make_cluster_spec

needs = {{"cpu": "1", "memory": "{wanted.memory}G"}}
spec = make_cluster_spec(
    "skyset", image={wanted.image!r}, n_workers={wanted.workers}, resources={{"requests": needs, "limits": needs}},
    worker_command="dask worker --nthreads 1",
)
pod = spec["spec"]["worker"]["spec"]
pod["volumes"] = [{{"name": "shared", "persistentVolumeClaim": {{"claimName": {wanted.claim!r}}}}}]
pod["containers"][0]["volumeMounts"] = [{{"name": "shared", "mountPath": "/shared"}}]
KubeCluster(custom_cluster_spec=spec, shutdown_on_close=False)
EOF
python cluster.py
{wanted.command} --scheduler tcp://skyset-scheduler:8786
kubectl delete daskcluster skyset
"""


KINDS: dict[str, Callable[[Wanted], str]] = {"slurm": _slurm, "kubernetes": _kubernetes, "ssh": _ssh, "local": _local}
