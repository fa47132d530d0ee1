"""Predictions and features of a trained model for images."""
