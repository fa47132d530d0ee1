"""What a reader must know before believing a score."""

from vitral.figures.measures import right_answers
from vitral.figures.page import Html, count, element, note, quoted
from vitral.figures.run_folder import Record, RunFolder


def unfinished(status: Record) -> Html | None:
    """Say when the folder is not that of a finished run."""
    state = status.get("state", "done")
    if state == "done":
        return None
    reason = status.get("reason")
    return note(
        element("b", f"This run is not finished: {state}"), f" ({reason})." if reason else "."
    )


def not_a_test(split: str) -> Html | None:
    """Say plainly what a score is worth that is not measured on a test split."""
    if split == "test":
        return None
    why = {
        "validation": "choices made during training may have followed these images",
        "train": "the weights were fitted to these very images",
    }.get(split, "nothing here says whether training saw these images")
    return note(
        element("b", "This is not a test score. "),
        "It is measured on the split ",
        quoted(split),
        f", and {why}: expect less on new images.",
    )


def num_copies(run: RunFolder) -> int:
    """Count the pairs of equal images of which one is in another split."""
    return int((run.data_report.get("duplicates") or {}).get("across", 0))


def copies_across_splits(run: RunFolder) -> Html | None:
    """Warn of images that lie in two splits."""
    copies = num_copies(run)
    if not copies:
        return None
    return note(
        element("b", "Some images are in two splits. "),
        f"{count(copies, 'image')} of one split {'is' if copies == 1 else 'are'} found in another "
        "too (see Data), so part of the score may be memory.",
    )


def disagreement(run: RunFolder) -> Html | None:
    """Warn when the predictions on file are not those that were scored."""
    if not run.predictions:
        return None
    labels = run.predictions["labels"]
    right = int(right_answers(run.predictions["probabilities"], labels).sum())
    scored, accuracy = int(run.summary["num_examples"]), float(run.summary["accuracy"])
    if len(labels) == scored and abs(right - accuracy * scored) < 0.5:
        return None
    return note(
        element("b", "The files of this run disagree. "),
        f"summary.json counts {accuracy * scored:,.0f} of {scored:,} images right, "
        f"test_predictions.npz {right:,} of {len(labels):,}.",
    )
