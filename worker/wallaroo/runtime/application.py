"""Loading a user's application module."""

import hashlib
import importlib.util
import platform
import sys
import traceback
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from wallaroo.api.pipeline import Application
from wallaroo.dataflow.graph import Graph, build_graph
from wallaroo.errors import InputError, WallarooParameterError


class ApplicationCodeError(InputError):
    """The application's own code raised while it was loaded; the message has its traceback."""


@dataclass(frozen=True)
class Program:
    """An application, ready to run. path: its module's file."""

    path: Path
    arguments: tuple[str, ...]
    graph: Graph
    #: Of the steps, the stages, the module's code and the Pythons: workers of different programs
    #: must not exchange events.
    fingerprint: str

    @property
    def name(self) -> str:
        return self.graph.application.name


def load(path: str, arguments: tuple[str, ...]) -> Program:
    """Import the module at `path` and call its `application_setup`.

    arguments: what the application gets after its own name.
    Raises `InputError` (which says what is wrong with the module) and `WallarooParameterError`.
    """
    try:
        file = Path(path).resolve()
        is_file, is_folder = file.is_file(), file.is_dir()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    if not is_file:
        hint = "; is it a folder?" if is_folder else ""
        raise InputError(f"no such application: {path}{hint} (a Python file, such as app.py)")
    name = file.stem
    if name in sys.stdlib_module_names or name in sys.modules:
        raise InputError(
            f"{path} has the name of a module that Python or Wallaroo needs; rename the file"
        )
    # As with `python app.py`: its folder first, so that it finds modules beside it.
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except WallarooParameterError:
        raise
    except (Exception, SystemExit) as error:
        raise ApplicationCodeError(_blame(f"{path} can't be imported", error)) from error
    setup = getattr(module, "application_setup", None)
    if not callable(setup):
        raise InputError(
            f"{path} has no function application_setup(args): it builds the pipeline and returns "
            "wallaroo.build_application(name, pipeline)"
        )
    try:
        application = setup([path, *arguments])
    except WallarooParameterError:
        raise
    except SystemExit as error:
        if error.code in (None, 0):  # it was asked for help, and gave it
            raise
        raise InputError(f"{path}: application_setup ended with: {error.code}") from error
    except Exception as error:
        raise ApplicationCodeError(_blame(f"{path}: application_setup raised", error)) from error
    if not isinstance(application, Application):
        raise InputError(
            f"{path}: application_setup returned {application!r}; it must return what "
            "wallaroo.build_application(name, pipeline) returns"
        )
    graph = build_graph(application)
    return Program(file, arguments, graph, _fingerprint(graph, file, arguments))


def _fingerprint(graph: Graph, file: Path, arguments: tuple[str, ...]) -> str:
    text = "\n".join(
        [
            graph.describe(),
            hashlib.sha256(file.read_bytes()).hexdigest(),
            repr(arguments),
            ".".join(platform.python_version_tuple()[:2]),
            version("wallaroo-on-kubernetes"),
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _blame(what: str, error: BaseException) -> str:
    """`what`, with the part of the traceback that is the user's."""
    tb = error.__traceback__
    while tb is not None and (
        tb.tb_frame.f_code.co_filename == __file__ or "importlib" in tb.tb_frame.f_code.co_filename
    ):
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb)).rstrip()
    return f"{what}: {type(error).__name__}: {error}\n{text}"
