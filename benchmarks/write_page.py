"""Write docs/speed.md from the recorded results.

python benchmarks/write_page.py
"""

import json
from pathlib import Path
from typing import Any

RESULTS_DIR = Path(__file__).parent / "results"
PAGE_PATH = Path(__file__).parent.parent / "docs" / "speed.md"

HEAD = """# Speed

Measured against peers in the same run, side by side: the ratio is their time / ours, the median
over rounds (above 1: Vitral is faster), with its quartiles. Machines differ and are noisy; ratios
travel better than seconds. This page is written by `benchmarks/write_page.py` from
`benchmarks/results/`; measure on your own machine with

```bash
pip install '.[benchmark]'
python benchmarks/model_speed.py
python benchmarks/resnet_speed.py
python benchmarks/loader_speed.py photos/
python benchmarks/fewshot_speed.py
python benchmarks/features_speed.py photos/
python benchmarks/inspect_speed.py
python benchmarks/start_up.py
python benchmarks/memory.py
python benchmarks/against_commit.py ../before photos/
python benchmarks/write_page.py
```
"""


def write_page(results_dir: Path = RESULTS_DIR) -> str:
    """Return the page."""
    parts = [HEAD]
    for path in sorted(results_dir.glob("*.json")):
        result = json.loads(path.read_text())
        parts.append(SECTIONS[result["benchmark"]](result))
    return "\n".join(parts)


def _model_speed(result: dict[str, Any]) -> str:
    return _models(
        result,
        f"Model: against transformers {result['transformers']}",
        "Same shapes, sdpa attention, fused AdamW, clipping by the global norm. Where the class\n"
        "token is read, our last block computes it alone; the result is the same.",
        column="precision",
    )


