"""The pages say what is so: commands parse, cheap ones run, links lead somewhere, code compiles, settings exist."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from PIL import Image
from tests.docs.pages import PAGES, ROOT, Piece, anchors, blocks, console_lines, inline_code, links
from tests.support import environment

import potstill
from potstill.cli import app, deploy, photos, run, runs, use  # noqa: F401  each registers its commands
from potstill.config.load import from_mapping, settings
from potstill.errors import ConfigError

OTHER_PROGRAMS = {"make", "pip", "python", "python3", "tail", "curl", "ray", "export", "cd", "find", "cat"} | {
    "sbatch",
    "kubectl",
}
COMMANDS = {name for name in app if not name.startswith("-")}


def words(line: str) -> list[str]:
    """The words of a shell line without leading `NAME=value`s."""
    parts = shlex.split(line, comments=True)
    while parts and re.fullmatch(r"[A-Z_]+=.*", parts[0]):
        parts.pop(0)
    return parts


def of(program: str) -> list[Piece]:
    return [line for line in console_lines() if words(line.text)[0] == program]


def parse(arguments: list[str]) -> None:
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    settings = dict(bound.arguments.get("settings", {}))
    if source := bound.arguments.get("source"):  # of `label`, which makes a setting of it
        settings["teacher.model"] = f"file:{source}"
    from_mapping(settings, source="command line")


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 10
    assert len(of("potstill")) > 20
    assert len(links()) > 20
    assert len(blocks("python")) > 2


@pytest.mark.parametrize("line", of("potstill"), ids=str)
def test_every_command_parses(line: Piece) -> None:
    parse(words(line.text)[1:])


def test_a_wrong_command_would_not_parse() -> None:
    for wrong in (["distil", "data"], ["distill", "data", "--student.epoch", "3"], ["count"]):
        with pytest.raises(CycloptsError):
            parse(wrong)
    with pytest.raises(ConfigError):
        parse(["distill", "data", "--student.epochs", "0"])


def test_every_command_in_the_text_exists() -> None:
    for piece in inline_code():
        if piece.text.startswith("potstill ") and "COMMAND" not in piece.text:
            arguments = words(piece.text)[1:]
            assert arguments[0] in COMMANDS, piece
            if len(arguments) > 1:
                flags = {flag.partition("=")[0] for flag in arguments if flag.startswith("--")}
                known = {name for a in app[arguments[0]].assemble_argument_collection() for name in a.names}
                assert flags <= known, piece


def test_other_programs_are_known_and_make_and_pip_know_their_words() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for line in console_lines():
        program, *rest = words(line.text)
        assert program in OTHER_PROGRAMS | {"potstill"}, line
        if program == "make":
            assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), line
    for page in PAGES:
        for names in re.findall(r"potstill\[([\w,-]+)\]", page.read_text("utf-8")):
            assert set(names.split(",")) <= set(extras), f"{page}: potstill[{names}]"


def test_every_command_is_documented() -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    assert {name for name in COMMANDS if f"\n## potstill {name}\n" in reference} == COMMANDS


@pytest.mark.parametrize("link", links(), ids=str)
def test_every_link_inside_the_project_leads_somewhere(link: Piece) -> None:
    if link.text.startswith(("http://", "https://", "mailto:")):
        return
    path, _, anchor = link.text.partition("#")
    target = (link.page.parent / path).resolve() if path else link.page
    assert target.is_relative_to(ROOT), link
    assert target.exists(), link
    if anchor:
        assert anchor in anchors(target), link


def test_every_page_can_be_reached() -> None:
    reached, todo = set(), [ROOT / "README.md", ROOT / "docs" / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        paths = [link.text.partition("#")[0] for link in links() if link.page == page]
        todo += [(page.parent / path).resolve() for path in paths if path and "://" not in path]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_the_pages_compiles_and_uses_names_that_exist(block: Piece) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "potstill":
            assert hasattr(potstill, node.attr), f"{block}: potstill.{node.attr}"


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_recipes_in_the_pages_are_valid(block: Piece) -> None:
    from_mapping(tomllib.loads(block.text))


def test_recipes_are_valid_and_say_how_to_run_them() -> None:
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert recipes
    for path in recipes:
        text = path.read_text("utf-8")
        from_mapping(tomllib.loads(text), source=path.name)
        header = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        lines = header.replace("\\\n", " ").splitlines()
        commands = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?potstill ", line)]
        assert commands, f"{path.name}: the header names no command"
        for command in commands:
            parse(words(command)[1:])


def test_settings_named_in_the_pages_exist() -> None:
    names = {setting.name for setting in settings()}
    sections = {name.partition(".")[0] for name in names if "." in name}
    for piece in inline_code():
        for name in re.findall(rf"(?<![\w./-])(?:{'|'.join(sections)})\.[a-z_-]+\b(?![/.(])", piece.text):
            if not name.endswith((".json", ".html", ".csv", ".py", ".onnx", ".txt", ".bin", ".npy")):
                assert name.replace("-", "_") in names, piece


def test_the_steps_of_the_quickstart_work(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cheap commands of the pages are run as they stand there; long ones are tested elsewhere."""
    lines = [line.text for line in of("potstill") if line.page.name == "quickstart.md"]
    make = next(line for line in lines if line.startswith("potstill init"))
    count = next(line for line in lines if line.startswith("potstill count"))
    assert run(words(make)[1:]) == 0
    assert sorted(p.name for p in Path("data/train").iterdir()) == ["bird", "cat", "dog"]
    Image.new("RGB", (64, 64)).save("data/train/cat/a.png")
    assert run(words(count)[1:]) == 0
    assert "cat" in capsys.readouterr().out
    assert run(["doctor", "--offline"]) == 0
    said = capsys.readouterr().out
    assert "torch" in said
    for line in [piece.text for piece in of("potstill") + inline_code() if piece.text.startswith("potstill models")]:
        if "PATTERN" not in line:
            assert run(words(line)[1:]) == 0
            assert "mobilenet" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"potstill {name}" in said
    assert "Traceback" not in said


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr} Run: python tools/reference.py"


_TEXT = {".md", ".py", ".toml", ".json", ".csv", ".svg", ".html", ".css", ".js", ".jinja", ".txt", ".sh", ""}
_HERE = re.compile(r"""(?:^|[\s"'`(=])/(?:work|root|home|Users|mnt)/\w""", re.MULTILINE)
_INDEX = re.compile("|".join(["index" + "-url", r"py" + r"pi\.\w", "python" + "hosted"]))


def test_no_file_knows_this_machine_or_a_package_index() -> None:
    folders = ["src", "tests", "docs", "tools", "benchmarks", "recipes", ".ci"]
    files = [p for folder in folders for p in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    for path in files:
        if not path.is_file() or path.name == ".git" or path.suffix not in _TEXT or path.stat().st_size > 2_000_000:
            continue
        text = path.read_text("utf-8", "replace")
        for kind in (_HERE, _INDEX):
            found = kind.search(text)
            assert not found, f"{path.relative_to(ROOT)}: {found and found[0]!r}"
