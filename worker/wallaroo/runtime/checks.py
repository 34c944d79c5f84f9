"""What is wrong with an application's files, before anything is started."""

from pathlib import Path
from typing import Any

from wallaroo.connectors.file_sink import FileSinkConfig
from wallaroo.connectors.file_source import FileSourceConfig
from wallaroo.dataflow.graph import Graph
from wallaroo.errors import InputError


def check_connectors(graph: Graph, dead_letters: Path | None) -> None:
    """Raise `InputError` for what can be told before anything is started."""
    files = _files(graph, dead_letters)
    for index, sink in enumerate(files):
        if any(other.path.resolve() == sink.path.resolve() for other in files[:index]):
            raise InputError(f"two sinks write {sink.path}; give one of them another path")
    for source in graph.sources:
        partitions = source.config.partitions()
        if not isinstance(source.config, FileSourceConfig):
            continue
        for sink in files:
            for path in partitions:
                if sink.writes(Path(path)):
                    raise InputError(
                        f"source '{source.name}' reads {path}, which the sink {sink.path} of the "
                        "same application writes; give the sink another path"
                    )


def check_outside(graph: Graph, dead_letters: Path | None, volume: Path) -> None:
    """Raise `InputError` for output on the volume of a worker's state, which goes with it."""
    for sink in _files(graph, dead_letters):
        if sink.path.resolve().is_relative_to(volume.resolve()):
            raise InputError(
                f"the output {sink.path} would lie below {volume}, on the volume of one worker's "
                "state, which is deleted when that worker leaves; write it to another volume"
            )


def _files(graph: Graph, dead_letters: Path | None) -> list[FileSinkConfig[Any]]:
    """All files that are written."""
    files = [sink for sink in graph.sinks if isinstance(sink, FileSinkConfig)]
    return [*files, FileSinkConfig[str](dead_letters)] if dead_letters else files
