"""The model card, `potstill push` to a hub on loopback, and the weights as timm loads them from there."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from tests.export.conftest import STUDENT
from tests.reports import export_json
from tests.servers import hub as hub_server
from tests.servers.loopback import serve
from tests.support import environment
from tests.support import potstill as command

import potstill
from potstill.deploy.predictor import best_seed
from potstill.errors import ExportError
from potstill.export.hub import timm_name, write_timm
from potstill.export.results import exported_student, formats_table
from potstill.models.classifier import load, normalize
from potstill.run.files import read_json
from potstill.run.folder import Run

FROM_HUB = """
import sys, timm, torch
model = timm.create_model("hf-hub:me/shapes", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
torch.manual_seed(0)
with torch.no_grad():
    logits = model(torch.randn(1, *config["input_size"]))
print(tuple(config["input_size"]), tuple(config["mean"]), model.pretrained_cfg["label_names"])
print(*[f"{v:.4f}" for v in logits[0].tolist()])
"""


def student_folder(run: Run) -> Path:
    return best_seed(run, STUDENT, "distilled")


def logits_here(run: Run) -> list[float]:
    model = load(student_folder(run))
    torch.manual_seed(0)
    with torch.inference_mode():
        return model(torch.randn(1, 3, model.info.size, model.info.size))[0].tolist()


def test_timm_loads_the_weights_from_a_folder(exported: Run, tmp_path: Path) -> None:
    write_timm(exported, STUDENT, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    own = load(student_folder(exported))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8))
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        theirs = model((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
        ours = own(normalize(pixels, own.info))
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert model.pretrained_cfg["label_names"] == exported.classes()
    assert tuple(config["input_size"]) == (3, 64, 64)


def test_a_width_that_timm_has_no_name_for_is_told() -> None:
    info = {"name": "mobilenetv1_025", "head_width": 0, "architecture": "mobilenetv1"}
    with pytest.raises(ExportError, match=r"0\.25 times as wide .* no such width"):
        timm_name({**info, "arguments": {"channel_multiplier": 0.25, "pad_type": "same"}})
    name, arguments = timm_name({**info, "arguments": {"channel_multiplier": 1.0, "pad_type": "same"}})
    assert timm.create_model(name, num_classes=3, **arguments).num_classes == 3


def test_such_a_student_is_written_for_potstill(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(tiny_run.path, run.path)
    export_json(run, STUDENT)
    with pytest.raises(ExportError, match="no such width"):
        write_timm(run, STUDENT, tmp_path / "out")
    assert load(tmp_path / "out").info.name == "mobilenetv1_025"
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_head_with_a_hidden_layer_is_told(exported: Run) -> None:
    info = {**read_json(student_folder(exported) / "model.json"), "head_width": 64}
    with pytest.raises(ExportError, match="hidden layer, which timm cannot build"):
        timm_name(info)


def test_the_card_is_in_the_hubs_format_and_has_the_numbers(exported: Run) -> None:
    card = ModelCard.load(exported.export / STUDENT / "README.md")
    facts = exported_student(exported, STUDENT)
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "timm"
    assert card.data.license == "other"
    assert card.data.eval_results is not None
    assert card.data.eval_results[0].metric_value == pytest.approx(facts.accuracy.value, abs=1e-4)
    assert formats_table(facts.files) in card.text
    for words in ("What it is for", "How to use it", "Data and licenses", "Limits", "24 test photos", "95%", " to "):
        assert words in card.text
    assert all(f"`{name}`" in card.text for name in exported.classes())


def test_push_and_load_it_from_the_hub(exported: Run, tmp_path: Path) -> None:
    hub = hub_server.Hub()
    with serve(hub_server.app(hub)) as server:
        settings = {"HF_ENDPOINT": server.url, "HF_TOKEN": hub_server.TOKEN, "HF_HOME": str(tmp_path / "hf")}
        done = command("push", exported.path, "me/shapes", "--private", **settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{server.url}/me/shapes/commit/{1:040x}"
        loaded = subprocess.run(
            [sys.executable, "-c", FROM_HUB],
            env=environment(**settings, HF_HUB_DISABLE_XET="1"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr
        refused = command("push", exported.path, "me/shapes", **{**settings, "HF_TOKEN": "hf_wrong"})
    files = hub.repositories["me/shapes"]
    assert hub.private == {"me/shapes": True}
    assert hub.commits == [f"Add {STUDENT}"]
    folder = exported.export / STUDENT
    shipped = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {name: files[name] for name in shipped} == shipped
    assert set(files) == {*shipped, "model.safetensors", "model.json", "config.json"}
    first, second = loaded.stdout.splitlines()
    assert first == f"(3, 64, 64) {load(student_folder(exported)).info.mean} {exported.classes()}"
    assert [float(v) for v in second.split()] == pytest.approx(logits_here(exported), abs=1e-3)
    assert refused.returncode == 2
    assert "The hub does not take the token. Set HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_push_refuses_a_damaged_file_and_a_run_without_exports(exported_copy: Run, taught_run: Run) -> None:
    from potstill.export import push

    path = exported_copy.export / STUDENT / "student.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ExportError, match="is not the file that was scored"):
        push(exported_copy, "me/shapes")
    with pytest.raises(ExportError, match="has no exported student"):
        push(taught_run, "me/shapes")
