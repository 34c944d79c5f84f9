"""The applications of the tests, in a namespace: with what they take in, and what comes out."""

import contextlib
from typing import Any

from k8s import PATIENCE, PROGRAMS, ROOT, App, Collector, Failed, Json, Namespace, Program, until
from windows import Found, exactly, read

PORT = 7000
EXAMPLE = ROOT / "examples" / "word_count"


def word_count(namespace: Namespace, collector: Collector) -> App:
    """The example, applied with three workers: its module by a ConfigMap, the text over TCP."""
    module = EXAMPLE / "word_count.py"
    namespace.kubectl("create", "configmap", "word-count", f"--from-file={module}")
    return App(
        namespace,
        "word-count",
        app={"configMap": {"name": "word-count", "key": "word_count.py"}},
        args=["--in", "text@0.0.0.0:7000", "--out", collector.address],
        ports=[{"name": "lines", "port": 7000}],
        replicas=3,
    ).apply()


class Sequences:
    """The sequence window (programs/sequences_app.py) over TCP, or over a generator.

    rate: how many numbers are generated a second, until the end is asked for; 0 for TCP.
    """

    def __init__(
        self,
        namespace: Namespace,
        collector: Collector,
        replicas: int = 1,
        rate: int = 0,
        name: str = "app",
        **spec: Any,
    ) -> None:
        self.namespace, self.collector, self.rate = namespace, collector, rate
        self.load: Program | None = None
        self.module = (PROGRAMS / "sequences_app.py").read_text()
        self.write_module(self.module)
        source = f"numbers:{rate}" if rate else f"tcp:{PORT}"
        ports = [] if rate else [{"name": "numbers", "port": PORT}]
        config_map = {"name": "sequences", "key": "sequences_app.py"}
        self.app = App(
            namespace,
            name,
            app={"configMap": config_map},
            args=[source, collector.address],
            replicas=replicas,
            ports=ports,
            **spec,
        ).apply()

    def write_module(self, text: str) -> None:
        data = {"sequences_app.py": text}
        meta = {"name": "sequences"}
        self.namespace.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        )

    def begin(self, rate: int = 4000, connections: int = 8, reconnect: float = 3) -> None:
        """Send numbers from now on."""
        args = map(str, (self.app.name, PORT, "numbers", rate, connections, reconnect))
        self.load = self.namespace.program("load", "load.py", *args)
        self.until_more()

    def until_more(self, lines: int = 1000, seconds: float = PATIENCE) -> None:
        """Return when so much more has come out."""
        wanted = self.collector.count() + lines
        until(lambda: self.collector.count() >= wanted, "nothing comes out any more", seconds)

    def end(self, *, twice: bool = False, lost: bool = False) -> tuple[Found, Json]:
        """Send no more; all that was sent has come out. Returns that, and what the load says."""
        if self.load:
            self.load.execute("touch", "/tmp/enough")
            said, least = self.load.result(), 0
        else:
            least = self._enough()
            said = {"broken": 0}
        found = read(self.collector.settled(), twice=twice)
        if not self.load:
            said["sent"] = max(found.inputs)
            assert said["sent"] >= least, f"{said['sent']} of {least} came out"
        if not lost:
            assert not said["broken"], f"connections broke: {said}"
            exactly(found, said["sent"])
        return found, said

    def _enough(self) -> int:
        """Have the generator end; returns what it has given at least."""
        least = self.collector.count() + self.rate

        def ended() -> bool:
            for pod in self.app.pods():
                name = pod["metadata"]["name"]
                script = f"echo {least} >/tmp/enough.new && mv /tmp/enough.new /tmp/enough"
                with contextlib.suppress(Failed):  # its container starts again
                    self.namespace.kubectl("exec", name, "--", "sh", "-c", script)
            return str(self.app.condition("Ready")["reason"]) == "Complete"

        until(ended, "it does not end")
        return least
