"""Transfer protocols: fine-tuning as in the ViT paper, as in BiT, or by validation; VTAB."""
