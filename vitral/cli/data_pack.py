"""`vitral data pack`."""

import json
from collections.abc import Sequence
from pathlib import Path

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options

DESCRIPTION = (
    "Write the images of any source into shards that are read fast and in any order: plain tars, "
    "each with an index and checksums. The same command goes on where it was stopped."
)
OPTIONS = (
    Option("data", "as for `vitral train`", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option("--output", "the folder of the shards", metavar="DIR"),
    Option(
        "--resize",
        "shrink larger images to this many pixels on the shorter side; left out: keep their bytes",
        metavar="N",
        type=int,
    ),
    Option(
        "--quality", "of the JPEGs that shrunk images become, 1 to 100; 90", metavar="N", type=int
    ),
    Option("--images-per-shard", "at most; 5000", metavar="N", type=int, default=5000),
    Option("--json", "print one JSON object"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the action and return its exit status.

    Raises:
        RequestError: no output, or a setting without effect.
    """
    asked = parse_options("data pack", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.cli.progress import progress
    from vitral.data.datasets.names import data_name
    from vitral.data.images import open_images
    from vitral.data.pack import pack
    from vitral.data.pack_shard import PackSettings
    from vitral.errors import RequestError
    from vitral.spec.run import DataSettings

    if not asked.output:
        raise RequestError("--output is missing: give the folder that the shards shall go to")
    if asked.quality is not None and not asked.resize:
        raise RequestError(
            f"--quality {asked.quality} has no effect without --resize: images that are not shrunk "
            "keep their bytes"
        )
    settings = PackSettings(
        resize=asked.resize or 0,
        quality=90 if asked.quality is None else asked.quality,
        images_per_shard=asked.images_per_shard,
    )
    with progress("looking at the images") as report:
        how = DataSettings(source=asked.data, directory=asked.data_dir or "", validation_share=0)
        data = open_images(asked.data, settings=how, report_progress=report)
    with progress("packing") as report:
        packed = pack(
            data, Path(asked.output), settings, name=data_name(asked.data), report_progress=report
        )
    if asked.json:
        print(json.dumps(packed | {"path": asked.output}, ensure_ascii=False))
        return 0
    counts = ", ".join(f"{count:,} {split}" for split, count in packed["splits"].items())
    total = sum(shard["bytes"] for shard in packed["shards"])
    print(f"packed    {counts} images into {len(packed['shards']):,} shards, {_size(total)}")
    print(f"images    {packed['images']}")
    if packed["num_skipped"]:
        print(f"left out  {packed['num_skipped']:,} files: {asked.output}/skipped.csv says why")
    return 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