def _against_commit(result: dict[str, Any]) -> str:
    lines = [
        f"## Against the commit before ({result['before']})",
        "",
        "Time after / time before, the median over rounds in which three processes do the same\n"
        "work in turn, two of them with the code before: their spread against each other is half\n"
        "the distance of the quartiles. Below 1 is faster.",
        "",
        "| what | after / before | before / itself | spread | rounds |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        void = f" (the least of {row['void_runs']} void runs)" if row["is_void"] else ""
        lines.append(
            f"| {row['what']} | {row['after_over_before']:.3f} | {row['before_over_itself']:.3f} "
            f"| {100 * row['spread']:.1f} %{void} | {row['rounds']} |"
        )
    return "\n".join([*lines, ""])


def _resnet_speed(result: dict[str, Any]) -> str:
    return _models(
        result,
        f"ResNets and hybrids: against transformers {result['transformers']}",
        "Same shapes, float32, fused AdamW, clipping by the global norm; both eager or both\n"
        "compiled. Where no gradient is wanted our standardised kernels are kept from call to\n"
        "call; compiled code computes them again, fused. transformers has the hybrid up to\n"
        "version 4.",
        column="mode",
    )


def _models(result: dict[str, Any], title: str, text: str, *, column: str) -> str:
    """Return a section with one row per measurement; `column` is an additional key of rows."""
    rows = [
        f"| {row['model']} at {row['image_size']} px, batch {row['batch']} | {row['what']} "
        f"| {row[column]} | {row['batch'] / row['ours_seconds']:,.1f} | {_ratio(row)} |"
        for row in result["rows"]
    ]
    head = f"| model | what | {column} | images/s | ratio |\n|---|---|---|---|---|"
    return _section(title, text, head, rows, result)


def _loader_speed(result: dict[str, Any]) -> str:
    rows = [
        f"| {row['images']} | {row['peer']} | {row['workers']} "
        f"| {row['our_images_per_second']:,.0f} | {_ratio(row)} |"
        for row in result["rows"]
    ]
    return _section(
        "Loader: against bare decoding, and Pillow with torch's DataLoader",
        "JPEGs in memory: decode, inception crop to 224 px, flip, batch; our threads against as\n"
        "many that only decode whole (libjpeg-turbo), and against the DataLoader's processes.\n"
        "Photos of 12 megapixels are made by enlarging. The last row is our loader on shards\n"
        "packed at 256 px against itself on the originals.",
        "| images | against | workers | images/s | ratio |\n|---|---|---|---|---|",
        rows,
        result,
    )


def _fewshot_speed(result: dict[str, Any]) -> str:
    rows = [
        f"| {row['classes']:,} | {row['shots']} | {row['width']:,} | {row['test_rows']:,} "
        f"| {row['ours_seconds']:.2f} s | {_ratio(row)} |"
        for row in result["rows"]
    ]
    return _section(
        f"Few-shot least squares: against Ridge of scikit-learn {result['sklearn']}",
        "From float32 features to predictions: both standardise by the support and solve in\n"
        "float64 with the same strength; the predictions are the same.",
        "| classes | shots | dimensions | test rows | ours | ratio |\n|---|---|---|---|---|---|",
        rows,
        result,
    )


def _inspect_speed(result: dict[str, Any]) -> str:
    def cost(row: dict[str, Any]) -> str:
        if "seconds" in row:
            return f"**{row['seconds']:.1f} s**"
        if "peak_mb" in row:
            return f"**{row['peak_mb']:,.0f} MB**"
        low, high = 1 / row["ratio_high"], 1 / row["ratio_low"]
        return f"**{1 / row['ratio']:.2f}** ({low:.2f} to {high:.2f}) of plain passes"

    rows = [
        f"| {row['what']} | {row['model']} at {row['size']} px | {cost(row)} |"
        for row in result["rows"]
    ]
    return _section(
        "Looking inside: against plain forward passes",
        "One layer's attention beside the logits, and occlusion by each patch against as many\n"
        "images in batches of the same size: time over that of the plain passes, so below 1 is\n"
        "faster. Everything of one image is the whole command without occlusion: loading, one\n"
        "forward pass, figures, page. Memory is the peak of a process.",
        "| what | model | cost |\n|---|---|---|",
        rows,
        result,
    )


def _features_speed(result: dict[str, Any]) -> str:
    rows = [
        f"| {row['model']} at {row['size']} px, batch {row['batch']} | {row['images']} "
        f"| {row['precision']} | {row['our_images_per_second']:,.1f} | {_ratio(row)} |"
        for row in result["rows"]
    ]
    return _section(
        "Features: against the bare forward pass",
        "The peer calls `model.features` on float batches that lie ready; ours begins with images\n"
        "kept decoded, at their own size (`extract_features`, without its cache), or with JPEGs\n"
        "in files (`vitral embed`). 1 is all that can be had.",
        "| model | images | precision | images/s | ratio |\n|---|---|---|---|---|",
        rows,
        result,
    )


def _start_up(result: dict[str, Any]) -> str:
    rows = [
        f"| {row['ours_seconds']:.3f} s | {row['theirs_seconds']:.3f} s |" for row in result["rows"]
    ]
    return _section(
        "Start-up", "", "| `vitral --help` | an empty Python |\n|---|---|", rows, result
    )


def _memory(result: dict[str, Any]) -> str:
    rows = [
        f"| {row['images']:,} | {row['epochs']} | {row['peak_megabytes']:,.0f} MB |"
        for row in result["rows"]
    ]
    return _section(
        "Memory of a run",
        "A small model on 64 px JPEGs, the whole process at its peak.",
        "| images | epochs | peak |\n|---|---|---|",
        rows,
        result,
    )


def _section(title: str, text: str, head: str, rows: list[str], result: dict[str, Any]) -> str:
    machine = f"{result['device']}, {result['threads']} threads, torch {result['torch']}"
    return "\n".join(
        [f"## {title}", "", *([text, ""] if text else []), head, *rows, "", machine + ".", ""]
    )


def _ratio(row: dict[str, Any]) -> str:
    return f"**{row['ratio']:.2f}** ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


SECTIONS = {
    "against_commit": _against_commit,
    "model_speed": _model_speed,
    "resnet_speed": _resnet_speed,
    "loader_speed": _loader_speed,
    "fewshot_speed": _fewshot_speed,
    "features_speed": _features_speed,
    "inspect_speed": _inspect_speed,
    "start_up": _start_up,
    "memory": _memory,
}

if __name__ == "__main__":
    PAGE_PATH.write_text(write_page())
