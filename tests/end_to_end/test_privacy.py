"""What people pass on says nothing about them: looked for in the bytes of files, archives and pictures in pages."""

import base64
import io
import platform
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from tests.reports import edit
from tests.support import CLASSES, TINY, draw_photo

import potstill
from potstill.cli import run as command
from potstill.export.hub import write_timm
from potstill.export.stage import export
from potstill.monitoring.progress import Reporter
from potstill.report.stage import write_report
from potstill.run.folder import Run
from potstill.run.forecast import forecast_path

MAIL = "jane.doe@mail-of-jane.example"
SERIAL, PLACE = "camera-serial-4711", "geodetic-datum-4711"
TOKEN = "hf_" + "aB3" * 10
OWNER = "home-of-jane"


def exif_of_jane() -> Image.Exif:
    """Where and with what a photo was taken, and whose it is."""
    exif = Image.Exif()
    exif[0x013B], exif[0x8298], exif[0x0110] = f"Jane <{MAIL}>", f"Jane {MAIL}", SERIAL
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", tuple(IFDRational(value) for value in (52, 31, 12))
    gps[3], gps[4] = "E", tuple(IFDRational(value) for value in (13, 24, 18))
    gps[18] = PLACE
    return exif


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on Jane's photos, exported and shared."""
    home = tmp_path_factory.mktemp(OWNER)
    photos, number = home / "photos", 0
    rows = ["path,author,title,link,license,license_url,source"]
    for split, count in {"train": 10, "val": 5, "test": 5}.items():
        for kind in CLASSES:
            (photos / split / kind).mkdir(parents=True)
            for _ in range(count):
                number += 1
                path = photos / split / kind / f"{number}.jpg"
                draw_photo(kind, number).save(path, exif=exif_of_jane(), comment=f"{SERIAL} {MAIL}".encode())
                rows.append(
                    f"{path.relative_to(photos)},Jane {MAIL},,https://jane:pw4711@x.example/1,CC-BY-4.0,,{home}/list.csv"
                )
    (photos / "ATTRIBUTION.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (photos / "ATTRIBUTION.txt").write_text(f"By Jane <{MAIL}>, see {home}/license.txt\n", "utf-8")
    (photos / "train/disc/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    settings = {**TINY, "seeds": 1}
    result = potstill.distill(photos, settings=settings, run=home / "run", reporter=Reporter(quiet=True))
    made = Run(result.path)
    edit(made.path / "run.json", lambda values: values.update(command=f"HF_TOKEN={TOKEN} potstill distill {photos}"))
    export(made, ["onnx", "torch"], ["float32"], reporter=Reporter(quiet=True))
    write_timm_if_it_can(made)
    write_report(made, shared="blurred")
    made.write_readme()
    return made


def write_timm_if_it_can(run: Run) -> None:
    """What `push` uploads."""
    from potstill.errors import ExportError

    with pytest.raises(ExportError):  # timm has no name for so narrow a network; the other files are written
        write_timm(run, "mobilenetv1_025-32px", run.path / "uploaded")


def published(run: Run) -> Iterator[Path]:
    """Every file that is made to be passed on."""
    yield from (run.path / "README.md", run.comparison / "comparison.json")
    for folder in (run.report, run.export, run.path / "uploaded"):
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file())
    yield from run.students.rglob("model.*")
    if forecast_path(run).is_file():
        yield forecast_path(run)


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, of the members of an archive, and of the pictures in a page."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    for found in re.finditer(rb"data:image/\w+;base64,([A-Za-z0-9+/=]+)", data):
        yield base64.b64decode(found[1])


def secrets_of(run: Run) -> dict[str, bytes]:
    names = {
        "folder": OWNER,
        "home": str(Path.home()) + "/",
        "packages": str(Path(potstill.__file__).parents[1]),
        "site-packages": "site-packages/",
        "mail": MAIL,
        "server of the mail": MAIL.partition("@")[2],
        "password": "pw4711",
        "token": TOKEN,
        "camera": SERIAL,
        "place": PLACE,
        "EXIF": "Exif\0\0",
        "machine": platform.node() if len(platform.node()) > 5 else OWNER,
    }
    return {name: text.encode() for name, text in names.items()}


@pytest.mark.slow
def test_no_published_file_tells_of_its_owner(run: Run) -> None:
    files = list(published(run))
    assert {"index.html", "shared.html", "README.md", "manifest.json", "student.onnx"} <= {path.name for path in files}
    assert any(path.suffix == ".pt2" for path in files)
    found = [
        (str(path.relative_to(run.path)), name)
        for path in files
        for data in contents(path)
        for name, secret in secrets_of(run).items()
        if secret in data or secret.decode().encode("utf-16-le") in data
    ]
    assert found == []


@pytest.mark.slow
def test_the_photos_did_have_all_that(run: Run) -> None:
    """Else the test above would prove nothing."""
    photo = next((run.path.parent / "photos/test/disc").iterdir())
    for secret in (MAIL, SERIAL, PLACE):
        assert secret.encode() in photo.read_bytes()
    config = (run.path / "config.toml").read_text("utf-8")
    assert OWNER in config, "the owner's own files say where the photos are"
    assert "photos" in (run.report / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_a_shared_report_has_no_photo_that_can_be_made_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for choice in ("none", "blurred", "all"):
        assert command(["report", str(run.path), "--share", "--photos", choice]) == 0
        page = (run.report / "shared.html").read_bytes()
        pictures = [
            Image.open(io.BytesIO(data)) for data in contents(run.report / "shared.html") if data[:4] == b"RIFF"
        ]
        assert (max((max(picture.size) for picture in pictures), default=0) > 10) == (choice == "all")
        assert bool(pictures) == (choice != "none")
        assert (b".jpg" in page) == (choice == "all"), "names of files tell much, too"
        assert (b"Jane jane.doe@" in page) == (choice != "none"), "whoever made a photo is named beside it"
    assert command(["report", str(run.path), "--share"]) == 0
    assert b"data:image/" not in (run.report / "shared.html").read_bytes()
    capsys.readouterr()
    assert command(["report", str(run.path), "--photos", "none"]) == 2
    assert "Add --share" in capsys.readouterr().err
