"""The whole job, from JPEG files to a student as good as timm's: how long it takes here, and how long there.

    python benchmarks/speed/to_accuracy.py --photos PHOTOS --classes cat dog bird --student-weights FILE

PHOTOS has {train,test}/CLASS/. A fixed 15 % of `train` is `val` on both sides. EfficientNet-Lite0 with a dense head
teaches MobileNet v1 ×0.25 at 128 px, both from ImageNet weights. timm trains as its documentation has it
(LogitDistillationTask, ImageDataset, create_loader with two workers, AdamW and cosine), with our learning rate, crops
and flips; its teacher gets its head from features that are computed once, and sees the student's pictures. Its time is
that of head and training, without looking at val and test. Potstill runs `distill` with one seed and no pilots, from
decoding photos to the scored student, at rising lengths; the first that is as good as timm's student on val counts.
The twin is trained beside it, as always. Test is only told.

Adds a row to results.csv.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STUDENT, TEACHER, SIZE = "mobilenetv1_025", "efficientnet_lite0", 128
EPOCHS, BATCH, LR, WEIGHT_DECAY, TASK_WEIGHT, TEMPERATURE, MIN_SCALE = 20, 64, 3e-3, 0.02, 0.3, 2.0, 0.25
LENGTHS = ((4, 12), (8, 24), (16, 48))
"""Potstill's stored views per photo, and epochs."""
VAL_SHARE = 0.15


def split(photos: Path, classes: list[str], out: Path) -> Path:
    """{train,val,test}/CLASS/ of links: val by the hash of the name."""
    for part in ("train", "test"):
        for name in classes:
            for file in sorted((photos / part / name).iterdir()):
                chance = int(hashlib.sha256(file.name.encode()).hexdigest()[:8], 16) / 2**32
                target = out / ("val" if part == "train" and chance < VAL_SHARE else part) / name
                target.mkdir(parents=True, exist_ok=True)
                (target / file.name).symlink_to(file.resolve())
    return out


