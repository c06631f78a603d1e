"""The page docs/reference/python.md: the public names of `import potstill`, from their signatures and docstrings."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from docstring_parser import parse

import potstill
from potstill.config.load import field_docs
from potstill.report.notebook import Figure

ORDER = (
    *("distill", "Result", "load", "Predictor", "Prediction", "LabelsPrediction"),
    *("evaluate", "Evaluation", "Config", "PotstillError"),
)
HEAD = """# Python

{made}

Everything that other code may rely on. `import potstill` is cheap: PyTorch is imported when a name is first used.

```python
import potstill

run = potstill.distill("my-photos", students=["mobilenetv3_small_100"])
print(run.verdicts())
print(run.student.predict("cat.jpg").label)
```

In a notebook, end a cell with a `Result` to see its verdict, its table and a plot, or with a `Prediction` to see its
probabilities.
"""


def python_page(made: str) -> str:
    """The page. `made` is the comment that says how it was made."""
    names = sorted(potstill.__all__, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    lines = HEAD.format(made=made).splitlines()
    for name in names:
        lines += ["", f"## potstill.{name}", *_described(getattr(potstill, name), f"potstill.{name}")]
    lines += ["", "## Figure", "", "What `Result.plot` returns.", *_described(Figure, "Figure")]
    return "\n".join(lines) + "\n"


def _described(thing: Any, name: str) -> Iterator[str]:
    """A function or class with everything public in it."""
    if not inspect.isclass(thing):
        yield from _function(thing, name)
        return
    yield from ("", *_text(inspect.getdoc(thing)))
    if issubclass(thing, Exception):
        yield from ("", *_tree(thing))
    elif thing is potstill.Config:
        yield from ("", "Its fields are the sections and settings of [Settings](settings.md).")
        return
    own = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
    rows = [f"| `{key}` | {_attribute(thing, key)} |" for key in (*_fields(thing), *own) if _is_attribute(thing, key)]
    if rows:
        yield from ("", "| attribute | what it is |", "|---|---|", *dict.fromkeys(rows))
    for key, value in own.items():
        if inspect.isfunction(value):
            yield from ("", f"### {thing.__name__}.{key}", *_function(value, key))


def _fields(thing: type) -> list[str]:
    return [key for key in getattr(thing, "__dataclass_fields__", {}) if field_docs(thing).get(key)]


def _is_attribute(thing: type, key: str) -> bool:
    value = inspect.getattr_static(thing, key, None)
    is_property = isinstance(value, property | functools.cached_property)
    return key in _fields(thing) or (is_property and bool(inspect.getdoc(value)))


def _attribute(thing: type, key: str) -> str:
    text = field_docs(thing).get(key) if key in _fields(thing) else inspect.getdoc(inspect.getattr_static(thing, key))
    return _one_line(text or "")


def _function(function: Any, name: str) -> Iterator[str]:
    """Signature, text, arguments and errors."""
    docs = parse(inspect.getdoc(function) or "")
    yield from ("", "```text", _signature(function, name), "```", "", _one_line(docs.short_description or ""))
    if docs.long_description:
        yield from ("", _one_line(docs.long_description))
    if docs.params:
        yield from ("", "| argument | what it is |", "|---|---|")
        yield from (f"| `{p.arg_name}` | {_one_line(p.description or '')} |" for p in docs.params)
    for error in docs.raises:
        yield from ("", f"Raises `{error.type_name}`: {_one_line(error.description or '')}")


def _signature(function: Any, name: str) -> str:
    """As in the source, in one line or with a line for each argument."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    arguments = [_argument(a, d) for a, d in zip(given.args, defaults, strict=True) if a.arg not in ("self", "cls")]
    named = [_argument(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    arguments += ["*", *named] if named else []
    end = f") -> {ast.unparse(node.returns)}" if node.returns else ")"
    line = f"{name}({', '.join(arguments)}{end}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {a}," for a in arguments), end])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return argument.arg + kind + (f" = {ast.unparse(default)}" if default else "")


def _text(docstring: str | None) -> list[str]:
    return [_one_line(paragraph) for paragraph in (docstring or "").split("\n\n")[:1]]


def _tree(base: type) -> Iterator[str]:
    """All kinds of an error, with what each means."""
    yield from ("| error | meaning |", "|---|---|")
    kinds = [kind for kind in base.__subclasses__() if kind.__module__ == base.__module__]
    yield from (f"| `{kind.__name__}` | {_one_line(kind.__doc__ or '')} |" for kind in kinds)
    yield from ("", f"They are in `{base.__module__}`.")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
