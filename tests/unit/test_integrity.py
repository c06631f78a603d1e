"""Files of a run that are not as they were written are found before they are believed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potstill.cli import run as command
from potstill.data.arrays import RowWriter, open_arrays
from potstill.errors import DamageError
from potstill.run.files import read_json, read_toml_text, with_checksum, write_json
from potstill.run.folder import Run
from potstill.run.integrity import damages, require_whole
from potstill.training import loop
from potstill.training.ranks import ALONE


def flip(path: Path, position: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one finished stage."""
    stage = Run(tmp_path).stage("1_images")
    stage.begin({"photos": 3})
    np.save(stage.path / "index.npy", np.arange(9))
    (stage.path / "pixels.bin").write_bytes(bytes(100))
    (stage.path / "classes.txt").write_text("cat\ndog\n")
    (stage.path / "ATTRIBUTION.csv").write_text("file,author\n")
    stage.finish()
    return tmp_path


def test_whole_files_pass(run: Path) -> None:
    require_whole(run, large=True)


@pytest.mark.parametrize("name", ["index.npy", "classes.txt", "pixels.bin", "done.json"])
def test_a_changed_byte_is_found(run: Path, name: str) -> None:
    flip(run / "1_images" / name, 5)
    assert [name in problem for problem in damages(run)] == [True]


@pytest.mark.parametrize("left", [96, 0])
@pytest.mark.parametrize("name", ["index.npy", "pixels.bin"])
def test_a_cut_file_is_found_without_reading_large_ones(run: Path, name: str, left: int) -> None:
    path = run / "1_images" / name
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamageError, match=f"{name} is damaged: it has {left} bytes"):
        require_whole(run)


def test_a_missing_file_is_found_and_a_large_one_where_it_is_needed(run: Path) -> None:
    (run / "1_images/pixels.bin").unlink()
    require_whole(run)
    with pytest.raises(DamageError, match=r"pixels\.bin is missing"):
        require_whole(run, large=True)
    (run / "1_images/classes.txt").unlink()
    with pytest.raises(DamageError, match=r"classes\.txt is missing"):
        require_whole(run)


def test_large_arrays_are_hashed_only_when_asked(run: Path) -> None:
    flip(run / "1_images/pixels.bin")
    require_whole(run)
    with pytest.raises(DamageError, match=r"pixels\.bin is damaged: its bytes"):
        require_whole(run, large=True)


def test_attributions_may_change(run: Path) -> None:
    (run / "1_images/ATTRIBUTION.csv").write_text("file,author\na.jpg,Ada\n")
    require_whole(run, large=True)


def test_a_stage_of_another_run_is_found(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run / "1_images", other / "1_images")
    np.save(other / "1_images/index.npy", np.arange(9)[::-1])
    shutil.copy(other / "1_images/index.npy", run / "1_images/index.npy")
    shutil.rmtree(other)
    with pytest.raises(DamageError, match=r"index\.npy"):
        require_whole(run)


def test_json_comes_back_and_a_changed_digit_does_not(tmp_path: Path) -> None:
    path, values = tmp_path / "a.json", {"a": 12, "b": {"c": [1.5, "é"]}}
    write_json(path, values)
    assert read_json(path) == values
    path.write_text(path.read_text("utf-8").replace("12", "13"), "utf-8")
    with pytest.raises(DamageError, match="checksum"):
        read_json(path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1e999999x"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DamageError, match=r"a\.json is damaged"):
        read_json(path)


def test_json_without_a_checksum_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("change", [("3", "4"), ("\n# checksum", "\n# check"), ("seeds", "seed\u00e9")])
def test_a_changed_settings_file_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text(with_checksum("seeds = 3\n"), "utf-8")
    assert read_toml_text(path).startswith("seeds = 3\n")
    path.write_text(path.read_text("utf-8").replace(*change, 1), "utf-8")
    with pytest.raises(DamageError, match=r"config\.toml is damaged"):
        read_toml_text(path)


def test_damaged_arrays_are_refused_or_come_back_as_they_were(tmp_path: Path) -> None:
    path, refused = tmp_path / "predictions.npz", 0
    np.savez(path, labels=np.arange(9))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole)
        flip(path, position)
        try:
            with open_arrays(path) as stored:
                assert (stored["labels"] == np.arange(9)).all()
        except DamageError:
            refused += 1
    assert refused > 72