def theirs(photos: Path, weights: str, seed: int) -> dict[str, Any]:
    """Teacher's head, then timm's task; seconds of both, and how right the student is."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.task import LogitDistillationTask

    from potstill.models import build, describe

    torch.set_num_threads(2)
    torch.manual_seed(seed)
    cpu = torch.device("cpu")
    names = sorted(p.name for p in (photos / "train").iterdir())
    teacher = build(describe(TEACHER, names, size=SIZE), weights="package").net
    student = build(describe(STUDENT, names, size=SIZE), weights=weights, seed=seed).net
    student.to(memory_format=torch.channels_last)
    teacher.to(memory_format=torch.channels_last).eval()

    def loader(part: str, *, training: bool, model: Any) -> Any:
        cfg = model.pretrained_cfg
        return create_loader(
            ImageDataset(str(photos / part)),
            input_size=(3, SIZE, SIZE),
            batch_size=BATCH,
            is_training=training,
            scale=(MIN_SCALE, 1.0) if training else None,
            hflip=0.5,
            color_jitter=0.3,
            mean=cfg["mean"],
            std=cfg["std"],
            crop_pct=1.0,
            num_workers=2,
            persistent_workers=True,
            use_prefetcher=False,
            device=cpu,
        )

    def right(model: Any, part: str) -> float:
        model.eval()
        hits = total = 0
        with torch.inference_mode():
            for pixels, labels in loader(part, training=False, model=model):
                hits += int((model(pixels).argmax(-1) == labels).sum())
                total += len(labels)
        return hits / total

    started = time.perf_counter()
    with torch.inference_mode():
        seen = [
            (teacher.forward_head(teacher.forward_features(x), pre_logits=True), y)
            for x, y in loader("train", training=False, model=teacher)
        ]
    features, labels = torch.cat([a for a, _ in seen]).clone(), torch.cat([b for _, b in seen])
    head = teacher.get_classifier()
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    seconds = time.perf_counter() - started
    said = {"teacher_test": right(teacher, "test")}

    started = time.perf_counter()
    task = LogitDistillationTask(
        student_model=student,
        teacher_model=teacher,
        task_loss_weight=TASK_WEIGHT,
        temperature=TEMPERATURE,
        device=cpu,
        verbose=False,
    )
    optimizer = create_optimizer_v2(student, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = CosineLRScheduler(optimizer, t_initial=EPOCHS, warmup_t=1, warmup_lr_init=LR / 10, warmup_prefix=True)
    photos_of = loader("train", training=True, model=student)
    for epoch in range(EPOCHS):
        schedule.step(epoch)
        student.train()
        for pixels, targets in photos_of:
            result = task(pixels.contiguous(memory_format=torch.channels_last), targets)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
    seconds += time.perf_counter() - started
    return {
        **said,
        "seconds": seconds,
        "val": right(student, "val"),
        "test": right(student, "test"),
        "versions": f"timm {timm.__version__} torch {torch.__version__}",
    }


def ours(photos: Path, weights: str, seed: int, views: int, epochs: int) -> dict[str, Any]:
    """One `distill`, with its own clock around it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = {
            "student.models": f"{STUDENT}@{SIZE}={weights}",
            "teacher.model": TEACHER,
            "teacher.probe-views": "1",
            "teacher.folds": "2",
            "views.count": str(views),
            "views.seed": str(seed),
            "student.epochs": str(epochs),
            "student.pilot-share": "0",
            "seeds": "1",
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        started = time.perf_counter()
        _call([sys.executable, "-m", "potstill", "distill", str(photos), "--run", str(run), *flags])
        seconds = time.perf_counter() - started
        (comparison,) = json.loads((run / "5_comparison" / "comparison.json").read_text())["students"]
        (done,) = run.glob("4_students/*/seed-0/distilled/done.json")
        val = json.loads(done.read_text())["val_accuracy"]
        return {"seconds": seconds, "val": val, "test": comparison["distilled"]["accuracy"]["value"], "views": views}


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    """Alternate both sides, print and write."""
    from peers import said

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--student-weights", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--theirs", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.theirs is not None:
        print(json.dumps(theirs(arguments.photos, arguments.student_weights, arguments.theirs)))
        return
    work = Path(tempfile.mkdtemp())
    photos = split(arguments.photos, arguments.classes, work / "photos")
    here = [sys.executable, __file__, "--photos", str(photos), "--student-weights", arguments.student_weights]
    rounds = []
    for seed in range(arguments.rounds):
        command = [*here, "--classes", *arguments.classes, "--theirs", str(seed)]
        peer = said(command, {})
        print(f"timm, seed {seed}: {peer}", flush=True)
        for views, epochs in LENGTHS:
            mine = ours(photos, arguments.student_weights, seed, views, epochs)
            print(f"potstill, {views} views, {epochs} epochs: {mine}", flush=True)
            if mine["val"] >= peer["val"]:
                rounds.append((mine, peer))
                break
        else:
            print(f"potstill did not reach timm's {peer['val']:.1%} on val", flush=True)
    shutil.rmtree(work)
    if rounds:
        write(rounds, arguments.rounds, arguments.out)


def write(rounds: list[tuple[dict[str, Any], dict[str, Any]]], wanted: int, out: Path) -> None:
    """One row: seconds; the accuracies stand in its name."""
    from peers import row_of
    from run import Row, add_rows

    pairs = [(mine["seconds"], peer["seconds"]) for mine, peer in rounds]
    test = [statistics.mean(pair[side]["test"] for pair in rounds) for side in (0, 1)]
    reached = "" if len(rounds) == wanted else f", reached in {len(rounds)} of {wanted} rounds"
    what = f"whole job to timm's accuracy on val (test: {test[0]:.1%}, timm {test[1]:.1%}){reached}"
    add_rows(out, [row_of(Row, what, "s", "≤ 1/3", pairs, rounds[0][1]["versions"])])


if __name__ == "__main__":
    main()
