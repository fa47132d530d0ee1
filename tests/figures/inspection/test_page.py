"""The page that answers to clicks and keys, in a real browser."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Page, browsing, find_browser
from support.inspected_models import inspect_small

from vitral.figures.inspection.draw import draw_figures
from vitral.figures.inspection.inspected import Inspected
from vitral.figures.inspection.page import inspect_page

FIELDS = {"num_registers": 2}
# A number for what the board shows, by its pixels.
PICTURE = (
    "Array.from(document.querySelector('#board').getContext('2d')"
    ".getImageData(0, 0, 448, 298).data).reduce((a, b, i) => (a * 31 + b * (i % 97)) % 1e9, 7)"
)


def write_page(model: Inspected, folder: Path) -> Path:
    path = folder / "inspect.html"
    path.write_text(inspect_page(model, [], folder), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels, which are there sooner."""
    monkeypatch.setattr("vitral.figures.plots.DOTS_PER_INCH", 40)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = find_browser()
    if path is None:
        pytest.skip("needs Chromium, which is not installed")
    with browsing(path, tmp_path_factory.mktemp("profile")) as page:
        yield page


def open_page(browser: Page, path: Path) -> Page:
    browser.problems.clear()
    browser.open(path)
    browser.wait_until("document.body.dataset.drawn !== undefined")
    return browser


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Page:
    return open_page(browser, write_page(inspect_small(**FIELDS), tmp_path))


def drawn(page: Page) -> dict[str, Any]:
    return json.loads(page.evaluate("document.body.dataset.drawn"))


def await_drawn(page: Page, **wanted: Any) -> None:
    for name, value in wanted.items():
        page.wait_until(f"JSON.parse(document.body.dataset.drawn).{name} === {json.dumps(value)}")


def complaints(page: Page) -> list[str]:
    """What the browser complained of, but for our reading of the pixels."""
    return [problem for problem in page.problems if "getImageData" not in problem]


def picture(page: Page) -> float:
    return page.evaluate(PICTURE)


def words(page: Page) -> str:
    return page.evaluate("document.querySelector('#readout').textContent")


def test_it_opens_with_the_class_token_s_attention_in_the_last_layer(page: Page) -> None:
    state = drawn(page)
    assert (state["view"], state["step"], state["query"]) == ("attention", 1, -1)
    assert words(page).startswith("Where the class token looks in layer 1, the mean over heads")
    assert "register 2" in words(page)
    assert page.evaluate("document.querySelectorAll('.answer').length") == 5
    assert complaints(page) == []


def test_a_click_chooses_the_patch_below_it_and_the_picture_changes(page: Page) -> None:
    """At row 3 of 4, column 5 of 6: swapped axes would be seen."""
    before = picture(page)
    page.click("#board", across=4.5 / 6, down=2.5 / 4)
    await_drawn(page, query=3 + 2 * 6 + 4)
    assert picture(page) != before
    assert "the patch in row 3, column 5" in words(page)


def test_layers_can_be_stepped_through(page: Page) -> None:
    page.click("#board", across=0.1, down=0.1)
    await_drawn(page, query=3)
    before = picture(page)
    page.press("[")
    await_drawn(page, step=0)
    assert picture(page) != before
    assert "layer 0" in words(page)
    page.press("[")
    page.press("]")
    await_drawn(page, step=1)
    assert picture(page) == before


def test_the_slider_follows_the_keys_in_the_rollout_too(page: Page) -> None:
    page.press("2")
    page.press("[")
    await_drawn(page, view="rollout", step=0)
    slider = "document.querySelector('#step')"
    assert page.evaluate(f"{slider}.value") == "0"
    assert page.evaluate(f"{slider}.getAttribute('aria-valuetext')") == "layer 0"
    assert words(page) == "What reaches the class token up to layer 0."


