"""The report page: what is on it, in which order, at every size, and nothing from elsewhere."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports import edit, export_json, grow, reject, slim_copy
from tests.support import potstill as command

import potstill
from potstill.errors import PotstillError
from potstill.metrics import Interval
from potstill.report.answers import Answer, answers
from potstill.report.findings import Finding
from potstill.report.page import render
from potstill.report.photos import choose, wrong_labels
from potstill.report.read import RunFiles, model_predictions, reliability
from potstill.report.stage import write_report
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.results import Chosen, read_comparison

LIMIT = 5_000_000
"""Bytes of a page that is quick to open."""

SECTIONS = [
    "What distillation gained",
    "The numbers",
    "Accuracy and cost",
    "Where the gain came from",
    "Photos to look at",
    "The data",
    "Cost of the run",
    "How to reproduce it",
]
PARTS = [
    "Per class", "Photos fixed", "Photos broken", "Which classes are confused", "Are its probabilities calibrated?",
    "During training", "Most wrong", "Most uncertain", "Labels that may be wrong", "Licenses and attribution",
]  # fmt: skip


@pytest.fixture
def slim(tiny_run: "potstill.Result", tmp_path: Path) -> Run:
    return slim_copy(tiny_run.path, tmp_path / "run")


def page_of(run: Run) -> str:
    return render(RunFiles(run)).replace("\u00a0", " ")


def names(count: int) -> list[str]:
    return [f"class number {i}" for i in range(count)]


def test_all_sections_are_there_in_the_promised_order(slim: Run) -> None:
    page = page_of(slim)
    found = [re.sub("<.*?>", "", title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", page)]
    assert found == SECTIONS
    places = [page.index(f"<h3>{part}") for part in PARTS]
    assert places == sorted(places)


def answers_of(page: str) -> dict[str, str]:
    """Question → answer, without markup."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.partition("<nav")[0], re.DOTALL)
    return {question: re.sub("<.*?>", " ", answer) for question, answer in found}


def test_the_first_screen_answers_three_questions_with_the_numbers_of_the_comparison(slim: Run) -> None:
    page, comparison = page_of(slim), read_json(slim.comparison / "comparison.json")
    student, found = comparison["students"][0], answers_of(page_of(slim))
    assert list(found) == ["How good is the small model?", "What did distillation bring?", "Can I rely on it?"]
    verdict = student["verdict"].split(". ")[0]
    assert verdict in found["What did distillation bring?"]
    assert re.search(r"[+-]\d+\.\d points \([+-]\d+\.\d to [+-]\d+\.\d\)", verdict)
    a = student["distilled"]["accuracy"]
    shown = f"{100 * a['value']:.1f} % ({100 * a['low']:.1f} to {100 * a['high']:.1f}) of the 24 test photos"
    assert shown in found["How good is the small model?"]
    assert "Its weakest class is " in found["How good is the small model?"]
    assert "Trained for a few epochs only" in found["Can I rely on it?"], "a finding of the level stop"
    assert found["Can I rely on it?"].strip().startswith("No ")
    for numbers in (comparison["teacher"], student["distilled"], student["alone"]):
        a = numbers["accuracy"]
        assert f"{100 * a['value']:.1f} % <small>({100 * a['low']:.1f} to {100 * a['high']:.1f})</small>" in page
    assert "Seeds 0 to 1." in page


def test_of_two_unequal_classes_it_says_how_many_of_the_rare_one_are_found(slim: Run) -> None:
    grow(slim, classes=["defective", "whole"], students=1, photos=200)
    equal = answers_of(page_of(slim))["How good is the small model?"]
    assert "Its weakest class is" in equal

    def unequal(comparison: dict[str, Any]) -> None:
        rare, common = comparison["students"][0]["per_class"]
        rare.update(photos=50, teacher=0.7, distilled=0.46, alone=0.4)
        common.update(photos=150, teacher=0.99, distilled=0.97, alone=0.98)

    edit(slim.comparison / "comparison.json", unequal)
    page = page_of(slim)
    found = answers_of(page)
    assert (
        "It finds 46.0 % (33.0 to 59.6) of the 50 photos of defective, and mistakes 3.0 % of the 150 of whole for "
        "defective." in found["How good is the small model?"]
    )
    assert "it finds 40.0 % of the photos of defective; distilled, 46.0 %" in found["What did distillation bring?"]
    table = page.partition('aria-label="The student, its twin and its teacher"')[2].partition("</table>")[0]
    assert re.findall(r"finds \w+", table) == ["finds defective", "finds whole"]
    assert re.findall(r"<td>([\d.]+ %)", table) == [
        f"{100 * value:.1f} %" for value in _values(read_json(slim.comparison / "comparison.json"))
    ]


