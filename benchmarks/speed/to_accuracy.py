"""The whole job, from JPEG files to a student as good as timm's: how long it takes here, and how long there.

    python benchmarks/speed/to_accuracy.py --photos PHOTOS --classes cat dog bird --student-weights FILE

PHOTOS has {train,test}/CLASS/. A fixed 15 % of `train` is `val` on both sides. EfficientNet-Lite0 with a dense head
teaches MobileNet v1 ×0.25 at 128 px, both from ImageNet weights. timm trains as its documentation has it
(LogitDistillationTask, ImageDataset, create_loader with two workers, AdamW and cosine), with our learning rate, crops
and flips; its teacher gets its head from features that are computed once, and sees the student's pictures. Its time is
that of head and training, without looking at val and test. Potstill's is that of photos, teacher, soft labels and the
student, of a length that was fixed before; a run trains the twin on top of it. Neither counts the import of its
libraries. Both are judged on val and on test, which Potstill does not choose anything by here.

Adds a row to results.csv.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STUDENT, TEACHER, SIZE = "mobilenetv1_025", "efficientnet_lite0", 128
EPOCHS, BATCH, LR, WEIGHT_DECAY, TASK_WEIGHT, TEMPERATURE, MIN_SCALE = 20, 64, 3e-3, 0.02, 0.3, 2.0, 0.25
VIEWS, OUR_EPOCHS, TEACHER_SIZE = 6, 20, 160
"""Potstill's stored views per photo, epochs, and what its teacher looks at, in pixels."""
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

    from potstill.models.classifier import build, describe

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


def ours(photos: Path, weights: str, seed: int) -> dict[str, Any]:
    """Stages 1 to 3 and one student, as a run has them but for the twin, with their times and how right it is."""
    import torch
    from peers import before_students

    from potstill import metrics
    from potstill.compute.device import decide
    from potstill.compute.inference import plain_outputs
    from potstill.compute.precision import Precision
    from potstill.compute.selection import fastest_precision, fastest_threads
    from potstill.compute.timing import Workload
    from potstill.config.schema import MachineConfig, TeacherConfig, ViewsConfig
    from potstill.context import Context
    from potstill.data.pixels import PixelStore
    from potstill.models.classifier import build, describe, load
    from potstill.monitoring.progress import Reporter
    from potstill.run.folder import Run
    from potstill.students.recipe import Job, Recipe
    from potstill.students.runner import JobRunner

    machine = decide(MachineConfig())
    torch.set_num_threads(machine.cores)
    teacher = TeacherConfig(model=(TEACHER,), size=TEACHER_SIZE, probe_views=1, folds=2)
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(Path(temporary) / "run")
        stages = before_students(photos, run, machine, teacher, ViewsConfig(seed=seed), VIEWS)
        started = time.perf_counter()
        student = build(describe(STUDENT, run.classes(), size=SIZE), weights=weights)
        precision, _ = fastest_precision(student, SIZE, machine, training=True)
        recipe = Recipe(
            epochs=OUR_EPOCHS,
            batch_size=BATCH,
            lr=LR,
            weight_decay=WEIGHT_DECAY,
            ema=0.998,
            dtype=precision.name,
            soft_labels="",
            distill_weight=1.0,
            feature_weight=1.0,
            task_weight=0.3,
        )
        job = Job(run.students / "distilled", STUDENT, SIZE, weights, seed, recipe)
        work = Workload(size=SIZE, batch=BATCH, photos=0, trainings=1)
        threads, _ = fastest_threads(student, work, precision, machine)
        JobRunner(Context(run, machine, Reporter(quiet=True))).run([job], "student", threads)
        stages["student"] = time.perf_counter() - started
        model, store = load(job.folder), PixelStore(run.images)

        def right(part: Literal["val", "test"]) -> float:
            rows = store.rows(part)
            _, logits = plain_outputs(model, store, rows, Precision(torch.device("cpu")), threads=machine.cores)
            return metrics.accuracy(logits, store.labels(rows))

        return {
            "seconds": sum(stages.values()),
            "threads": threads,
            "stages": stages,
            "val": right("val"),
            "test": right("test"),
        }


SIDES = {"potstill": ours, "timm": theirs}


def main() -> None:
    """Alternate both sides, print and write."""
    from peers import said

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--student-weights", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.photos, arguments.student_weights, arguments.seed)))
        return
    here = [sys.executable, __file__, "--student-weights", arguments.student_weights]
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as work:
        photos = split(arguments.photos, arguments.classes, Path(work))
        here += ["--photos", str(photos), "--classes", *arguments.classes]
        for seed in range(arguments.rounds):
            rounds.append({side: said([*here, "--side", side, "--seed", str(seed)], {}) for side in SIDES})
            print(f"seed {seed}: {rounds[-1]}", flush=True)
    write(rounds, arguments.out)


def write(rounds: list[dict[str, dict[str, Any]]], out: Path) -> None:
    """One row: seconds; the accuracies stand in its name."""
    from peers import row_of
    from run import Row, add_rows

    pairs = [(both["potstill"]["seconds"], both["timm"]["seconds"]) for both in rounds]
    right = {
        part: " and ".join(f"{statistics.mean(both[side][part] for both in rounds):.1%}" for side in SIDES)
        for part in ("val", "test")
    }
    what = f"whole job, as right as timm's (val {right['val']}, test {right['test']})"
    add_rows(out, [row_of(Row, what, "s", "≤ 1/3", pairs, rounds[0]["timm"]["versions"])])


if __name__ == "__main__":
    main()
