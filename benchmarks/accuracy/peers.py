"""Other tools on the photos of a Potstill run: the same split, student, starting weights, teacher and minutes.

    python benchmarks/accuracy/peers.py --run RUN --set flowers --regime few-labels --student-weights WEIGHTS \\
        --minutes 30 --seeds 3

RUN is a finished run of `potstill distill` with EfficientNet-Lite0 as teacher and MobileNet v1 ×0.25 at 128 px as
student (benchmarks/accuracy/run.py makes them). Its 1_images/images.csv says which files are train, val, test and
unlabeled; copies that it left out are left out for all.

lightly-train   distillation of the teacher's features on all photos, then its classifier on the labeled ones
timm            the teacher fine-tuned on the labels, then timm.task.LogitDistillationTask
torchdistill    the teacher fine-tuned on the labels, then KDLoss
keras           transfer learning without a teacher, as Keras' guide has it

Each tool trains as its documentation has it, for `--minutes` per seed: its own augmentation, optimizer and schedule.
Val chooses the checkpoint; test is scored once, at the end. `--minutes` covers training with all checks on val, teacher
included, not imports and not the installation. To give a tool what a whole job of Potstill takes, take `minutes` of the
run's row in differences.csv.

Each tool is installed in an environment of its own below `--envs` (once; over 5 GB where torch brings CUDA). A seed
that is finished is not trained again: what was predicted stays in `--work`. One row per tool goes to peers.csv.
`difference` is Potstill's distilled student minus the peer, paired over photos and seeds, on the same test photos.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Row, Table, commit, matching, today
from safetensors.torch import save_file

from potstill import metrics
from potstill.models.weights import initial_weights
from potstill.models.zoo import CLASSICS, construct
from potstill.run.cache import cache_folder
from potstill.run.files import read_json, write_text
from potstill.run.folder import Run
from potstill.run.layout import student_names

HERE = Path(__file__).resolve().parent
STUDENT, SIZE = "mobilenetv1_025", 128
TEACHER = "tf_efficientnet_lite0"
TOOLS = {
    "lightly-train": ("lightly-train[timm]", "safetensors"),
    "timm": ("timm", "safetensors"),
    "torchdistill": ("torchdistill", "timm", "torchvision", "safetensors"),
    "keras": ("keras", "tensorflow-cpu", "safetensors"),
}
"""What is installed for each."""
COLUMNS = (
    "set",
    "regime",
    "tool",
    "version",
    "student",
    "seeds",
    "accuracy",
    "low",
    "high",
    "errors",
    "n",
    "potstill",
    "difference",
    "difference_low",
    "difference_high",
    "budget",
    "minutes",
    "settings",
    "commit",
    "date",
)
"""`budget`: the minutes that each training was given. `minutes`, `errors`: means over the seeds. `potstill`: the
accuracy of its distilled student."""
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Work:
    """What all tools train on."""

    folder: Path
    run: Run

    def prepare(self, student_weights: Path) -> None:
        """Make the folder of links and weights that peer_tools/common.py describes, unless it is there."""
        if (self.folder / "ready").is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.link_photos()
        self._weights(student_weights)
        write_text(self.folder / "ready", "")

    def link_photos(self) -> None:
        """Every photo of the run, in the split and class that it has there."""
        data = Path(tomllib.loads((self.run.path / "config.toml").read_text("utf-8"))["data"])
        with (self.run.images / "images.csv").open(newline="", encoding="utf-8") as file:
            for photo in csv.DictReader(file):
                source = data / photo["path"]
                place = self.folder / photo["split"] / photo["class"]  # no class: unlabeled
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{photo['row']}{source.suffix}").symlink_to(source.resolve(strict=True))

    def _weights(self, student_weights: Path) -> None:
        """Both models' ImageNet weights under timm's names, and features of random pixels to check a conversion by."""
        architecture, arguments, _ = CLASSICS[STUDENT]
        student, _ = initial_weights(architecture, arguments, str(student_weights))
        teacher, _ = initial_weights(TEACHER, {}, "package")
        assert student is not None
        assert teacher is not None
        for name, state in (("student", student), ("teacher", teacher)):
            whole = {key: tensor.contiguous() for key, tensor in state.items()}
            save_file(whole, self.folder / f"{name}.safetensors")
        net: Any = construct(architecture, arguments).eval()
        net.load_state_dict(student, strict=False)
        pixels = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.inference_mode():
            features = net.forward_head(net.forward_features(pixels), pre_logits=True)
        np.savez(self.folder / "probe.npz", pixels=pixels.numpy(), features=features.numpy())

    def correct(self, tool: str, seeds: int) -> np.ndarray:
        """(S, n) bool: whether a tool is right about each test photo, in the order of the run's predictions."""
        labels, rows = self._test()
        found = [read_json(self.result(tool, seed))["predicted"] for seed in range(seeds)]
        return np.array([[one[str(row)] == label for row, label in zip(rows, labels, strict=True)] for one in found])

    def correct_here(self, seeds: int) -> np.ndarray | None:
        """The same of Potstill's distilled student; None where the run has fewer seeds."""
        (name,) = student_names(self.run)
        with np.load(self.run.comparison / "predictions.npz", allow_pickle=False) as stored:
            right = stored[f"{name}/distilled"].argmax(-1) == stored["labels"]
        return right[:seeds] if len(right) >= seeds else None

    def _test(self) -> tuple[list[int], list[int]]:
        with np.load(self.run.comparison / "predictions.npz", allow_pickle=False) as stored:
            return stored["labels"].tolist(), stored["rows"].tolist()

    def result(self, tool: str, seed: int) -> Path:
        """Where a finished seed's result is."""
        return self.folder / "results" / tool / f"seed-{seed}" / "result.json"