@pytest.mark.parametrize("name", ["rows.npy.growing", "rows.npy.growing.sums"])
def test_rows_behind_a_changed_byte_are_written_again(tmp_path: Path, name: str) -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    first = RowWriter(tmp_path / "rows.npy", values.shape, np.float32)
    first.write(values)
    del first  # killed before close
    row_bytes = 4 if name.endswith(".sums") else 16
    flip(tmp_path / name, 2 * row_bytes + 1)
    writer = RowWriter(tmp_path / "rows.npy", values.shape, np.float32)
    assert writer.done == 2
    writer.write(values[2:])
    writer.close()
    assert (np.load(tmp_path / "rows.npy") == values).all()


def test_rewound_rows_are_written_again(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    writer = RowWriter(tmp_path / "rows.npy", values.shape, np.float32)
    writer.write(values[:5] + 1)
    writer.rewind(3)
    writer.rewind(9)
    assert writer.done == 3, "never forward"
    writer.write(values[3:])
    writer.close()
    assert (np.load(tmp_path / "rows.npy") == np.concatenate([values[:3] + 1, values[3:]])).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_changed_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "checkpoint.safetensors"
    trained = nn.ModuleDict({"head": nn.Linear(64, 32)})
    average = loop._Average(trained, 0.9)
    optimizer = torch.optim.AdamW(trained.parameters())
    state = loop._State(path, trained, average, optimizer, ALONE)
    state.save(7, 99)
    assert state.restore() == (7, 99)
    flip(path, int(share * path.stat().st_size))
    with pytest.raises(DamageError, match="this training then starts over"):
        state.restore()


def test_doctor_reads_a_whole_run(run_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["doctor", str(run_copy.path)]) == 0
    assert "all as they were written" in capsys.readouterr().out


def test_doctor_names_every_damaged_file_and_what_to_do(run_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run_copy.images / "pixels.bin")
    flip(run_copy.comparison / "predictions.npz")
    for name in ("timings.json", "run.json", "config.toml"):
        flip(run_copy.path / name)
    (run_copy.report / "index.html").write_text("")
    assert command(["doctor", str(run_copy.path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    advice = {
        "pixels.bin": f"Remove {run_copy.images} and run `potstill distill` again",
        "predictions.npz": f"Remove {run_copy.comparison} and run `potstill distill` again",
        "index.html": f"Remove {run_copy.report} and run `potstill report` again",
        "timings.json": "Remove it and run again",
        "run.json": "`potstill distill` with --run writes it again",
        "config.toml": "`potstill distill` with --run writes it again",
    }
    assert len(found["problems"]) == len(advice)
    for name, what in advice.items():
        assert [what in problem for problem in found["problems"] if name in problem] == [True]


def test_doctor_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["doctor", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_damaged_run_json_is_written_again(run: Path) -> None:
    config = with_checksum('data = "x"\n')
    assert Run(run).create("potstill distill x", config)
    flip(run / "run.json", 10)
    with pytest.raises(DamageError, match="`potstill distill` with --run writes it again"):
        Run.open(run)
    assert not Run(run).create("potstill distill x", config)
    assert Run.open(run).format == 3


def test_damaged_times_stop_no_stage(run: Path) -> None:
    write_json(run / "timings.json", {"1_images": 3.0})
    flip(run / "timings.json", 5)
    with Run(run).timed("2_teacher"):
        pass
    assert set(read_json(run / "timings.json")) == {"run", "2_teacher"}


def test_settings_and_times_of_another_run_are_not_this_ones(
    run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Run(tmp_path_factory.mktemp("other"))
    for folder, text in ((other, 'data = "y"\n'), (Run(run), 'data = "x"\n')):
        folder.create("", with_checksum(text))
        with folder.timed("2_teacher"):
            pass
    shutil.copyfile(other.path / "timings.json", run / "timings.json")
    with Run(run).timed("3_soft_labels"):
        pass
    assert set(read_json(run / "timings.json")) == {"run", "3_soft_labels"}
    shutil.copyfile(other.path / "config.toml", run / "config.toml")
    with pytest.raises(DamageError, match=r"config\.toml is not the one that this run was made with"):
        Run.open(run)