@pytest.mark.parametrize(("head", "button"), [(-1, 1), (1, 3)])
def test_what_is_drawn_is_the_attention_of_the_arrays(page: Page, head: int, button: int) -> None:
    """Of the brightest patch: the page says its share, and colours it most."""
    page.click(f"#heads button:nth-child({button})")
    page.click("#board", across=2.5 / 6, down=1.5 / 4)
    await_drawn(page, query=3 + 1 * 6 + 2, head=head)
    heads = inspect_small(**FIELDS)["attention/heads"][0, 1, :, 3 + 8].astype(np.float64)
    row = heads.mean(axis=0) if head < 0 else heads[head]
    stated = [float(share) / 100 for share in re.findall(r"([\d.]+) %", words(page))]
    np.testing.assert_allclose(stated, [row[3:].max(), *row[:3]], rtol=0.05, atol=1e-3)
    assert strengths(page, button).argmax() == row[3:].argmax()


def strengths(page: Page, button: int) -> np.ndarray:
    """How opaque each patch of a head's little map is."""
    shown = page.evaluate(
        f"[...document.querySelector('#heads button:nth-child({button}) canvas')"
        ".getContext('2d').getImageData(0, 0, 6, 4).data].filter((v, i) => i % 4 === 3)"
    )
    return np.array(shown)


@pytest.mark.parametrize(("family", "pool"), [("ViT", "gap"), ("ViT map", "map")])
def test_what_the_classifier_reads_looks_first(
    family: str, pool: str, browser: Page, tmp_path: Path
) -> None:
    model = inspect_small(family, pool=pool)
    page = open_page(browser, write_page(model, tmp_path))
    reader = {"gap": "the mean over patches", "map": "the pool's probe"}[pool]
    assert words(page).startswith(f"Where {reader} looks")
    wanted = model["attention/of_pool"][0].reshape(2, -1)
    for button, attention in ((1, wanted.mean(axis=0)), (2, wanted[0]), (3, wanted[1])):
        assert strengths(page, button).argmax() == attention.argmax()
    page.click("#board", across=0.1, down=0.1)
    await_drawn(page, query=0)
    page.press("0")
    await_drawn(page, query=-1)
    assert words(page).startswith(f"Where {reader} looks")


def test_everything_can_be_done_by_keys(page: Page) -> None:
    page.evaluate("document.querySelector('#board').focus()")
    page.press("ArrowRight")
    await_drawn(page, query=3)  # from the class token to the first patch
    for key, query in (("ArrowRight", 4), ("ArrowDown", 10), ("ArrowLeft", 9), ("ArrowUp", 3)):
        page.press(key)
        await_drawn(page, query=query)
    page.press("ArrowUp")
    await_drawn(page, query=3)  # at the rim
    for key, wanted in (
        ("h", {"head": 0}), ("h", {"head": 1}), ("h", {"head": -1}), ("H", {"head": 1}),
        ("2", {"view": "rollout"}), ("3", {"view": "alike"}), ("4", {"view": "occlusion"}),
        ("5", {"view": "colors"}), ("1", {"view": "attention"}), ("n", {"image": 1}),
        ("n", {"image": 0}), ("p", {"image": 1}), ("0", {"query": -1}),
    ):  # fmt: skip
        before = picture(page)
        page.press(key)
        await_drawn(page, **wanted)
        assert picture(page) != before, key
    assert complaints(page) == []


def test_a_click_on_what_no_patch_chooses_shows_attention(page: Page) -> None:
    page.press("4")
    await_drawn(page, view="occlusion")
    for key in ("h", "[", "0"):  # nothing that is not shown changes
        page.press(key)
    page.click("#board", across=0.1, down=0.1)
    await_drawn(page, view="attention", query=3, head=-1, step=1)


def test_the_image_that_was_chosen_last_is_shown(page: Page) -> None:
    """However long the numbers of another one take."""
    page.evaluate(
        "(() => { const slow = numbersOf; numbersOf = (image) => image === 0 ? slow(image) :"
        "new Promise((done) => setTimeout(() => done(slow(image)), 300)); })()"
    )
    before = picture(page)
    page.press("n")
    page.press("p")
    await_drawn(page, image=0)
    page.evaluate("new Promise((done) => setTimeout(done, 500))")
    assert drawn(page)["image"] == 0
    assert picture(page) == before


