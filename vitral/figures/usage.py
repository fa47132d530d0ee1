"""How to use the model, and everything that it takes to train it again."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitral.figures.page import (
    DASH,
    Html,
    element,
    folded,
    missing,
    paragraph,
    row,
    section,
    table,
)
from vitral.figures.run_folder import RunFolder


def usage_section(run: RunFolder) -> Html:
    """Write how the model is called from the shell and from Python."""
    model = (_from_here(run.path) / "model").as_posix()
    shell = f"vitral predict {shlex.quote(model)} image.jpg"
    python = (
        f'import vitral\n\npredictor = vitral.Predictor({_string(model)})\npredictor(["image.jpg"])'
    )
    return section(
        "use",
        "Use the model",
        paragraph("From the shell:"),
        element("pre", element("code", shell), class_="command"),
        paragraph("From Python:"),
        element("pre", element("code", python), class_="command"),
    )


def origins_section(run: RunFolder) -> Html:
    """Write all settings with where each came from, and the versions of software and machine."""
    return section(
        "again", "To train it again", _settings(run.config), _environment(run.environment)
    )


def _from_here(path: Path) -> Path:
    """Name a folder as one would type it: relative where it lies below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _string(text: str) -> str:
    """Write a Python string, in double quotes where it can be."""
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else repr(text)


def _settings(config: dict[str, Any]) -> Html:
    """Write one row a setting."""
    if not config.get("settings"):
        return missing("This folder has no config.yaml with settings.")
    origin = config.get("origin") or {}
    rows = [
        row(
            element("code", name),
            element("td", element("code", _value(value))),
            element("td", element("span", origin.get(name, DASH), class_="origin")),
        )
        for name, value in flatten(config["settings"])
    ]
    head = ["Setting", "Value", "From"]
    listed = table(head, rows, class_="files", label="All settings")
    return folded(f"All {len(rows)} settings, and where each came from", listed)


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`optimizer.learning_rate`, value) from nested settings, in their order."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _value(value: Any) -> str:
    """Write a setting as a configuration file would."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _environment(environment: dict[str, Any]) -> Html:
    """Write versions and machine."""
    if not environment:
        return missing("This folder has no environment.json.")
    rows = [row(name, value) for name, value in environment.items()]
    return folded(
        "Software and machine",
        table(["What", "Which"], rows, class_="files", label="Software and machine"),
    )
