"""Checking a photo folder: unreadable files, copies, suspicious labels, quarantine instead of deletion.

Imports `images`, `data`, `monitoring`, `processes` and `run`.
"""
