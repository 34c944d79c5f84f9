"""Stateful stream processing in plain Python.

An application module defines `application_setup(args)`, which builds a pipeline of decorated
functions and returns `build_application(name, pipeline)`; `wallaroo run` runs it.
"""

from wallaroo.api.addresses import tcp_parse_input_addrs, tcp_parse_output_addrs
from wallaroo.api.pipeline import Application, Pipeline, build_application, source
from wallaroo.api.steps import (
    Computation,
    ComputationMulti,
    Decoder,
    Encoder,
    KeyExtractor,
    StateComputation,
    StateComputationMulti,
    computation,
    computation_multi,
    decoder,
    encoder,
    key_extractor,
    state_computation,
    state_computation_multi,
)
from wallaroo.connectors.file_sink import FileSinkConfig
from wallaroo.connectors.file_source import FileSourceConfig
from wallaroo.connectors.generator import GenSourceConfig
from wallaroo.connectors.tcp_sink import TCPSinkConfig
from wallaroo.connectors.tcp_source import TCPSourceConfig
from wallaroo.errors import WallarooParameterError

__all__ = [
    "Application",
    "Computation",
    "ComputationMulti",
    "Decoder",
    "Encoder",
    "FileSinkConfig",
    "FileSourceConfig",
    "GenSourceConfig",
    "KeyExtractor",
    "Pipeline",
    "StateComputation",
    "StateComputationMulti",
    "TCPSinkConfig",
    "TCPSourceConfig",
    "WallarooParameterError",
    "build_application",
    "computation",
    "computation_multi",
    "decoder",
    "encoder",
    "key_extractor",
    "source",
    "state_computation",
    "state_computation_multi",
    "tcp_parse_input_addrs",
    "tcp_parse_output_addrs",
]
