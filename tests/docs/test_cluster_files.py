"""The files for clusters, which tests cannot run (`tools/try_slurm.sh` runs one): they are well formed, have only
fields that exist, and start a command that Potstill understands."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from potstill.config.load import settings

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"

JOB = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
    "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
    "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
CLUSTER = {
    "suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs",
}  # fmt: skip
HEAD = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKERS = {
    "suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams",
    "template", "scaleStrategy", "numOfHosts",
}  # fmt: skip
"""The fields that the reference of ray.io/v1 in KubeRay's repository names."""


def command_of(words: list[str]) -> list[str]:
    """The `potstill` command among words."""
    return words[words.index("potstill") :]


def check_command(command: list[str]) -> None:
    known = {setting.name for setting in settings()}
    assert command[:2] == ["potstill", "distill"]
    given = dict(zip(command[3::2], command[4::2], strict=True))
    assert given["--machine.engine"] == "ray"
    for flag in given:
        assert flag == "--run" or flag.removeprefix("--") in known


def test_the_job_for_kubernetes() -> None:
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert spec.keys() <= JOB
    assert cluster.keys() <= CLUSTER
    assert groups[0].keys() <= HEAD
    assert all(group.keys() <= WORKERS for group in groups[1:])
    command = shlex.split(spec["entrypoint"])
    check_command(command)
    for group in groups:
        check_pod(group["template"]["spec"], command)


def check_pod(pod: dict[str, Any], command: list[str]) -> None:
    """Photos and run lie on a volume that is mounted."""
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    for path in (command[2], command[command.index("--run") + 1]):
        assert any(path.startswith(f"{mount}/") for mount in mounts.values())
    limits = container["resources"]["limits"]
    assert all(limits[name] == value for name, value in container["resources"]["requests"].items())


def test_the_script_for_slurm() -> None:
    script = FOLDER / "slurm.sh"
    if bash := shutil.which("bash"):
        subprocess.run([bash, "-n", str(script)], check=True)
    lines = script.read_text("utf-8").replace("\\\n", " ").splitlines()
    [srun] = [line for line in lines if line.startswith("srun")]
    check_command(command_of(shlex.split(srun)))


def test_the_page_says_which_was_tried() -> None:
    text = PAGE.read_text("utf-8")
    for name in ("kuberay.yaml", "slurm.sh"):
        assert f"examples/cluster/{name}" in text
    assert "has not been run on Kubernetes" in text
