"""Scores of frozen features on a task: few-shot, linear probe, nearest neighbours."""
