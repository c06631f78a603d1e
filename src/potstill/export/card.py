"""The model card: README.md beside the exported files, in the model hub's format. It says what the run measured."""

import json
import re
from collections.abc import Sequence
from typing import Any

from potstill import metrics
from potstill.errors import ExportError
from potstill.export.hub import timm_name
from potstill.export.reference import input_rule
from potstill.export.results import ExportedStudent, exported_student, formats_table
from potstill.metrics import Interval
from potstill.run.files import read_json, write_text
from potstill.run.folder import Run
from potstill.run.label_results import LabelComparison, read_label_comparison
from potstill.run.layout import comparison_path, model_folder
from potstill.run.private import without_owner
from potstill.run.results import Comparison, StudentResult, read_comparison
from potstill.wording import counted

_MARKDOWN = re.compile(r"[<>&\"'`|*\[\](){}$\\~#!]|(?<=\W)_|_(?=\W)|^_|_$")
"""What has a meaning in Markdown or HTML; `_` only at the ends of a word, as names of models are full of it."""


def write_card(run: Run, student: str) -> bool:
    """Write `6_export/STUDENT/README.md` from comparison.json and export.json.

    Returns:
        False where the student has not been compared yet; the card says so.
    """
    facts = exported_student(run, student)
    info = read_json(model_folder(run, student, facts.seed, facts.arm) / "model.json")
    path = comparison_path(run)
    if facts.thresholds:
        scores = read_label_comparison(path) if path.is_file() else None
        known = scores is not None and any(s.name == student for s in scores.students)
        text = _text_for_several_labels(student, facts, info, scores if known else None)
        write_text(run.export / student / "README.md", "\n".join([_front_matter(student, facts, info), text]))
        return known
    comparison = read_comparison(path) if path.is_file() else None
    numbers = next((s for s in comparison.students if s.name == student), None) if comparison else None
    if comparison and numbers:
        text = _text(student, facts, comparison, numbers, info, _teacher_source(run))
    else:
        text = _text_without_comparison(student, facts, info)
    write_text(run.export / student / "README.md", "\n".join([_front_matter(student, facts, info), text]))
    return numbers is not None


def _front_matter(student: str, facts: ExportedStudent, info: dict[str, Any]) -> str:
    """What the hub reads. The license is not guessed: the owner of the photos and weights has to set it."""
    accuracy, name = facts.accuracy.value, "mean_average_precision" if facts.thresholds else "accuracy"
    return f"""---
library_name: {"timm" if _in_timm(info) else "potstill"}
pipeline_tag: image-classification
license: other
license_name: see-licenses
license_link: "#licenses"
tags:
- image-classification
- timm
- knowledge-distillation
- potstill
metrics:
- {name}
model-index:
- name: {json.dumps(student)}
  results:
  - task:
      type: image-classification
    dataset:
      type: imagefolder
      name: test photos of the run
    metrics:
    - type: {name}
      value: {accuracy:.4f}
---
"""


