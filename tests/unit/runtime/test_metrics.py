"""What Prometheus is told: all of it documented, and none of it less than before."""

import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from wallaroo.dataflow.engine import Backlog, Counters
from wallaroo.errors import InputError
from wallaroo.runtime.metrics import WINDOW, Busy, Metrics, Overview, Sample, serve

ROOT = Path(__file__).resolve().parents[3]
DOCS, WORKER = ROOT / "docs" / "metrics.md", ROOT / "worker" / "wallaroo"

RECORD = {
    "outcome": "committed",
    "held": 0.02,
    "lost": 7,
    "seconds": {"prepare": 0.5, "copy": 2.0, "catch up": 0.1, "switch": 0.2},
}


def metrics(folder: Path, sample: Sample | None = None) -> Metrics:
    made = Metrics({"application": "test", "worker": "0"}, folder, CollectorRegistry())
    if sample:
        made.take(sample)
    return made


def values(made: Metrics) -> dict[str, float]:
    """By name and labels, as they stand in a scrape."""
    return {
        f"{each.name}{each.labels or ''}": each.value
        for family in text_string_to_metric_families(generate_latest(made.registry).decode())
        for each in family.samples
    }


def overview() -> Overview:
    return Overview(epoch=5, generation=2, members=3, committed_at=1.0, recoveries=1)


def test_the_documentation_lists_each_with_kind_and_meaning(tmp_path: Path) -> None:
    made = metrics(tmp_path)
    made.coordinate(overview).rescaled(RECORD)
    text = generate_latest(made.registry).decode()
    families = text_string_to_metric_families(text)
    kinds = {
        each.name + {"counter": "_total", "info": "_info"}.get(each.type, ""): each.type
        for each in families
        if not each.name.endswith("_created")
    }
    kinds["wallaroo_worker_info"] = "info"  # a gauge, in this format
    for path in WORKER.rglob("*.py"):  # what is made elsewhere
        for kind, name in re.findall(r"(Gauge|Counter)\(\s*\"(wallaroo_\w+)\"", path.read_text()):
            kinds.setdefault(name + "_total" * (kind == "Counter"), kind.lower())
    documented = dict(
        re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]* \| \S.* \|$", DOCS.read_text(), re.MULTILINE)
    )
    assert documented == kinds


def test_each_label_is_documented(tmp_path: Path) -> None:
    made = metrics(tmp_path)
    made.coordinate(overview)
    page = DOCS.read_text()
    for family in text_string_to_metric_families(generate_latest(made.registry).decode()):
        for each in family.samples:
            for label, value in each.labels.items():
                assert label == "le" or f"`{label}" in page
                if label in {"queue", "part", "outcome", "phase"}:
                    assert f'{label}="{value}"' in page or f"`{value}`" in page


def test_a_sample_is_shown(tmp_path: Path) -> None:
    backlog = Backlog(local=5, held=6, inbox=700, outbox=800)
    found = values(
        metrics(tmp_path, Sample(Counters(1, 2, 3, 4), backlog, 9, 10, 11, 12)),
    )
    expected = {
        "wallaroo_events_read_total": 1,
        "wallaroo_events_received_total": 2,
        "wallaroo_events_written_total": 3,
        "wallaroo_dead_letters_total": 4,
        "wallaroo_backlog_events{'queue': 'local'}": 5,
        "wallaroo_backlog_events{'queue': 'held'}": 6,
        "wallaroo_backlog_bytes{'queue': 'inbox'}": 700,
        "wallaroo_backlog_bytes{'queue': 'outbox'}": 800,
        "wallaroo_backlog_bytes{'queue': 'connections'}": 11,
        "wallaroo_keys": 9,
        "wallaroo_connections": 10,
        "wallaroo_connection_lost_bytes_total": 12,
    }
    assert {name: found[name] for name in expected} == expected


def test_a_worker_that_is_no_coordinator_tells_nothing_of_the_application(tmp_path: Path) -> None:
    assert not [name for name in values(metrics(tmp_path)) if "rescale" in name or "epoch" in name]


def test_the_coordinator_tells_of_the_application_and_its_rescales(tmp_path: Path) -> None:
    made = metrics(tmp_path)
    coordination = made.coordinate(overview)
    coordination.committed(0.03)
    coordination.rescaled(RECORD)
    coordination.rescaled({**RECORD, "outcome": "aborted", "lost": 1})
    found = values(made)
    assert found["wallaroo_epoch"] == 5
    assert found["wallaroo_members"] == 3
    assert found["wallaroo_recoveries_total"] == 1
    assert found["wallaroo_commit_age_seconds"] > 1e9
    assert found["wallaroo_epoch_seconds_sum"] == 0.03
    assert found["wallaroo_rescales_total{'outcome': 'committed'}"] == 1
    assert found["wallaroo_rescales_total{'outcome': 'aborted'}"] == 1
    assert found["wallaroo_rescale_phase_seconds_sum{'phase': 'copy'}"] == 2.0
    assert found["wallaroo_rescale_phase_seconds_count{'phase': 'drain'}"] == 0
    assert found["wallaroo_rescale_hold_back_seconds_sum"] == 0.02
    assert found["wallaroo_rescale_lost_bytes_total"] == 8


def test_state_is_measured_on_disk_part_by_part(tmp_path: Path) -> None:
    for name, size in (("base/1.sst", 5), ("base/2.sst", 6), ("deltas/d", 7), ("staging-1-1/x", 8)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "sink-1").mkdir()
    (tmp_path / "sink-1" / "pending").write_bytes(b"no state")
    found = values(metrics(tmp_path))
    parts = [found[f"wallaroo_state_bytes{{'part': '{part}'}}"] for part in _PARTS]
    assert parts == [11, 7, 8]


_PARTS = ("base", "deltas", "staging")


class TestBusy:
    def test_is_the_time_between_begin_and_end(self) -> None:
        now = [100.0]
        busy = Busy(lambda: now[0])
        busy.begin()
        now[0] += 2
        busy.end()
        now[0] += 5
        assert busy.seconds == 2

    def test_what_goes_on_counts_already(self) -> None:
        now = [100.0]
        busy = Busy(lambda: now[0])
        busy.begin()
        now[0] += 30
        assert busy.seconds == 30

    def test_the_ratio_is_that_of_the_last_seconds(self) -> None:
        now = [100.0]
        busy = Busy(lambda: now[0])
        assert busy.ratio == 0.0
        for worked in [*[0.0] * 40, *[0.5] * 40]:
            busy.mark()
            busy.begin()
            now[0] += worked
            busy.end()
            now[0] += 1.0 - worked
        busy.mark()
        assert 0.4 < busy.ratio <= 0.51
        now[0] += WINDOW
        busy.mark()
        assert busy.ratio == 0.0

    def test_it_never_goes_back(self) -> None:
        now = [100.0]
        busy = Busy(lambda: now[0])
        busy.begin()
        now[0] += 30
        assert busy.seconds == 30
        busy._since = None  # as seen between the two assignments of `end`
        assert busy.seconds == 30


class TestServing:
    def test_gives_what_is_asked_for_to_this_machine_alone(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        close = serve(metrics(tmp_path).registry, port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"wallaroo_keys 0" in answer.read()
        close()

    def test_on_a_port_in_use_is_refused_with_words(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(InputError, match=rf"can't serve metrics on 127\.0\.0\.1:{port}"):
                serve(metrics(tmp_path).registry, port)

    def test_on_no_port_is_refused_with_words(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"127\.0\.0\.1:65536: there is no such port"):
            serve(metrics(tmp_path).registry, 65536)
