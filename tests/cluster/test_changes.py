"""An application is changed, suspended, resumed, and deleted; what is wrong is said in words."""

import time

import pytest
from applications import Sequences
from k8s import App, Collector, Namespace, until


@pytest.fixture
def running(namespace: Namespace, collector: Collector) -> Sequences:
    made = Sequences(namespace, collector, 2, rate=2_000)
    made.app.until_ready()
    made.until_more(4_000)
    return made


def _until_said(running: Sequences, kind: str, reason: str) -> dict[str, str]:
    return running.app.until_condition(kind, "False", reason)


class TestSuspending:
    """Ruling K8s 19."""

    @pytest.mark.parametrize("how", ["suspend", "replicas"])
    def test_keeps_the_state_and_goes_on_from_it(self, running: Sequences, how: str) -> None:
        before = {"suspend": False, "replicas": 2}
        running.app.apply(**{how: True if how == "suspend" else 0})
        until(lambda: not running.app.pods(), "pods stay")
        assert running.app.claims() == ["state-app-0", "state-app-1"]
        count = len(running.collector.settled())
        running.app.apply(**{how: before[how]})
        running.app.until_ready()
        running.until_more(2_000)
        assert count >= 4_000
        # The last checkpoint was taken: nothing comes twice.
        running.end()

    def test_resumes_with_other_workers(self, running: Sequences) -> None:
        running.app.apply(suspend=True)
        until(lambda: not running.app.pods(), "pods stay")
        running.app.apply(suspend=False, replicas=3)
        running.app.until_members(3)
        running.end()


class TestRollingOut:
    """Ruling K8s 18."""

    def test_a_changed_module(self, running: Sequences) -> None:
        before = set(running.app.uids())
        running.write_module(running.module.replace('"first"', '"second"'))
        until(lambda: not before & set(running.app.uids()), "old pods stay")
        running.app.until_ready()
        running.end()

    def test_a_changed_spec(self, running: Sequences) -> None:
        before = set(running.app.uids())
        running.app.apply(env=[{"name": "COLOUR", "value": "blue"}])
        until(lambda: not before & set(running.app.uids()), "old pods stay")
        running.app.until_ready()
        running.end()

    def test_an_image_that_can_not_be_pulled_changes_nothing(self, running: Sequences) -> None:
        before = running.app.uids()
        running.app.apply(image="registry.invalid/none:1")
        found = _until_said(running, "Progressing", "RolloutFailed")
        assert "registry.invalid/none:1" in found["message"]
        assert running.app.uids() == before
        assert running.app.condition("Ready")["status"] == "True"
        running.app.apply(image="")
        running.app.until_condition("Progressing", "False", "AsAsked")
        assert running.app.uids() == before
        running.end()

    def test_a_module_that_does_not_load_changes_nothing(self, running: Sequences) -> None:
        before = running.app.uids()
        running.write_module("raise SystemError('it is broken')\n")
        found = _until_said(running, "Progressing", "RolloutFailed")
        assert "it is broken" in found["message"]
        assert running.app.uids() == before
        running.write_module(running.module)
        running.app.until_condition("Progressing", "False", "AsAsked")
        running.end()

    def test_a_module_that_has_lost_a_step_with_state_changes_nothing(
        self, running: Sequences
    ) -> None:
        text = running.module.replace('name="window"', 'name="another"')
        running.write_module(text)
        found = _until_said(running, "Progressing", "RolloutFailed")
        assert "window" in found["message"]
        running.write_module(running.module)
        running.end()

    def test_a_restart_is_asked_for(self, running: Sequences) -> None:
        before = set(running.app.uids())
        running.namespace.kubectl("annotate", "wapp", "app", "wallaroo.dev/restartedAt=now")
        until(lambda: not before & set(running.app.uids()), "old pods stay")
        running.app.until_ready()
        running.end()


