import numpy as np
import pytest

from vitral.figures.mistakes import mistakes_section


def test_mistakes_come_most_confident_first_with_their_files(part_of, run_dir):
    with np.load(run_dir / "mistakes.npz") as found:
        order = np.argsort(-found["probabilities"])
        names = found["names"][order].tolist()
    text = part_of(run_dir, mistakes_section).text
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    assert f"The {len(names)} wrong answers" in text


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mistakes_of_any_number_of_channels_are_shown(part_of, make_run, channels):
    page = part_of(make_run(channels=channels), mistakes_section)
    pictures = [found for tag, found in page.elements if tag == "img"]
    assert len(pictures) == 2 * 5


def test_mistakes_without_attention_are_shown_alone(part_of, run_dir):
    with np.load(run_dir / "mistakes.npz") as found:
        kept = {name: found[name] for name in found.files if name != "attention"}
    np.savez(run_dir / "mistakes.npz", **kept)
    page = part_of(run_dir, mistakes_section)
    assert sum(tag == "img" for tag, _ in page.elements) == 5
    assert "attention" not in page.text