@pytest.mark.parametrize(
    ("family", "views"),
    [
        ("ViT map", ["attention", "rollout", "alike", "occlusion", "colors"]),
        ("AxialViT token", ["attention", "rollout", "alike", "occlusion", "colors"]),
        ("hybrid", ["attention", "rollout", "alike", "occlusion", "colors"]),
        ("BiT", ["alike", "occlusion", "colors"]),
        ("AxialResNet", ["alike", "occlusion", "colors"]),
    ],
)
def test_every_family_has_a_page(
    family: str, views: list[str], browser: Page, tmp_path: Path
) -> None:
    page = open_page(browser, write_page(inspect_small(family), tmp_path))
    found = page.evaluate("[...document.querySelectorAll('#views input')].map(i => i.value)")
    assert found == views
    for view in views:
        page.click(f"input[value={view}]")
        await_drawn(page, view=view)
        page.click("#board", across=0.9, down=0.9)
    assert complaints(page) == []


@pytest.mark.parametrize("fields", [{"in_channels": 1}, {"num_classes": 0}, {"image_size": 8}])
def test_odd_models_have_a_page(fields: dict[str, int], browser: Page, tmp_path: Path) -> None:
    page = open_page(browser, write_page(inspect_small("ViT", count=1, **fields), tmp_path))
    page.click("#board", across=0.9, down=0.9)
    page.wait_until("JSON.parse(document.body.dataset.drawn).query > 0")
    assert complaints(page) == []


def test_a_layer_whose_heads_are_left_out_shows_their_mean(browser: Page, tmp_path: Path) -> None:
    page = open_page(browser, write_page(with_one_layer(), tmp_path))
    page.press("h")
    await_drawn(page, head=0)
    page.press("[")
    await_drawn(page, step=0, head=-1)
    visible = "[...document.querySelectorAll('#heads button')].filter(b => !b.hidden).length"
    assert page.evaluate(visible) == 1
    page.press("h")
    assert drawn(page)["head"] == -1


def with_one_layer() -> Inspected:
    """The heads of the last layer alone."""
    model = inspect_small()
    about = model.about | {"kept_heads": ["block01/attention"]}
    heads = model["attention/heads"][:, 1:]
    return Inspected(
        {**model.arrays, "about": np.array(json.dumps(about)), "attention/heads": heads}
    )


def test_figures_are_on_the_page_and_no_name_is_used_twice(browser: Page, tmp_path: Path) -> None:
    model = inspect_small()
    figures = draw_figures(model, tmp_path)
    path = tmp_path / "inspect.html"
    path.write_text(inspect_page(model, figures, tmp_path), encoding="utf-8")
    page = open_page(browser, path)
    widths = page.evaluate("[...document.querySelectorAll('img.plot')].map(i => i.clientWidth)")
    assert len(widths) == len(figures) == 8
    assert min(widths) > 300
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))


def test_names_are_no_markup_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = inspect_small()
    figures = draw_figures(model, tmp_path)
    text = inspect_page(model, figures, tmp_path)
    assert text.count('src="data:image/png') == len(figures) == 8
    assert "<b>crow" not in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in html.unescape(text)


def test_who_made_the_photographs_is_said(tmp_path: Path) -> None:
    assert "Photographs: nobody" in write_page(inspect_small(), tmp_path).read_text()


def test_layers_that_are_left_out_are_said(tmp_path: Path) -> None:
    text = write_page(with_one_layer(), tmp_path).read_text(encoding="utf-8")
    assert "Single heads are here of 1 of 2 steps" in text
    model = inspect_small()
    about = with_one_layer().about | {"kept_steps": ["block01/attention"]}
    means = model["attention/means"][:, 1:]
    arrays = {**with_one_layer().arrays, "about": np.array(json.dumps(about))}
    text = write_page(Inspected({**arrays, "attention/means": means}), tmp_path).read_text()
    assert "1 of 2 steps of attention are here" in text


def test_a_model_without_attention_over_patches_is_said(tmp_path: Path) -> None:
    text = write_page(inspect_small("BiT"), tmp_path).read_text(encoding="utf-8")
    assert "small has no attention over all patches" in text
    assert "<kbd>[</kbd>" not in text
