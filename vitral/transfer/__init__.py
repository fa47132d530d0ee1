"""Protocols over tasks: a pretrained model fine-tuned as the paper, as BiT or as we would."""
