"""What a start, a rescale and an idle operator cost: told at the end of the test run."""

import time

import pytest
from applications import Sequences, word_count
from k8s import OPERATOR, App, Collector, Measured, Namespace, run, until

pytestmark = [pytest.mark.alone, pytest.mark.long]


def test_a_start(namespace: Namespace, collector: Collector, measured: Measured) -> None:
    """From `kubectl apply` to Ready, where the image is there."""
    begin = time.monotonic()
    word_count(namespace, collector).until_ready()
    measured("from apply to Ready, 3 workers", time.monotonic() - begin, "s", 15)


def test_a_rescale_under_load(
    namespace: Namespace, collector: Collector, measured: Measured
) -> None:
    """3 -> 4 under 20,000 events a second."""
    made = Sequences(namespace, collector, 3)
    made.app.until_ready()
    made.begin(20_000, connections=8, reconnect=0)
    time.sleep(10)
    begin = time.time()
    made.app.scale(4)
    made.app.until_members(4)
    end = time.time()
    time.sleep(3)
    found, said = made.end()
    before, during = found.longest_gap(begin - 8, begin), found.longest_gap(begin, end)
    [record] = made.app.status()["history"]
    assert record["moved"] == record["minimum"]
    rate = said["sent"] / said["seconds"]
    measured(f"longest gap of a key before a rescale, {rate:,.0f} events/s", before, "ms", 250)
    measured(f"longest gap of a key in a rescale of {end - begin:.1f} s", during, "ms", 250)


def test_an_idle_operator(namespace: Namespace, measured: Measured) -> None:
    """With 50 applications that are suspended."""
    namespace.config_map("module", app__py="import wallaroo")
    where = {"configMap": {"name": "module", "key": "app.py"}}
    for number in range(50):
        App(namespace, f"app-{number}", app=where, suspend=True).apply()
    settled = f"app-{49}"
    until(lambda: App(namespace, settled).status().get("observedGeneration"), "not taken up")
    time.sleep(30)
    pod = run(
        [
            *("kubectl", "-n", OPERATOR, "get", "pod"),
            *("-l", "app.kubernetes.io/component=operator"),
            *("-o", "jsonpath={.items[0].metadata.name}"),
        ]
    )

    def measure() -> tuple[float, float, float]:
        """Requests to the API server; seconds of processor time, and bytes, of the operator."""
        text = run(["kubectl", "get", "--raw", "/metrics"])
        requests = sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("apiserver_request_total") and "wallaroo" in line
        )
        script = "cat /proc/1/stat; grep VmRSS /proc/1/status"
        said = run(["kubectl", "-n", OPERATOR, "exec", pod, "--", "sh", "-c", script])
        fields = said.splitlines()[0].rpartition(") ")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return requests, ticks / 100, int(said.split("VmRSS:")[1].split()[0]) * 1024

    before, begin = measure(), time.monotonic()
    time.sleep(60)
    after, minutes = measure(), (time.monotonic() - begin) / 60
    requests = (after[0] - before[0]) / minutes
    share = (after[1] - before[1]) / minutes / 60
    measured("requests of the operator about 50 applications", requests, "a minute", 200)
    measured("processor of the operator", 100 * share, "% of a core", 1)
    measured("memory of the operator", after[2] / 1e6, "MB", 120)
