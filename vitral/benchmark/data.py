"""Benchmark of data loading, compared with decoding alone and with the rate a model needs."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from vitral.config.preprocessing import Preprocessing, default_preprocessing
from vitral.config.run import AugmentSettings, DataSettings
from vitral.data.dataset import ImageDataset
from vitral.data.device_transforms import prepare_on_device
from vitral.data.examples import Examples
from vitral.data.jpeg import decode_whole
from vitral.data.loader import TrainingBatches
from vitral.data.order import steps_per_epoch
from vitral.data.profile import LoadingProfile, advise, describe_advice, profile_loading
from vitral.data.sources.store import Content
from vitral.data.workers import decode
from vitral.models.build import create_model
from vitral.runtime.device import bytes_to_keep

_BATCH = 64
_SECONDS = 2.0
"""Approximate duration of each measurement."""


def benchmark_data(
    data: ImageDataset,
    *,
    model: str,
    image_size: int,
    workers: Sequence[int],
    device: torch.device,
    scaled_decoding: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure loading by stage and by number of threads.

    Args:
        data: opened; its training images are loaded, or else all.
        model: name of the model whose training rate is measured.
        image_size: of its input, pixels.
        workers: numbers of threads to measure.
        device: on which the model trains.
        scaled_decoding: as in training.
        report_progress: called with the number of measurements done and the total.

    Returns:
        Plain data: `stages` in seconds per image; `rows`, for each number of threads the images per
        second, also as shares of bare decoding and of the rate that the model needs; the rate with
        decoded images kept in memory, if they fit; `advice`.
    """
    examples = data.splits.get("train") or data.everything()
    preprocessing = default_preprocessing((image_size, image_size), channels=data.channels)
    settings = AugmentSettings()
    total = len(workers) + 2
    report = report_progress or (lambda done, total: None)
    stages = profile_loading(examples, preprocessing=preprocessing, settings=settings)
    report(1, total)
    need = training_rate(model, data, image_size=image_size, device=device)
    report(2, total)
    rows = []
    for num_workers in workers:
        batches = TrainingBatches(
            examples, preprocessing, settings, seed=0, batch_size=_BATCH, workers=num_workers,
            scaled_decoding=scaled_decoding,
        )  # fmt: skip
        bare = bare_rate(examples, stages, workers=num_workers, channels=data.channels)
        rate = loading_rate(batches)
        rows.append(
            {
                "workers": num_workers,
                "images_per_second": rate,
                "bare_images_per_second": bare,
                "share_of_bare": rate / bare,
                "share_of_need": rate / need,
            }
        )
        report(2 + len(rows), total)
    decoded_bytes = data.decoded_bytes()
    fits = bool(decoded_bytes) and (decoded_bytes or 0) <= bytes_to_keep(num_processes=1)
    best = max(rows, key=lambda row: row["images_per_second"])
    threads = int(best["workers"])
    settings_used = DataSettings(source="", workers=threads, scaled_decoding=scaled_decoding)
    kept_rate = None
    if fits and not scaled_decoding:
        subset = data.keeping_decoded().everything()
        subset = subset.select(np.arange(min(len(subset), 1024)))
        repeated = replace(batches, examples=subset, workers=threads)
        for _ in repeated.steps(0, steps_per_epoch(len(subset), _BATCH)):
            pass  # decoded and kept
        kept_rate = loading_rate(repeated)
    advice = advise(stages, data=settings_used, preprocessing=preprocessing, fits=fits)
    return {
        "num_images": len(examples),
        "model": model,
        "image_size": image_size,
        "device": str(device),
        "stages": asdict(stages)
        | {"to_device": to_device_seconds(batches, preprocessing, device=device)},
        "needed_images_per_second": need,
        "rows": rows,
        "kept_images_per_second": kept_rate,
        "is_fast_enough": max(best["images_per_second"], kept_rate or 0) >= need,
        "bottleneck": stages.slowest,
        "advice": [asdict(item) for item in advice],
        "sentences": describe_advice(stages, advice),
    }


def loading_rate(batches: TrainingBatches) -> float:
    """Return the loading rate in images per second, without the first batch."""
    count, started = 0, 0.0
    for number, step in enumerate(batches.steps(0, 1_000_000)):
        if number == 0:
            started = time.perf_counter()  # threads have started and memory is warm
            continue
        count += step.plan.num_examples
        if time.perf_counter() - started > _SECONDS:
            break
    return count / (time.perf_counter() - started)


def bare_rate(examples: Examples, stages: LoadingProfile, *, workers: int, channels: int) -> float:
    """Return the rate, in images per second, of full decoding alone with some threads."""
    per_round = max(workers, 1) * 8
    count = max(per_round, int(_SECONDS / 2 / stages.bare))
    indices = [int(index) for index in np.arange(count) % len(examples)]
    contents = {index: examples.read(index) for index in set(indices[:256])}
    wanted = [contents[index] for index in indices if index in contents]

    def run(content: Content) -> None:
        if not isinstance(content, bytes) or decode_whole(content) is None:
            decode(content, channels=channels)

    started = time.perf_counter()
    if workers > 0:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, wanted))
    else:
        for content in wanted:
            run(content)
    return len(wanted) / (time.perf_counter() - started)


def training_rate(
    model: str, data: ImageDataset, *, image_size: int, device: torch.device
) -> float:
    """Return the training rate of a model in images per second: forward and backward pass."""
    network = create_model(
        model, num_classes=len(data.classes), image_size=image_size, in_channels=data.channels
    ).to(device)
    size = _BATCH if device.type == "cuda" else 8
    images = torch.randn(size, data.channels, image_size, image_size, device=device)
    labels = torch.zeros(size, dtype=torch.long, device=device)

    def step() -> None:
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < _SECONDS:
        step()
        count += size
    return count / (time.perf_counter() - started)


def to_device_seconds(
    batches: TrainingBatches, preprocessing: Preprocessing, *, device: torch.device
) -> float:
    """Return the seconds per image to transfer to the device, mirror and normalise."""
    (step,) = batches.steps(0, 1)
    (batch,) = step.micro_batches
    times = []
    for _ in range(5):
        started = time.perf_counter()
        prepare_on_device(batch, device=device, preprocessing=preprocessing)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) / len(batch["index"]))
    return float(np.median(times))
