"""Teachers that are ONNX files: what is understood, what is refused, and whose classes their outputs become."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from potstill import metrics
from potstill.config.load import from_mapping
from potstill.data.class_map import read_class_map
from potstill.errors import ConfigError, DataError, ModelError, PotstillError
from potstill.metrics.outputs import LEFT_OUT, Outputs, fault_of, kind_of
from potstill.models.onnx_file import num_macs, read_onnx
from potstill.teacher.external import OnnxTeacher

CLASSES = ("disc", "frame", "stripes")


def write_onnx(
    path: Path,
    *,
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    outputs: int = 3,
    softmax: bool = False,
    texts: dict[str, str] | None = None,
    **names: Sequence[Any],
) -> Path:
    """A classifier whose logit k is (k + 1) times the mean over red, plus k times that over blue.

    Args:
        names: further `inputs` or `output_values` of the graph.
    """
    channel_axis = list(shape).index(3)
    axes = [n for n in range(len(shape)) if n != channel_axis and (len(shape) == 3 or n)]
    weights = np.array([np.arange(1, outputs + 1), np.zeros(outputs), np.arange(outputs)], np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=-1))
    output = helper.make_tensor_value_info("scores" if softmax else "logits", TensorProto.FLOAT, ["N", outputs])
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind, shape), *names.get("inputs", ())],
        [output, *names.get("output_values", ())],
        [
            numpy_helper.from_array(np.array(axes), "axes"),
            numpy_helper.from_array(np.array([-1, 3]), "rows"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, texts or {})
    path.write_bytes(model.SerializeToString())
    return path


def opened(path: Path, classes: Sequence[str] = CLASSES, **settings: Any) -> OnnxTeacher:
    config = from_mapping({"teacher.model": [f"onnx:{path}"], **settings})
    return OnnxTeacher.open(path, f"onnx:{path.name}", config, classes)


def pixels(red: float, blue: float, size: int = 8) -> np.ndarray:
    """(1, size, size, 3) uint8 of one color."""
    return np.broadcast_to(np.array([red, 0, blue]), (1, size, size, 3)).astype(np.uint8)


def logits_of(teacher: OnnxTeacher, photo: np.ndarray) -> np.ndarray:
    """(C,) as the stages compute them."""
    import torch

    from potstill.compute.inference import outputs
    from potstill.compute.precision import Precision

    return outputs(teacher.model(), photo, Precision(torch.device("cpu")))[1][0]


@pytest.mark.parametrize(
    "shape", [("N", 3, 8, 8), ("N", 8, 8, 3), (1, 3, 8, 8), (4, 8, 8, 3)], ids=lambda shape: "-".join(map(str, shape))
)
def test_layout_and_batch_are_read_from_the_shape(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    teacher = opened(write_onnx(tmp_path / "m.onnx", shape=shape), **{"external.input_range": [0, 255]})
    assert logits_of(teacher, pixels(100, 10)) == pytest.approx([100, 210, 320], rel=1e-5)


def test_defaults_are_those_of_imagenet_and_stand_in_the_log(tmp_path: Path) -> None:
    teacher = opened(write_onnx(tmp_path / "m.onnx"))
    red, blue = (1 - 0.485) / 0.229, (0 - 0.406) / 0.225
    expected = [red, 2 * red + blue, 3 * red + 2 * blue]
    assert logits_of(teacher, pixels(255, 0)) == pytest.approx(expected, rel=1e-4)
    text = "\n".join(teacher.lines())
    assert "mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 of ImageNet" in text
    assert "NCHW float32, RGB" in text
    assert "taken for logits" in text
    assert "the order of its classes is taken to be disc, frame, stripes" in text


def test_bgr_swaps_channels_after_the_normalization(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    settings = {"external.mean": [0, 0, 0.5], "external.std": [1, 1, 1], "external.channels": "bgr"}
    red, blue = 1.0, -0.5
    assert logits_of(opened(path, **settings), pixels(255, 0)) == pytest.approx(
        [blue, 2 * blue + red, 3 * blue + 2 * red], rel=1e-4
    )


def test_gray_levels_of_one_photo_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", shape=("H", "W", 3), kind=TensorProto.UINT8)
    teacher = opened(path, **{"teacher.size": 8})
    assert logits_of(teacher, pixels(100, 10)) == pytest.approx([100, 210, 320])
    with pytest.raises(ConfigError, match=r"normalizes them itself: leave out external\.mean"):
        opened(path, **{"teacher.size": 8, "external.mean": [0, 0, 0]})


def test_probabilities_are_known_by_their_sums(tmp_path: Path) -> None:
    teacher = opened(write_onnx(tmp_path / "m.onnx", softmax=True))
    assert teacher.model().outputs.kind == "probabilities"
    with pytest.raises(ModelError, match="of a picture of noise, it gives probabilities that add up to"):
        opened(write_onnx(tmp_path / "n.onnx"), **{"external.output": "probabilities", "external.input_range": [0, 1]})


def test_names_in_the_metadata_give_the_order(tmp_path: Path) -> None:
    texts = {"names": str(dict(enumerate(["stripes", "disc", "frame"])))}  # as Python writes it
    path = write_onnx(tmp_path / "m.onnx", texts=texts)
    teacher = opened(path, **{"external.input_range": [0, 255]})
    assert logits_of(teacher, pixels(100, 0)) == pytest.approx([200, 300, 100], rel=1e-5)
    with pytest.raises(ConfigError, match=r"it has no square; the run has no stripes.*--class-map FILE"):
        opened(path, ("disc", "frame", "square"))


def test_another_number_of_classes_needs_a_map(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", outputs=5, softmax=True)
    with pytest.raises(ConfigError, match=r"has 5 outputs, the run 3 classes.*--class-map"):
        opened(path)
    (tmp_path / "map.json").write_text(json.dumps({"0": "disc", "4": "disc", "2": "frame", "1": "stripes"}))
    teacher = opened(path, **{"external.class_map": str(tmp_path / "map.json"), "external.input_range": [0, 1]})
    theirs = metrics.softmax(np.arange(1, 6) * 1.0)
    mine = np.array([theirs[0] + theirs[4], theirs[2], theirs[1]])
    assert metrics.softmax(logits_of(teacher, pixels(255, 0))) == pytest.approx(mine / mine.sum(), rel=1e-4)
    assert "4 of its 5 classes belong to classes of the run (map.json); the probabilities of the other 1" in str(
        teacher.lines()
    )


def test_the_file_and_how_it_is_read_are_its_identity(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    same, swapped = opened(path).identity(), opened(path, **{"external.channels": "bgr"}).identity()
    assert same == opened(path).identity() != swapped
    assert str(tmp_path) not in json.dumps(same)
    write_onnx(path, texts={"version": "2"})
    assert opened(path).identity()["weights"]["sha256"] != same["weights"]["sha256"]


def extra(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": [extra("boxes")]}, r"has 2 inputs \(image, boxes\); a classifier has one input"),
        ({"output_values": [extra("means")]}, r"has 2 outputs"),
        ({"shape": ("N", 3, 8, 9)}, "takes photos of 9 x 8 pixels; only square ones"),
        ({"shape": ("N", 1, 8, 8, 3)}, r"has the shape \(\?, 1, 8, 8, 3\); it must be photos"),
        ({"shape": ("N", 3, "H", "W")}, r"takes photos of any size.*--teacher.size 224"),
        ({"kind": TensorProto.INT64}, "is not of floats or uint8"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_classifier_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", **options)
    with pytest.raises(PotstillError, match=message) as refused:
        opened(path)
    assert str(path) in str(refused.value)


def test_a_file_of_one_size_is_not_given_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.size = 9, but .* takes photos of 8 x 8 pixels only"):
        opened(write_onnx(tmp_path / "m.onnx"), **{"teacher.size": 9})


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    (tmp_path / "secret.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="secret.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"keeps weights \(weights\) in another file, which is not read"):
        read_onnx(path)
    # In a constant of a branch, where no list of weights shows it.
    constant = helper.make_node("Constant", [], ["inner"], value=weights)
    branch = helper.make_graph([constant], "branch", [], [extra("inner")])
    model.graph.initializer.remove(weights)
    model.graph.node.insert(0, helper.make_node("If", ["yes"], ["weights"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="in another file"):
        read_onnx(path)


def test_custom_operations_and_other_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    model.graph.node[0].domain = "my.library"
    model.opset_import.append(helper.make_opsetid("my.library", 1))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="cannot be loaded by ONNX Runtime, without libraries of custom operations"):
        opened(path)
    path.write_bytes(b"no protobuf at all")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        opened(path)
    with pytest.raises(ModelError, match="There is no ONNX file"):
        opened(tmp_path / "none.onnx")


def test_multiplications_are_counted(tmp_path: Path) -> None:
    assert num_macs(write_onnx(tmp_path / "m.onnx").read_bytes(), 8) == 9


def test_settings_of_another_kind_of_teacher_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"external.channels has no effect with the teacher densenet201"):
        from_mapping({"external.channels": "bgr"})
    with pytest.raises(ConfigError, match="cannot be part of an ensemble"):
        from_mapping({"teacher.model": ["densenet201", "onnx:a.onnx"]})
    with pytest.raises(ConfigError, match="names no file"):
        from_mapping({"teacher.model": "onnx:"})
    with pytest.raises(ConfigError, match="takes the place of mean and std"):
        from_mapping({"teacher.model": "onnx:a", "external.input_range": [0, 1], "external.std": [1, 1, 1]})
    with pytest.raises(ConfigError, match="needs a teacher with features"):
        from_mapping({"teacher.model": "onnx:a", "student.feature_weight": 1.0})


MAP = {"tabby cat": "cat", "Persian cat": "cat", "2": "dog"}


@pytest.mark.parametrize("kind", ["csv", "toml", "json"])
def test_a_class_map_may_be_in_three_formats(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"map.{kind}"
    lines = {
        "csv": "theirs;mine\r\n" + "".join(f"{their};{mine}\r\n" for their, mine in MAP.items()),
        "toml": "".join(f'"{their}" = "{mine}"\n' for their, mine in MAP.items()),
        "json": json.dumps(MAP),
    }
    path.write_text("\ufeff" + lines[kind] if kind != "toml" else lines[kind], "utf-8")
    theirs = ["tabby cat", "Persian cat", "beagle", "toaster"]
    assert read_class_map(path, theirs, 4, ["cat", "dog"]) == (0, 0, 1, LEFT_OUT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tabby": "cat", "2": "dog"}', r"the teacher has no class 'tabby'.*Did you mean 'tabby cat'\?"),
        ('{"9": "cat", "2": "dog"}', "the teacher has no class '9'"),
        ('{"0": "cat", "2": "dogs"}', r"the run has no class 'dogs'. Did you mean 'dog'\?"),
        ('{"0": "cat", "tabby cat": "dog"}', "'tabby cat' has a class already: 'cat'"),
        ('{"0": "cat", "0": "dog"}', "'0' is in it twice"),
        ('{"0": "cat"}', "assigns none of the teacher's classes to 'dog'"),
        ('{"0": 1}', "must be assigned the name of a class, got 1"),
        ("[]", "must assign classes"),
        ("{", "is not JSON"),
    ],
)
def test_a_wrong_class_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_map(tmp_path / "map.json", ["tabby cat", "Persian cat", "beagle"], 3, ["cat", "dog"])


@given(
    st.lists(st.lists(st.floats(-20, 20), min_size=5, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(LEFT_OUT, 2), min_size=5, max_size=5),
)
def test_mapped_outputs_are_a_distribution(values: list[list[float]], places: list[int]) -> None:
    logits = np.array(values)
    for kind, given_values in (("logits", logits), ("probabilities", metrics.softmax(logits))):
        outputs = Outputs(kind=kind, classes=3, places=tuple(places))  # type: ignore[arg-type]
        found = metrics.softmax(outputs.logits(given_values))
        assert found.sum(-1) == pytest.approx(1, abs=1e-5)
        for label in set(range(3)) - set(places):
            assert found[:, label].max() < 1e-6 or set(places) == {LEFT_OUT}


def test_logits_of_the_same_classes_stay_as_they_are() -> None:
    outputs = Outputs(kind="logits", classes=3, places=(2, 0, 1))
    assert outputs.logits(np.array([[5.0, -3.0, 40.0]])).tolist() == [[-3.0, 40.0, 5.0]]


def test_with_several_labels_each_class_keeps_its_own_probability() -> None:
    logits = np.array([[2.0, -3.0, 0.5, 9.0]])
    sigmoid = 1 / (1 + np.exp(-logits[0]))
    same = Outputs(kind="logits", classes=4, places=(1, 0, 2, 3), several_labels=True)
    assert same.logits(logits).tolist() == [[-3.0, 2.0, 0.5, 9.0]]
    many = Outputs(kind="logits", classes=2, places=(0, 1, 0, LEFT_OUT), several_labels=True)
    assert 1 / (1 + np.exp(-many.logits(logits)[0])) == pytest.approx([max(sigmoid[0], sigmoid[2]), sigmoid[1]])
    values = np.array([[0.9, 0.8, 0.0], [0.1, 0.0, 1.0]])
    given = Outputs(kind="probabilities", classes=3, places=(0, 1, 2), several_labels=True)
    assert 1 / (1 + np.exp(-given.logits(values))) == pytest.approx(values, abs=1e-6)
    assert kind_of(values, several_labels=True) == "probabilities"
    assert kind_of(values) == "logits"
    assert fault_of(np.array([[0.5, 1.2]]), "probabilities", several_labels=True) == (
        0,
        "holds the probability 1.2, which is above 1",
    )


@pytest.mark.parametrize(
    ("row", "kind", "fault"),
    [
        ([0.5, 0.5, 0.0], "probabilities", None),
        ([0.7, 0.7, 0.1], "logits", "holds probabilities that add up to 1.5, not to 1"),
        ([1.2, -0.2, 0.0], "logits", "holds the probability -0.2, which is below 0"),
        ([np.nan, 0.5, 0.5], "logits", "holds nan, which is not a number"),
        ([np.inf, 0.5, 0.5], "logits", "holds inf"),
    ],
)
def test_faults_are_found_in_their_row(row: list[float], kind: str, fault: str | None) -> None:
    values = np.array([[0.1, 0.2, 0.7], row])
    assert kind_of(values) == kind
    assert fault_of(values, "probabilities") == (None if fault is None else (1, fault))
