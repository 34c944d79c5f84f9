"""What a rescale and an idle operator may cost. Numbers are printed: run with -s to see them."""

import time

import pytest
from applications import Sequences
from k8s import OPERATOR, App, Collector, Namespace, run, until


@pytest.mark.alone
def test_no_key_waits_long_in_a_rescale(namespace: Namespace, collector: Collector) -> None:
    """3 -> 4 under 20,000 events a second: the longest gap of any key is below 250 ms."""
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
    print(f"longest gap {before} ms before, {during} ms in {end - begin:.1f} s of rescale;", record)
    print(said)
    assert record["moved"] == record["minimum"]
    assert during < 250


@pytest.mark.alone
def test_an_idle_operator_costs_little(namespace: Namespace) -> None:
    """50 applications that are suspended: below 120 MB, 1 % of a core, and few requests."""
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
    print(f"{requests:.0f} requests a minute, {share:.2%} of a core, {after[2] / 1e6:.0f} MB")
    assert after[2] < 120e6
    assert share < 0.01
    assert requests < 200
