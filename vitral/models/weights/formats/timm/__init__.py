"""timm's models: `vit` and `resnet` are the formats, which share the other modules."""