def _text(
    student: str,
    facts: ExportedStudent,
    comparison: Comparison,
    numbers: StudentResult,
    info: dict[str, Any],
    teacher_source: str,
) -> str:
    classes = facts.classes
    teacher = comparison.teacher
    confidence = metrics.percent(facts.confidence)
    per_class = "\n".join(
        f"| {_plain(row.name)} | {row.photos} | {row.distilled:.1%} | {row.teacher:.1%} |" for row in numbers.per_class
    )
    trained_from = "from scratch" if not numbers.pretrained else _source(info["weights"])
    return f"""# {_plain(student)}: {_listed(classes)}

A small image classifier: it tells which of {len(classes)} classes a photo shows ({_listed(classes)}). It was distilled
from {_listed(teacher.models)} with Potstill.
It has {numbers.parameters:,} parameters and takes
{numbers.macs / 1e6:.0f} million multiply-accumulates per photo of {facts.size} x {facts.size} pixels.

## What it is for

Photos like those it was trained and tested on, of one of these classes each. `probabilities` are calibrated on
validation photos (temperature {facts.temperature:.3f}). A highest probability below
{facts.threshold:.3f} is lower than on 95 % of the validation photos: the photo may show none of the classes.
{_operating_point(facts, numbers)}

## How to use it

Input: {input_rule(facts.size, facts.crop)}

Labels, in the order of the output: {", ".join(map(_code, classes))}. They are also in every file, and in
`manifest.json` with the sha256 of each file. {_weights(info)}

## How good it is

On {counted(facts.test_photos, "test photo")} that nothing was trained or chosen on, with {confidence} intervals:

| | accuracy |
|---|--:|
| this model (seed {facts.seed}) | {_interval(facts.accuracy)} |
| this architecture, distilled, mean of {counted(comparison.seeds, "seed")} | {_interval(numbers.distilled.accuracy)} |
| the same, trained without the teacher | {_interval(numbers.alone.accuracy)} |
| the teacher | {_interval(teacher.accuracy)} |

{numbers.verdict}

| class | test photos | this architecture | teacher |
|---|--:|--:|--:|
{per_class}

## The files

Each was run by its own runtime on the test photos, on one thread of {comparison.environment.processor}.

{without_owner(formats_table(facts.files))}
## Data and licenses

- Photos: collected by whoever made the run; {facts.test_photos:,} of them for the test. Potstill does not know their
  license. Whoever publishes this model has to say it here.
- Starting weights of the student: {trained_from}.
- {teacher_source}

## Limits

- The numbers hold for photos like the test photos: same cameras, places and seasons. Elsewhere, test again.
- It always answers with one of its classes, whatever the photo shows; use the threshold.
- A difference of accuracy below about {numbers.smallest_visible_difference:.1%} cannot be seen with so few photos.
- Files marked "not run" could not be run on the machine that made them.
"""


def _operating_point(facts: ExportedStudent, numbers: StudentResult) -> str:
    """From which probability on a photo counts as one of a class, and what came of it on the test photos."""
    point, found = facts.operating_point, numbers.distilled.operating
    if point is None:
        return ""
    text = (
        f"\n**Operating point:** a photo whose probability of {point.class_name} is at least {point.threshold:.4f} "
        f"counts as {point.class_name}, otherwise as the most probable of the other classes. The threshold was placed "
        f"on validation photos to find {point.recall:.1%} of {point.class_name}."
    )
    if found is None:
        return text + "\n"
    return (
        f"{text} On the test photos, mean over the seeds, it finds {_interval(found.recall)} of them and takes "
        f"{_interval(found.false_alarms)} of the other photos for {point.class_name}.\n"
    )


def _text_without_comparison(student: str, facts: ExportedStudent, info: dict[str, Any]) -> str:
    confidence = metrics.percent(facts.confidence)
    return f"""# {student}: {_listed(facts.classes)}

A small image classifier for photos of {len(facts.classes)} classes ({_listed(facts.classes)}), distilled with Potstill.
**Nothing was compared**: neither its teacher nor its twin, the same model trained without
a teacher, was measured on the test photos, so what distillation gained is not known.

## How to use it

Input: {input_rule(facts.size, facts.crop)}

Labels, in the order of the output: {_listed([f"`{name}`" for name in facts.classes])}. {_weights(info)}

## How good it is

Accuracy {_interval(facts.accuracy)} on {counted(facts.test_photos, "test photo")}, with a {confidence} interval.

## The files

Each was run by its own runtime on the test photos.

{formats_table(facts.files)}
## Data and licenses

- Photos: collected by whoever made the run. Potstill does not know their license. Whoever publishes this model has to
  say it here.
- Starting weights of the student: {_source(info["weights"])}.
"""


def _teacher_source(run: Run) -> str:
    """Where the teacher comes from, as a sentence."""
    external = run.stage("2_teacher").facts()["inputs"].get("external")
    if external is None:
        return "The teacher's weights and their license are in the run's `2_teacher/`, in model.json."
    weights = external["weights"]
    return (
        f"The teacher is the file {_code(weights['file'])} (sha256 `{weights['sha256']}`), used as it is. Potstill "
        "does not know its license."
    )