def python_of(tool: str, envs: Path) -> Path:
    """The interpreter of the tool's environment, made at the first call."""
    folder = envs / tool
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").is_file():
        print(f"Installing {tool} in {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *TOOLS[tool]], check=True)
        write_text(folder / "ready", "")
    return python


def train(tool: str, seed: int, minutes: float, work: Work, python: Path) -> None:
    """One training in the tool's environment. What it prints goes to log.txt beside its result."""
    out = work.result(tool, seed).parent
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    script = HERE / "peer_tools" / f"run_{tool.replace('-', '_')}.py"
    command = [str(python), str(script), "--work", str(work.folder), "--minutes", str(minutes)]
    command += ["--seed", str(seed), "--out", str(out)]
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "LIGHTLY_TRAIN_EVENTS_DISABLED": "true"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    with (out / "log.txt").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)


def row_of(tool: str, seeds: int, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """What the tool's seeds gave."""
    results = [read_json(work.result(tool, seed)) for seed in range(seeds)]
    right, here = work.correct(tool, seeds), work.correct_here(seeds)
    accuracy = metrics.bootstrap_mean(right.astype(float), resamples=RESAMPLES)
    lead = None
    if here is not None:
        lead = metrics.bootstrap_mean(here.astype(float) - right.astype(float), resamples=RESAMPLES)
    return {
        "set": options.set,
        "regime": options.regime,
        "tool": tool,
        "version": ", ".join(f"{name} {number}" for name, number in results[0]["versions"].items()),
        "student": f"{STUDENT}@{SIZE}",
        "seeds": seeds,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "errors": float((~right).sum(1).mean()),
        "n": right.shape[1],
        "potstill": None if here is None else float(here.mean()),
        "difference": lead and lead.value,
        "difference_low": lead and lead.low,
        "difference_high": lead and lead.high,
        "budget": f"{options.minutes:g}",
        "minutes": sum(result["seconds"] for result in results) / 60 / seeds,
        "settings": results[0]["settings"],
        "commit": commit(HERE.parents[1]),
        "date": today(),
    }


def is_known(rows: Sequence[Row], tool: str, options: argparse.Namespace) -> bool:
    """Whether the tool has its row."""
    wanted = {"set": options.set, "regime": options.regime, "tool": tool, "seeds": str(options.seeds)}
    return bool(matching(rows, {**wanted, "budget": f"{options.minutes:g}"}))


def main() -> int:
    """All tools, one after the other. One that fails is reported, and the others go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--set", required=True, help="the name of the photos, for the table")
    parser.add_argument("--regime", required=True, help="the regime that the run belongs to, for the table")
    parser.add_argument(
        "--student-weights", type=Path, required=True, help="the file that the run's student began with"
    )
    parser.add_argument("--minutes", type=float, required=True, help="for each training")
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--envs", type=Path, default=cache_folder() / "peers")
    parser.add_argument("--work", type=Path, default=Path("runs/peers"))
    parser.add_argument("--out", type=Path, default=HERE / "peers.csv")
    options = parser.parse_args()
    table = Table(options.out, COLUMNS)
    name = f"{options.set}_{options.regime}_{options.minutes:g}-minutes"
    work = Work((options.work / name).resolve(), Run.open(options.run))
    work.prepare(options.student_weights)
    failed = []
    for tool in options.tools:
        if is_known(table.read(), tool, options):
            print(f"{tool}: has its row already", flush=True)
            continue
        try:
            python = python_of(tool, options.envs)
            for seed in range(options.seeds):
                if not work.result(tool, seed).is_file():
                    train(tool, seed, options.minutes, work, python)
        except subprocess.CalledProcessError as error:
            failed.append(tool)
            print(f"{tool}: failed ({error}); see {work.folder / 'results' / tool}", flush=True)
            continue
        row = row_of(tool, options.seeds, work, options)
        table.add([row])
        print(f"{tool}: {row['accuracy']:.1%} in {row['minutes']:.1f} minutes per seed", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
