"""Write what the docs draw from the code: the public Python names, and the floors of the house.

    python scripts/write_docs.py

`tests/test_architecture.py` fails where the files are not what this writes.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from colorsys import hls_to_rgb
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
API_PATH, FLOORS_PATH = Path("docs/api.md"), Path("docs/images/floors.svg")
PUBLIC = {
    "vitral": None,
    "vitral.models.model": ("Model",),
    "vitral.training.results": ("Result",),
    "vitral.evaluate": None,
    "vitral.inspection": None,
    "vitral.training.objectives.base": ("Objective", "Loss", "StepInfo"),
    "vitral.data.needs": ("Needs", "Draw"),
    "vitral.evaluate.evaluator": ("Evaluator", "Metric"),
    "vitral.errors": None,
}
"""The modules whose names other people's code may rest on: all of `__all__`, or some."""
WIDTH = 88


def api_page() -> str:
    """Return the page of all public names with their signatures."""
    parts = [
        "# Python names",
        "What other code may rest on, written by `make docs` from the code itself; all else may "
        "move between\nversions. The page of each verb ([train](train.md), "
        "[evaluate](evaluate.md), ...) shows them at work.",
    ]
    for module, names in PUBLIC.items():
        loaded = importlib.import_module(module)
        parts += [f"## `{module}`", _first_paragraph(loaded)]
        for name in names or _all_names(loaded):
            parts += _describe(f"{module}.{name}", getattr(loaded, name))
    return "\n\n".join(filter(None, parts)) + "\n"


def _all_names(module: Any) -> list[str]:
    """Return a module's public names in order; packages and the version are no entries."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    members = {name: getattr(module, name) for name in sorted(names, key=str.lower)}
    return [
        name
        for name, member in members.items()
        if (inspect.isfunction(member) or inspect.isclass(member))
        and member.__module__.startswith("vitral")
    ]


def _describe(name: str, member: Any) -> Iterator[str]:
    """Yield heading, signature and text of a function or class, then those of its methods."""
    short = name.rpartition(".")[2]
    yield f"### `{short}`"
    yield f"```py\n{_signature(short, member)}\n```"
    yield _text(inspect.getdoc(member) or "")
    if inspect.isclass(member):
        yield from _fields(member)
        for method, attribute in vars(member).items():
            function = getattr(attribute, "__func__", attribute)
            if method.startswith("_") and method != "__call__":
                continue
            if inspect.isfunction(function):
                shown = short.lower() if method == "__call__" else f"{short.lower()}.{method}"
                summary = _first_paragraph(function)
                yield f"```py\n{_signature(shown, function)}\n```\n\n{summary}"


def _signature(name: str, member: Any) -> str:
    """Return a signature as the source writes it, one parameter a line where it is long."""
    if inspect.isclass(member):
        bases = [base.__name__ for base in member.__bases__ if base is not object]
        if "__init__" not in vars(member) or dataclasses.is_dataclass(member):
            return f"class {name}({', '.join(bases)})" if bases else f"class {name}"
        return "class " + _signature(name, member.__init__).removesuffix(" -> None")
    tree = ast.parse(textwrap.dedent(inspect.getsource(member))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments = tree.args
    for group in (arguments.posonlyargs, arguments.args):
        if group and group[0].arg in ("self", "cls"):
            del group[0]
    result = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    line = f"{name}({ast.unparse(arguments)}){result}"
    if len(line) <= WIDTH:
        return line
    parameters = "".join(f"    {part},\n" for part in _split(ast.unparse(arguments)))
    return f"{name}(\n{parameters}){result}"


def _split(arguments: str) -> list[str]:
    """Split parameters at the commas between them."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(arguments):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            parts.append(arguments[start:place].strip())
            start = place + 1
    return [*parts, arguments[start:].strip()]


def _fields(member: type) -> Iterator[str]:
    """Yield the annotated fields of a class with the sentence below each."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(member))).body[0]
    assert isinstance(tree, ast.ClassDef)
    rows = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
            row = f"- `{ast.unparse(node)}`"
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                row += f": {' '.join(str(after.value.value).split())}"
            rows.append(row)
    if rows:
        yield "\n".join(rows)


def _text(doc: str) -> str:
    """Return a docstring as Markdown: what is listed under Args and so on becomes a list."""
    doc = doc.replace("# doctest: +SKIP", "")
    doc = re.sub(r"(?m)^(>>> (?:.+\n?)+)", r"```py\n\1\n```", doc)
    lines = []
    for line in doc.splitlines():
        heading = re.fullmatch(r"(Args|Returns|Raises|Yields):", line)
        entry = re.fullmatch(r" {4}(\w+): (.*)", line)
        if heading:
            lines.append(f"{heading[1]}:\n")
        elif entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(re.sub(r"^ {4,}", "  ", line).rstrip())
    return "\n".join(lines)


def _first_paragraph(member: Any) -> str:
    return " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the highest first, from the import contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return [
        [room for part in layer.split("|") if not (room := part.strip()[7:]).startswith("_")]
        for layer in contract["layers"]
    ]


def floors_picture() -> str:
    """Return the house as SVG: a row a floor; what is higher may import what is lower."""
    width, height, gap = 720, 34, 10
    rows = floors()
    box = f"-1 -1 {width + 2} {len(rows) * (height + gap)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"'
        ' font-family="system-ui, sans-serif" font-size="14">'
    ]
    for number, rooms in enumerate(rows):
        y = number * (height + gap)
        lightness = 0.95 - 0.03 * number
        color = "#" + bytes(round(255 * c) for c in hls_to_rgb(0.6, lightness, 0.45)).hex()
        each = (width - gap * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(rooms):
            x = place * (each + gap)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{each:.1f}" height="{height}" rx="4" '
                f'fill="{color}" stroke="#47607f"/>'
                f'<text x="{x + each / 2:.1f}" y="{y + height / 2 + 5:.0f}" text-anchor="middle" '
                f'fill="#1c2b3f">{room}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def pages() -> dict[Path, str]:
    """Return the text of each file that is written, by its path below the root."""
    return {API_PATH: api_page(), FLOORS_PATH: floors_picture()}


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)
