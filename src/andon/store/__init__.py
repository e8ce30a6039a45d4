"""Persistence: the only SQL and the only object storage, behind a few ports."""