def _text_for_several_labels(
    student: str, facts: ExportedStudent, info: dict[str, Any], comparison: LabelComparison | None
) -> str:
    """The card of a model that gives a photo several labels."""
    confidence = metrics.percent(facts.confidence)
    found = comparison.student(student) if comparison else None
    rows = [f"| this model (seed {facts.seed}) | {_interval(facts.accuracy)} | |"]
    if comparison and found:
        scores = (
            (
                f"this architecture, distilled, mean of {counted(comparison.seeds, 'seed')}",
                found.distilled,
            ),
            ("the same, trained without the teacher", found.alone),
            ("the teacher", comparison.teacher),
        )
        rows += [f"| {who} | {_interval(s.mean_average_precision)} | {_interval(s.macro_f1)} |" for who, s in scores]
    verdict = found.verdict if found else "**Nothing was compared**, so what distillation gained is not known."
    thresholds = "\n".join(
        f"| {_plain(name)} | {least:.4f} |" for name, least in zip(facts.classes, facts.thresholds, strict=True)
    )
    return f"""# {_plain(student)}: {_listed(facts.classes)}

A small image classifier that tells which of {len(facts.classes)} classes a photo shows: none, one or several of them
({_listed(facts.classes)}). It was distilled with Potstill.

## How to use it

Input: {input_rule(facts.size, facts.crop, several_labels=True)}

Output: a probability of each class for itself, calibrated on validation photos (temperature {facts.temperature:.3f}).
They do not sum to 1. Labels, in the order of the output: {", ".join(map(_code, facts.classes))}. {_weights(info)}

A photo has a label from the threshold of the class on. The thresholds were chosen on validation photos, for the highest
F1; they are in every file's metadata and in `manifest.json`.

| class | threshold |
|---|--:|
{thresholds}

## How good it is

On {counted(facts.test_photos, "test photo")} that nothing was trained or chosen on, with {confidence} intervals. mAP is
the mean over the classes of the average precision (scikit-learn's `average_precision_score`); F1 is at the thresholds.

| | mAP | macro F1 |
|---|--:|--:|
{chr(10).join(rows)}

{verdict}

## The files

Each was run by its own runtime on the test photos. Agreement: share of decisions as the torch student makes them.

{without_owner(formats_table(facts.files))}
## Data and licenses

- Photos: collected by whoever made the run. Potstill does not know their license. Whoever publishes this model has to
  say it here.
- Starting weights of the student: {_source(info["weights"])}.

## Limits

- The numbers hold for photos like the test photos: same cameras, places and seasons. Elsewhere, test again.
"""


def _in_timm(info: dict[str, Any]) -> bool:
    """Whether timm builds the student from the config.json that `push` uploads."""
    try:
        timm_name(info)
    except ExportError:
        return False
    return True


def _weights(info: dict[str, Any]) -> str:
    """How to load the weights from a hub."""
    if _in_timm(info):
        return (
            "On a hub, `model.safetensors` and `config.json` are the model for timm: "
            '`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`.'
        )
    return (
        "On a hub, `model.safetensors` and `model.json` are the model for Potstill: download both, then "
        "`potstill.load(FOLDER)`. timm has no name for this architecture."
    )


def _source(weights: dict[str, Any]) -> str:
    license = without_owner(str(weights.get("license") or "not stated"))
    return f"{weights.get('source', 'unknown')}, license {_plain(license)}"


def _interval(accuracy: Interval) -> str:
    return f"{accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_plain, names))


def _code(name: str) -> str:
    """In the letters of code where the name allows it."""
    plain = _plain(name)
    return f"`{name}`" if plain == name else plain


def _plain(name: str) -> str:
    """A name that means nothing in Markdown: hubs make web pages of cards, and names come from other people's runs."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", " ".join(name.split()))
