"""`vitral bench data`."""

import json
from collections.abc import Sequence
from typing import Any

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options
from vitral.errors import RequestError, nearest

DESCRIPTION = (
    "Measure how fast data is loaded: by stage, by number of threads, as a share of bare decoding "
    "and of what a model needs; name the bottleneck and what to do."
)
OPTIONS = (
    Option("data", "as for `vitral train`", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option("--model", "whose need is compared", metavar="NAME", default="ViT-S/16"),
    Option("--image-size", "pixels of the model's input", metavar="N", type=int, default=224),
    Option("--threads", "numbers of threads, such as 1,2,4; 0 to all cores", metavar="N,N"),
    Option("--scaled-decoding", "decode JPEGs smaller where the crop still fills the model"),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    Option("--json", "print one JSON object"),
)
ACTIONS = ("data",)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status.

    Raises:
        RequestError: an unknown action.
    """
    if not tokens or tokens[0] in ("-h", "--help", "help"):
        print("usage: vitral bench data DATA\n\n  vitral bench data   " + DESCRIPTION)
        return 0
    if tokens[0] not in ACTIONS:
        raise RequestError(f"vitral bench has no action {tokens[0]!r}{nearest(tokens[0], ACTIONS)}")
    return _data(tokens[1:])


def _data(tokens: Sequence[str]) -> int:
    args = parse_options("bench data", OPTIONS, tokens, description=DESCRIPTION)
    workers = _numbers(args.threads)
    from vitral.benchmark.data import benchmark_data
    from vitral.cli.console import progress
    from vitral.config.names import parse_model_name
    from vitral.config.run import DataSettings
    from vitral.data.dataset import open_dataset
    from vitral.runtime.device import choose_device

    name = parse_model_name(args.model)["name"]
    settings = DataSettings(source=args.data, directory=args.data_dir or "", validation_share=0.0)
    with progress("looking at the images") as report:
        data = open_dataset(args.data, settings=settings, report_progress=report)
    with progress("measuring") as report:
        measured = benchmark_data(
            data,
            model=name,
            image_size=args.image_size,
            workers=workers,
            device=choose_device(args.device),
            scaled_decoding=args.scaled_decoding,
            report_progress=report,
        )
    print(json.dumps(measured, ensure_ascii=False) if args.json else _format(measured))
    return 0


def _numbers(text: str | None) -> list[int]:
    """Parse `--threads`; the default is 0, 1, 2, 4, ... up to all cores."""
    import os

    if text is None:
        cores = os.cpu_count() or 1
        return [0, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)]
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise RequestError(f"--threads {text}: give numbers of threads, such as 1,2,4")
    return numbers


def _format(measured: dict[str, Any]) -> str:
    stages = measured["stages"]
    lines = [
        f"{measured['num_images']:,} images, {stages['num_pixels'] / 1e6:.2f} megapixels and "
        f"{stages['num_bytes'] / 1e3:,.0f} kB each on average; crops of {measured['image_size']}",
        "",
        "stage             ms an image, one thread",
    ]
    shown = {"read": "read", "decode": "decode", "augment": "crop and resize",
             "collate": "collate", "to_device": "to the device"}  # fmt: skip
    lines += [f"{title:<16}{1000 * stages[key]:>9.3f}" for key, title in shown.items()]
    lines += [
        f"(bare decoding{1000 * stages['bare']:>11.3f})",
        "",
        f"threads  images/s  of bare decoding  of what {measured['model']} needs "
        f"({measured['needed_images_per_second']:,.0f}/s on {measured['device']})",
    ]
    for row in measured["rows"]:
        shares = f"{100 * row['share_of_bare']:>14.0f} %  {row['share_of_need']:>10.1f} times"
        lines.append(f"{row['workers']:>7}  {row['images_per_second']:>8,.0f}  {shares}")
    if measured["kept_images_per_second"]:
        rate = measured["kept_images_per_second"]
        lines.append(f"decoded images fit into memory: {rate:,.0f} images/s after the first epoch")
    verdict = "enough" if measured["is_fast_enough"] else "not enough: the model would wait"
    return "\n".join([*lines, "", f"loading is {verdict}", *measured["sentences"]])
