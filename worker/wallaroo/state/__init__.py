"""Keyed state on a worker, and how values become bytes."""
