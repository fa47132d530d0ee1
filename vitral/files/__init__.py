"""Bytes on disk: written aside, synced, hashed and renamed."""
