import pytest

import vitral
from vitral.models.depth import parameter_depths

SMALL = {
    "ViT-S/16": {"image_size": 32, "depth": 3, "num_registers": 1, "position": "2d"},
    "AxialViT-B/32": {"image_size": 64, "depth": 3},
    "R50x1": {"image_size": 32, "stages": (2, 1, 1, 1)},
    "R26+ViT-S/32": {"image_size": 64, "depth": 3},
    "AxialResNet50s": {"image_size": 32, "stages": (2, 1)},
}
# The first of each depth, from the image to the head.
FIRST = {
    "ViT-S/16": ["embedding.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "AxialViT-B/32": ["embedding.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "R50x1": ["trunk.root.", *(f"trunk.stages.{n}." for n in ("0.0", "0.1", "1.0", "2.0", "3.0")),
              "trunk.norm."],
    "R26+ViT-S/32": ["embedding.resnet.root.",
                     *(f"embedding.resnet.stages.{s}.{u}." for s in range(4) for u in range(2)),
                     "embedding.projection.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "AxialResNet50s": ["root.", "stages.0.0.", "stages.0.1.", "stages.1.0.", "head."],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_depth_grows_from_the_image_to_the_head_without_a_gap(name: str) -> None:
    names = [
        n for n, _ in vitral.create_model(name, num_classes=3, **SMALL[name]).named_parameters()
    ]
    depths = parameter_depths(names)
    assert set(depths) == set(names)
    found = sorted(set(depths.values()))
    assert found == list(range(len(FIRST[name])))
    for depth, prefix in enumerate(FIRST[name]):
        own = [n for n in names if n.startswith(prefix)]
        assert own, prefix
        assert {depths[n] for n in own} == {depth}
    assert depths["head.weight"] == found[-1]


def test_tokens_and_positions_are_as_deep_as_the_patches_they_join() -> None:
    model = vitral.create_model("ViT-S/16", **SMALL["ViT-S/16"])
    depths = parameter_depths(n for n, _ in model.named_parameters())
    beside = [n for n in depths if n.split(".")[0] in ("cls_token", "registers", "positions")]
    assert len(beside) >= 4
    assert {depths[n] for n in beside} == {0}
