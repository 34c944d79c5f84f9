"""Generate the Python of the wire from `protos/`, into the package `wallaroo.v1`.

    python protos/generate.py [OUTPUT]

The result is committed; a test generates it again and compares.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent


def generate(output: Path) -> None:
    """Write the modules of every file below `protos/` to `output`/wallaroo/v1."""
    output.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--python_out={output}",
            f"--pyi_out={output}",
            f"--grpc_python_out={output}",
            *sources,
        ]
    )
    if code != 0:
        raise SystemExit(code)
    (output / "wallaroo" / "v1" / "__init__.py").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent / "worker")