class TestWhatIsWrong:
    def test_a_module_that_is_not_there(self, namespace: Namespace) -> None:
        where = {"configMap": {"name": "nowhere", "key": "app.py"}}
        app = App(namespace, app=where).apply()
        found = until(lambda: _unready(app, "nowhere"), "it is not said")
        assert "app.py" in found or "ConfigMap" in found

    def test_a_module_that_does_not_load(self, namespace: Namespace) -> None:
        meta = {"name": "broken"}
        data = {"app.py": "import nothing_of_that_name\n"}
        namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        app = App(namespace, app={"configMap": {"name": "broken", "key": "app.py"}}).apply()
        until(lambda: _unready(app, "nothing_of_that_name"), "it is not said")

    def test_an_image_that_can_not_be_pulled(self, namespace: Namespace) -> None:
        app = App(namespace, app={"path": "/app/app.py"}, image="registry.invalid/none:1").apply()
        until(lambda: _unready(app, "registry.invalid/none:1"), "it is not said")

    def test_a_pod_that_fits_nowhere(self, namespace: Namespace, collector: Collector) -> None:
        much = {"requests": {"cpu": "1000", "memory": "64Mi"}}
        made = Sequences(namespace, collector, 1, resources=much)
        until(lambda: _unready(made.app, "Insufficient cpu"), "it is not said")

    def test_a_function_that_raises(self, namespace: Namespace, collector: Collector) -> None:
        """It stops where it was, without a crash loop; a rollout heals it (rulings K8s 8, 18)."""
        env = [{"name": "RAISE_AT", "value": "9000"}]
        made = Sequences(namespace, collector, 2, rate=4_000, env=env)
        found = made.app.until_condition("Ready", "False", "Failed")
        assert "9000 is not to my liking" in found["message"]
        assert "window" in found["message"]
        time.sleep(5)
        for pod in made.app.pods():
            assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
        made.app.apply(env=[])
        made.app.until_ready()
        made.end(twice=True)

    def test_events_tell_the_story(self, running: Sequences) -> None:
        running.app.scale(3)
        running.app.until_members(3)
        told = {each["reason"] for each in running.namespace.events("app")}
        assert any("Rescale" in each for each in told), told
        running.end()


def _unready(app: App, words: str) -> str:
    """The message of a condition that has these words."""
    for each in app.status().get("conditions", []):
        if words in each["message"] and app.condition("Ready")["status"] != "True":
            return str(each["message"])
    return ""


class TestDeleting:
    @pytest.mark.parametrize("cascade", ["background", "foreground"])
    def test_takes_all_objects_with_it(self, running: Sequences, cascade: str) -> None:
        """Ruling K8s 5: claims too, where that was asked for."""
        running.namespace.kubectl("delete", "wapp", "app", f"--cascade={cascade}")
        kinds = ("statefulset", "service", "pdb", "secret", "configmap", "pod")
        label = "app.kubernetes.io/instance=app"

        def left() -> bool:
            return any(running.namespace.all(kind, label) for kind in kinds)

        until(lambda: not left(), "objects stay")
        until(lambda: not running.app.claims(), "claims stay, though Delete was asked for")

    def test_keeps_claims_and_goes_on_from_them(
        self, namespace: Namespace, collector: Collector
    ) -> None:
        """Ruling K8s 5."""
        storage = {"size": "64Mi", "onDelete": "Retain"}
        made = Sequences(namespace, collector, 2, rate=2_000, storage=storage)
        made.app.until_ready()
        made.until_more(4_000)
        namespace.kubectl("delete", "wapp", "app")
        until(lambda: not made.app.pods(), "pods stay")
        assert made.app.claims() == ["state-app-0", "state-app-1"]
        made.app.apply()
        made.app.until_ready()
        made.end(twice=True)

    def test_two_namespaces_know_nothing_of_each_other(
        self, running: Sequences, namespace: Namespace
    ) -> None:
        other = Namespace(namespace.cluster)
        try:
            second = Sequences(other, Collector(other), 1, rate=2_000)
            second.app.until_ready()
            second.end()
        finally:
            other.delete()
        running.end()

    def test_a_namespace_goes_with_all_that_is_in_it(
        self, namespace: Namespace, collector: Collector
    ) -> None:
        other = Namespace(namespace.cluster)
        made = Sequences(other, Collector(other), 2)
        made.app.until_ready()
        other.delete(90)