def _values(comparison: dict[str, Any]) -> list[float]:
    """Accuracy and both recalls, row by row."""
    student = comparison["students"][0]
    rows = {"distilled": student["distilled"], "alone": student["alone"], "teacher": comparison["teacher"]}
    return [v for who, r in rows.items() for v in (r["accuracy"]["value"], *(c[who] for c in student["per_class"]))]


def finding(code: str) -> Finding:
    return Finding(code, "why")


def test_whether_it_can_be_relied_on_follows_from_the_findings(slim: Run) -> None:
    comparison = read_comparison(slim.comparison / "comparison.json")

    def answer(*codes: str) -> Answer:
        return answers(comparison, [finding(code) for code in codes])[2]

    assert answer().short == "Yes"
    assert answer("KD001", "KD003", "KD005").short == "Yes", "what is about the gain, and mere notes"
    careful = answer("KD008", "KD009", "KD009")
    assert careful.short == "With care"
    assert careful.sentences[1] == "Read first: One seed only; few val photos."
    refused = answer("KD008", "KD011")
    assert (refused.short, refused.sentences[0]) == ("No", "The student did not learn.")


def test_each_seed_says_how_much_of_a_photo_it_looks_at(slim: Run) -> None:
    comparison = read_json(slim.comparison / "comparison.json")
    student = comparison["students"][0]
    student["distilled"]["crop_per_seed"], student["alone"]["crop_per_seed"] = [1.0, 0.875], [0.875, 1.0]
    write_json(slim.comparison / "comparison.json", comparison)
    rows = re.findall(r'<tr><th scope="row" class="text">[^<]*</th><td>[01]</td>.*?</tr>', page_of(slim))
    shown = [re.findall(r"<td>([^<]*)</td>", row)[-2:] for row in rows]
    assert shown == [["100.0 %", "87.5 %"], ["87.5 %", "100.0 %"]]


def test_of_several_students_the_one_chosen_on_val_gives_the_answers(slim: Run) -> None:
    grow(slim, classes=names(3), students=3, photos=300)
    comparison = read_comparison(slim.comparison / "comparison.json")
    students = (*comparison.students[:2], replace(comparison.students[2], difference=Interval(0.0, -0.01, 0.01)))
    chosen = Chosen("student-1", "cheap and good", {})
    brought = answers(replace(comparison, chosen=chosen, students=students), [])[1].sentences
    assert brought[0].startswith("Distillation made student-1 better:")
    assert "chosen on val: cheap and good" in brought[-1]
    assert "Of all 3 students, distillation made 2 better and 0 worse; for 1 no gain was measured." in brought[-1]


@pytest.mark.parametrize(
    ("classes", "students", "tested"), [(3, 1, 50), (3, 12, 50), (200, 1, 2_000), (200, 12, 600), (3, 1, 50_000)]
)
def test_every_size_gives_a_page_that_is_quick_to_open(slim: Run, classes: int, students: int, tested: int) -> None:
    grow(slim, classes=names(classes), students=students, photos=tested)
    started = time.monotonic()
    page = page_of(slim)
    assert len(page.encode()) < LIMIT
    assert time.monotonic() - started < 60
    assert page.count('class="student"') == (students if students > 1 else 0)
    assert f"{tested:,} test photos" in page
    assert page.count("Table of all") == students


