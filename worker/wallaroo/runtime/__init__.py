"""Processes: the worker, its streams to others, the coordinator's service, the local runner."""

import os

# gRPC reads it when it is imported. Below this it tells of connections that end as they should.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
