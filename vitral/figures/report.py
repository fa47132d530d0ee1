"""The report of a run: one self-contained HTML page, made only from the run's folder."""

from pathlib import Path

from vitral.figures.classes import calibration_section, classes_section
from vitral.figures.dataset import data_section
from vitral.figures.finished_run import FinishedRun, read_run_folder
from vitral.figures.html import Html, document, element
from vitral.figures.report_header import head
from vitral.figures.report_sections import (
    mistakes_section,
    origins_section,
    training_section,
    usage_section,
)
from vitral.figures.result import result_section
from vitral.files.layout import RunFile

OF_CLASSES = (classes_section, calibration_section, mistakes_section)
"""Sections of runs that have class predictions."""


def write_report(run_dir: Path) -> Path:
    """Write the plots of a run and `report.html` into its folder.

    Args:
        run_dir: the folder of a finished run; needs `summary.json`, other files are optional.

    Returns:
        The path of the page: one file without external resources.

    Raises:
        RequestError: the folder has no `summary.json`, or one of its files can't be read.
    """
    run = read_run_folder(run_dir)
    page = _compose(run)
    path = run_dir / RunFile.REPORT
    # File names that are not valid text hold lone surrogates, which UTF-8 can't encode.
    path.write_bytes(page.encode("utf-8", errors="backslashreplace"))
    return path


def _compose(run: FinishedRun) -> Html:
    """Render the page with its sections in reading order."""
    title = f"{run.summary.get('model', 'Model')} on {run.summary.get('data', 'data')}"
    version = run.config.get("vitral_version")
    return document(
        title,
        head(run),
        element(
            "main",
            result_section(run),
            training_section(run),
            *(section(run) for section in OF_CLASSES if run.has_classes),
            data_section(run),
            usage_section(run),
            origins_section(run),
        ),
        element("footer", f"Vitral {version}" if version else "Vitral"),
    )
