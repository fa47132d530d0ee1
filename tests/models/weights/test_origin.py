from pathlib import Path

import vitral
from vitral.models.weights.origin import training_data_of


def test_what_weights_were_trained_on_is_known_from_their_folder_or_the_catalogue(
    tmp_path: Path,
) -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=2)
    model.provenance = {"data": {"name": "birds", "source": "x"}}
    vitral.save_model(model, tmp_path / "model")
    assert training_data_of(vitral.load_model(tmp_path / "model"), "here") == "birds"
    model.provenance["pretrained"] = {"data": "imagenet21k"}
    assert training_data_of(model, "here") == "imagenet21k, then birds"
    model.provenance = {}
    assert training_data_of(model, "here") == ""
    assert training_data_of(model, "google/vit-base-patch16-224").startswith("ImageNet-21k")
