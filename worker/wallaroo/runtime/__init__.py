"""Processes: the worker, its streams to others, the coordinator's service, the local runner."""