def test_nothing_comes_from_the_network_and_there_is_no_script(slim: Run) -> None:
    grow(slim, classes=names(30), students=2, photos=300)
    page = page_of(slim)
    sources = re.findall(r'(?:src|href|srcset|action|poster)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert {source.split(",")[0][:5] for source in sources} <= {"data:", *(s[:5] for s in sources if s[0] == "#")}
    for word in ("<script", "@import", "http://", "https://", " onload", " onerror", "<iframe", "<object"):
        assert word not in page.lower()


@pytest.mark.parametrize(
    "odd", ["<script>alert(1)</script>", "\"quotes\" & 'more'", "日本の猫", "{{ 7 * 7 }}", "a" * 120, "</style>"]
)
def test_odd_class_names_are_shown_and_not_obeyed(slim: Run, odd: str) -> None:
    grow(slim, classes=[odd, "plain", "other"], students=1, photos=60)
    page = page_of(slim)
    if "<" in odd:
        assert odd not in page.replace("</style>\n</head>", "", 1)
    from markupsafe import escape

    assert str(escape(odd)) in page
    assert page.count("<script") == 0
    assert page.count("</style>") == 1


def test_fixed_and_broken_photos_are_those_where_the_arms_differ(slim: Run) -> None:
    grow(slim, classes=names(3), students=1, photos=60, right=0.6, gain=0.2)
    files = RunFiles(slim)
    predictions = files.predictions
    labels = predictions.labels
    teacher = model_predictions(*predictions.teacher(), labels)
    distilled = model_predictions(*predictions.arm("student-0", "distilled"), labels)
    alone = model_predictions(*predictions.arm("student-0", "alone"), labels)
    lists = choose(files, teacher, distilled, alone)
    hits = {arm: (predictions.logits(f"student-0/{arm}").argmax(-1) == labels).sum(0) for arm in ("distilled", "alone")}
    assert lists.fixed_total == np.sum(hits["distilled"] > hits["alone"])
    assert lists.broken_total == np.sum(hits["distilled"] < hits["alone"])
    assert len(lists.fixed) == min(12, lists.fixed_total)
    assert all(card.name.startswith("test/") and card.picture.startswith("data:image/") for card in lists.fixed)
    assert all(not {a.who: a.right for a in card.predictions}["distilled"] for card in lists.most_wrong)


def test_likely_wrong_labels_are_those_that_both_models_contradict_surely(slim: Run) -> None:
    labels = np.array([0, 1, 2, 0])
    sure = np.array([[9, 0, 0], [9, 0, 0], [0, 0, 9], [0, 9, 0]], np.float32)
    unsure = np.array([[9, 0, 0], [9, 0, 0], [0, 0, 9], [0, 0.5, 0]], np.float32)
    one = np.ones(1, np.float32)
    teacher, student = model_predictions(sure[None], one, labels), model_predictions(unsure[None], one, labels)
    assert wrong_labels(teacher, student, labels).tolist() == [1]
    assert wrong_labels(teacher, teacher, labels).tolist() == [1, 3]


def test_doubtful_training_labels_come_from_the_teachers_out_of_fold_answers(slim: Run) -> None:
    path = slim.teacher / "out_of_fold.npz"
    with np.load(path) as stored:
        rows, labels = stored["row"], stored["labels"]
    logits = np.full((len(rows), 3), -4.0, np.float32)
    logits[np.arange(len(rows)), labels] = 4
    logits[5] = [-6, -6, -6]
    logits[5, (labels[5] + 1) % 3] = 6
    np.savez(path, row=rows, labels=labels, logits=logits)
    page, photo = page_of(slim), RunFiles(slim).photos[int(rows[5])]
    other = RunFiles(slim).classes[(labels[5] + 1) % 3]
    part = page[page.index("<h4>Of train</h4>") :]
    assert photo["path"] in part[: part.index("</section>")]
    assert f"Looks like {other}; the label gets 0 %" in part
    path.unlink()
    assert "Not checked: the teacher has no out-of-fold predictions" in page_of(slim)


def test_reliability_counts_every_answer_once() -> None:
    found = reliability(np.array([0.05, 0.95, 0.96, 1.0]), np.array([False, True, False, True]), bins=10)
    assert found.count.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found.accuracy[9] == pytest.approx(2 / 3)
    assert found.ece == pytest.approx((0.05 + (2.91 - 2)) / 4)


def test_left_out_files_licenses_and_exports_are_listed(slim: Run) -> None:
    grow(slim, classes=names(3), students=1, photos=60)
    reject(slim, "corrupt", 3)
    reject(slim, "not_image", 1)
    (slim.images / "ATTRIBUTION.txt").write_text("Photos by <Ann> & Bob, CC BY 4.0")
    (slim.images / "ATTRIBUTION.csv").write_text(
        "path,source,source_id,page_url,file_url,author,license,license_url,title\n"
        "test/class number 0/110.png,commons,1,,,Ann,CC BY 4.0,,x\n"
    )
    export_json(slim)
    page = page_of(slim)
    assert "3 corrupt, 1 not_image" in page
    assert "the reason" in page
    assert "Photos by &lt;Ann&gt; &amp; Bob, CC BY 4.0" in page
    assert "commons" in page
    assert "s/student-int8.onnx" in page
    assert "onnxruntime 1" in page


def test_a_list_of_left_out_files_is_cut(slim: Run) -> None:
    reject(slim, "corrupt", 5_000)
    page = page_of(slim)
    assert "The first 200 of 5,000" in page
    assert len(page.encode()) < LIMIT


def test_the_command_prints_where_the_page_is_and_refuses_an_unfinished_run(slim: Run, tmp_path: Path) -> None:
    done = command("report", slim.path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == slim.report / "index.html"
    assert (slim.report / "index.html").read_text("utf-8").startswith("<!doctype html>")
    (slim.comparison / "done.json").unlink()
    with pytest.raises(PotstillError, match=r"5_comparison is not finished\. Run `potstill distill`"):
        write_report(slim)
    with pytest.raises(PotstillError, match="is not a run folder"):
        write_report(Run.open(tmp_path))


def test_the_page_needs_neither_torch_nor_the_photo_folder() -> None:
    """It is made on a laptop from a run folder that came from elsewhere."""
    import subprocess
    import sys

    from tests.support import environment

    code = "import potstill.report.stage, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_edited_numbers_show(slim: Run) -> None:
    edit(slim.comparison / "comparison.json", lambda c: c["teacher"]["accuracy"].update(value=0.4321))
    assert "43.2 %" in page_of(slim)


def test_every_loss_term_is_drawn_by_name_and_runs_without_terms_have_the_total(slim: Run) -> None:
    for path in slim.students.rglob("metrics.jsonl"):
        terms = (
            {"labels": 0.3} if path.parent.name == "alone" else {"labels": 0.3, "distillation": 0.5, "features": 0.2}
        )
        lines = [
            {"step": step, "epoch": step / 2, "loss": sum(terms.values()) / step, "val_accuracy": 0.5, "val_nll": 1.0}
            | {f"loss/{name}": value / step for name, value in terms.items()}
            for step in (1, 2, 4)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    page = page_of(slim)
    described = re.findall(r'aria-label="(Loss terms, [^"]*)"', page)
    assert described == [
        "Loss terms, distilled. total from 1.000 to 0.250, distillation from 0.500 to 0.125, features from 0.200 to "
        "0.050, labels from 0.300 to 0.075",
        "Loss terms, alone. labels from 0.300 to 0.075",
    ]
    for path in slim.students.rglob("metrics.jsonl"):
        path.write_text(re.sub(r', "loss/\w+": [\d.]+', "", path.read_text("utf-8")), "utf-8")
    page = page_of(slim)
    assert "Loss terms" not in page
    assert 'aria-label="Training loss, distilled.' in page


def test_photos_without_labels_that_were_left_out_are_shown_with_their_authors(slim: Run) -> None:
    assert "Left out of the photos without labels" not in page_of(slim)
    edit(slim.images / "done.json", lambda facts: facts["counts"].update(unlabeled=90))
    photos = [photo["path"] for photo in RunFiles(slim).photos]
    csv_path = slim.images / "images.csv"
    csv_path.write_text(re.sub(r",train,\w+,", ",unlabeled,,", csv_path.read_text("utf-8"), count=20), "utf-8")
    lines = [f"{row},{photos[row]},{row / 100:.4f}\n" for row in range(20)]
    (slim.teacher / "unlike.csv").write_text("row,path,similarity\n" + "".join(lines), "utf-8")
    (slim.images / "ATTRIBUTION.csv").write_text(f"path,author,license\n{photos[19]},Doe,CC-BY-4.0\n", "utf-8")
    page = page_of(slim)
    part = page.partition("Unlabeled photos left out: 20 of 20")[2].partition("</section>")[0]
    assert part.count("<img") == 12
    assert part.index("Similarity 0.19") < part.index("Similarity 0.18"), "the most similar ones first"
    assert "12 of 20, all are in 2_teacher/unlike.csv" in part
    assert "© Doe, CC-BY-4.0" in part
    assert 'alt="Photo without a label"' in part
