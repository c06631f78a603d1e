"""Uploading a student to a model hub, in the layout that timm loads from there: `hf_hub:OWNER/NAME`."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from potstill.errors import ExportError
from potstill.export.load import verify
from potstill.export.manifest import MANIFEST, read_manifest
from potstill.export.results import exported_student, read_results
from potstill.run.files import read_json, sha256_of, write_json
from potstill.run.folder import Run
from potstill.run.layout import model_folder


def write_timm(run: Run, student: str, folder: Path) -> None:
    """`model.safetensors` and `config.json` as timm reads them: `timm.create_model("local-dir:FOLDER")`.

    Raises:
        ExportError: timm cannot build the student by a name. Then there is no config.json: the weights, under timm's
            names of tensors, and Potstill's `model.json` are there.
    """
    facts = exported_student(run, student)
    source = model_folder(run, student, facts.seed, facts.arm)
    info = read_json(source / "model.json")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(load_file(source / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "model.json", {**info, "sha256": sha256_of(folder / "model.safetensors")})
    architecture, arguments = timm_name(info)
    size = int(info["size"])
    config = {
        "architecture": architecture,
        "num_classes": len(info["classes"]),
        "label_names": info["classes"],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": info.get("crop_pct", 1.0),
            "crop_mode": "center",
            "mean": info["mean"],
            "std": info["std"],
            "num_classes": len(info["classes"]),
            "label_names": info["classes"],
        },
    }
    write_json(folder / "config.json", config)


def timm_name(info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and arguments by which timm builds the model of a model.json. Raises ExportError."""
    if info["head_width"]:
        raise ExportError(f"{info['name']} has a head with a hidden layer, which timm cannot build.")
    architecture, arguments = info["architecture"], dict(info["arguments"])
    if architecture == "mobilenetv1":  # potstill's name for timm's generator with any width
        width = arguments.pop("channel_multiplier", 1.0)
        if width != 1:
            raise ExportError(
                f"{info['name']} is {width:g} times as wide as MobileNet v1, and timm's names have no such width."
            )
        return "mobilenetv1_100", arguments
    return architecture.split(".")[0], arguments


def push(run: Run, repository: str, *, student: str | None = None, private: bool = False) -> str:
    """Upload the exported files, the weights for timm and the card, in one commit.

    Args:
        repository: OWNER/NAME; made where it is not there yet.
        student: the first exported one when None.
    Returns:
        The address of the commit.
    Raises:
        ExportError: nothing is exported, a file is not the one that was scored, or the hub refuses.
    """
    results = read_results(run)
    students = results.students if results else {}
    name = student or next(iter(students), None)
    if name is None or name not in students or not (run.export / name / MANIFEST).is_file():
        raise ExportError(f"{run.export} has no exported student. Run `potstill export {run.path} --to onnx` first.")
    exported = run.export / name
    for file in read_manifest(exported).files:
        verify(exported / file)
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint:  # hubs of one's own speak LFS; the newer Xet protocol needs the public hub's storage
        constants.HF_HUB_DISABLE_XET = True
    hub = HfApi(endpoint=endpoint, library_name="potstill")
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary)
        with contextlib.suppress(ExportError):  # what timm cannot build is uploaded without timm's config.json
            write_timm(run, name, weights)
        kept = [p for p in sorted(exported.rglob("*")) if p.is_file() and "web" not in p.relative_to(exported).parts]
        files = [(p.relative_to(exported), p) for p in kept]
        files += [(p.relative_to(weights), p) for p in sorted(weights.iterdir())]
        operations = [CommitOperationAdd(inside.as_posix(), str(path)) for inside, path in files]
        try:
            hub.create_repo(repository, private=private, exist_ok=True)
            commit = hub.create_commit(repository, operations, commit_message=f"Add {name}")
        except LocalTokenNotFoundError:
            raise ExportError("There is no token for the hub. Set HF_TOKEN, or run `hf auth login`.") from None
        except (HfHubHTTPError, OSError, ValueError) as error:
            if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 401:
                raise ExportError("The hub does not take the token. Set HF_TOKEN, or run `hf auth login`.") from None
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"The hub did not take {repository}: {reason}") from None
    return str(commit.commit_url)
