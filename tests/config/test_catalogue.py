import functools
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vitral
from vitral.config.catalogue import (
    COMMERCIAL,
    FORMATS,
    CatalogueEntry,
    find_entry,
    fold,
    read_catalogue,
    search_catalogue,
)
from vitral.config.names import parse_model_name

ENTRIES = read_catalogue()

# What the notes name beside the plain architecture, as fields of its config.
EXTRAS: dict[str, dict[str, Any]] = {
    "dinov2": {"layer_scale": 1.0},
    "dinov2-with-registers": {"num_registers": 4},
    r"dinov2_vit.14_reg": {"num_registers": 4},
    r"dinov2.*-giant|dinov2_vitg": {
        "embed_dim": 1536, "num_heads": 24, "mlp_dim": 4096, "activation": "swiglu",
    },
    "deit3": {"layer_scale": 1e-6},
}  # fmt: skip


def architecture(entry: CatalogueEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {"image_size": entry.image_size, "num_classes": entry.num_classes}
    for pattern, extra in EXTRAS.items():
        fields |= extra if re.search(pattern, entry.name) else {}
    return fields


def beyond_the_config(entry: CatalogueEntry) -> int:
    """Return the numbers by which the file differs from what a config can say."""
    width: int = parse_model_name(entry.model).get("embed_dim", 0)
    if "deit3" in entry.name:
        return -width  # the class token has no position
    if entry.name.startswith("facebook/deit-") and "-distilled-" in entry.name:
        return 2 * width + (width + 1) * entry.num_classes  # a token, its position, a second head
    return 0


@functools.cache
def count_parameters(model: str, fields: tuple[tuple[str, Any], ...]) -> int:
    with torch.device("meta"):
        network = vitral.create_model(model, **dict(fields))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_parameters_are_those_of_the_named_model(entry: CatalogueEntry) -> None:
    fields = tuple(architecture(entry).items())
    assert entry.parameters == count_parameters(entry.model, fields) + beyond_the_config(entry)


def test_every_entry_is_complete() -> None:
    for entry in ENTRIES:
        assert parse_model_name(entry.model)["name"] == entry.model, entry.name
        assert re.fullmatch(r"hf://[\w.-]+/[\w.-]+|https://\S+\.(npz|pth)", entry.origin), (
            entry.name
        )
        assert entry.format in FORMATS, entry.name
        assert entry.commercial in COMMERCIAL, entry.name
        assert entry.image_size > 0 <= entry.num_classes, entry.name
        assert "" not in (entry.training_data, entry.preprocessing, entry.licence), entry.name


def test_a_hub_repository_is_its_own_name() -> None:
    hub = [entry for entry in ENTRIES if entry.origin.startswith("hf://")]
    assert [entry.origin for entry in hub] == [f"hf://{entry.name}" for entry in hub]


def test_a_published_figure_has_split_resolution_and_source() -> None:
    for entry in ENTRIES:
        about = {entry.top1_split, entry.top1_resolution, entry.top1_source}
        assert (entry.top1 is None) == (about == {"", None}), entry.name
    measured = [entry for entry in ENTRIES if entry.top1 is not None]
    assert all(entry.top1_split and entry.top1_resolution for entry in measured)
    assert all("https://" in entry.top1_source for entry in measured)
    assert all(70 < (entry.top1 or 0) < 90 for entry in measured)


def test_weights_without_a_classifier_say_so_and_have_no_figure() -> None:
    headless = [entry for entry in ENTRIES if entry.num_classes == 0]
    assert all("no classifier" in entry.notes for entry in headless)
    assert all(entry.top1 is None for entry in headless)


def test_only_a_permissive_licence_allows_commercial_use() -> None:
    assert {entry.licence for entry in ENTRIES if entry.commercial == "yes"} == {"Apache-2.0"}
    assert {entry.licence for entry in ENTRIES if entry.commercial == "no"} == {"CC-BY-NC-4.0"}


def test_names_and_origins_are_unique() -> None:
    assert len({entry.name.lower() for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry.origin for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize(
    "name",
    [
        "official/ViT-B_16-imagenet21k", "official/ViT-H_14-imagenet21k",
        "official/R50+ViT-B_16-imagenet21k", "official/augreg-R_Ti_16-imagenet21k",
        "official/BiT-S-R101x3", "official/BiT-M-R152x4", "official/BiT-M-R50x1-ILSVRC2012",
        "timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "timm/resnetv2_50x1_bit.goog_in21k",
        "google/vit-base-patch16-224", "google/bit-50", "facebook/deit-base-distilled-patch16-224",
        "facebook/dino-vits16", "facebook/dinov2-giant", "facebook/dinov2-with-registers-small",
        "facebook/vit-mae-huge", "timm/vit_base_patch16_224.mae",
        "timm/deit3_base_patch16_224.fb_in1k", "torchvision/vit_b_16.imagenet1k_v1",
    ],
)  # fmt: skip
def test_well_known_weights_are_found_by_name(name: str) -> None:
    found = find_entry(f" {name.upper()} ")
    assert found is not None
    assert found.name == name


def test_no_entry_has_a_part_of_its_name() -> None:
    assert find_entry("google/vit") is None


@given(entry=st.sampled_from(ENTRIES), data=st.data())
def test_an_entry_is_found_by_any_of_its_words_however_written(
    entry: CatalogueEntry, data: st.DataObject
) -> None:
    fields = (entry.name, entry.model, entry.training_data, entry.licence, entry.notes)
    words = st.sampled_from(" ".join(fields).split())
    changes = [str, str.upper, str.swapcase, lambda word: word.replace("-", "_")]
    drawn = data.draw(st.lists(words, max_size=4))
    # The letters of ViT-g and ViT-G are told apart by their case alone.
    ways = [[str] if "vit-g" in word.lower() else changes for word in drawn]
    text = " ".join(
        data.draw(st.sampled_from(way))(word) for word, way in zip(drawn, ways, strict=True)
    )
    assert entry in search_catalogue(text)


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_further_word_only_narrows_a_search(first: str, second: str) -> None:
    both = search_catalogue(f"{first} {second}")
    assert set(both) == set(search_catalogue(first)) & set(search_catalogue(second))


def test_separators_and_case_do_not_matter() -> None:
    found = search_catalogue("b16")
    assert found
    assert found == search_catalogue("B/16") == search_catalogue("B_16") == search_catalogue("b-16")
    assert all("b16" in fold(entry.name + entry.model) for entry in found)


def test_every_word_must_occur() -> None:
    found = search_catalogue("augreg S/32 official")
    assert [entry.name for entry in found] == [
        "official/augreg-R26_S_32-imagenet21k",
        "official/augreg-S_32-imagenet21k",
        "official/augreg-R26_S_32-imagenet21k+imagenet2012",
        "official/augreg-S_32-imagenet21k+imagenet2012",
    ]


def test_no_word_finds_everything() -> None:
    assert search_catalogue(" / ") == search_catalogue("") == ENTRIES


def test_the_catalogue_needs_no_torch() -> None:
    code = (
        "import sys; from vitral.config.catalogue import read_catalogue; read_catalogue(); "
        "print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "False"


def test_case_tells_g_and_big_g_apart_in_a_search() -> None:
    small, big = ({e.model for e in search_catalogue(text)} for text in ("ViT-g/14", "vit_G14"))
    assert small == {"ViT-g/14"}
    assert "ViT-g/14" not in big
