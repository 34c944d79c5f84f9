"""The chart, as helm renders it: what the operator may do, and what it runs as."""

import json

import pytest
import yaml
from k8s import ROOT, Failed, Json, run

CHART = ROOT / "charts" / "wallaroo"


class Chart:
    def __init__(self, helm: str) -> None:
        self.helm = helm

    def render(self, *sets: str) -> list[Json]:
        """The objects that a release named `it` has with these values."""
        values = [word for each in sets for word in ("--set", each)]
        command = [self.helm, "template", "it", str(CHART), "--namespace", "wallaroo-system"]
        text = run([*command, "--kube-version", "1.34.0", *values])
        return [each for each in yaml.safe_load_all(text) if each]

    def only(self, kind: str, *sets: str) -> Json:
        """The one object of that kind, the tests aside."""
        [found] = [
            each
            for each in self.render(*sets)
            if each["kind"] == kind and not each["metadata"]["name"].endswith(("view", "edit"))
        ]
        return found


@pytest.fixture
def chart(helm: str) -> Chart:
    return Chart(helm)


def test_it_passes_lint(helm: str) -> None:
    run([helm, "lint", "--strict", str(CHART), "--kube-version", "1.34.0"])


class TestTheOperator:
    def test_is_one_and_is_never_replaced_by_a_second_one_beside_it(self, chart: Chart) -> None:
        spec = chart.only("Deployment")["spec"]
        assert spec["replicas"] == 1
        assert spec["strategy"] == {"type": "Recreate"}

    def test_satisfies_restricted_pod_security_on_a_read_only_root(self, chart: Chart) -> None:
        pods = [chart.only("Deployment")["spec"]["template"]["spec"], chart.only("Pod")["spec"]]
        for spec in pods:
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["securityContext"]["runAsUser"] == 65532
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                confined = container["securityContext"]
                assert confined["readOnlyRootFilesystem"]
                assert not confined["allowPrivilegeEscalation"]
                assert confined["capabilities"] == {"drop": ["ALL"]}

    def test_is_told_the_stock_worker_image(self, chart: Chart) -> None:
        [container] = self._spec(chart, "workerImage.tag=1.2.3")["containers"]
        assert "--worker-image=wallaroo/worker:1.2.3" in container["args"]

    def test_runs_the_version_of_the_chart_unless_told_otherwise(self, chart: Chart) -> None:
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        [container] = self._spec(chart)["containers"]
        assert container["image"] == f"wallaroo/operator:{version}"

    @staticmethod
    def _spec(chart: Chart, *sets: str) -> Json:
        found: Json = chart.only("Deployment", *sets)["spec"]["template"]["spec"]
        return found


def _verbs(role: Json, resource: str) -> set[str]:
    found: set[str] = set()
    for rule in role["rules"]:
        if resource in rule["resources"]:
            found.update(rule["verbs"])
    return found


class TestWhatItMayDo:
    """Ruling K8s 26."""

    def test_it_sees_no_list_of_secrets(self, chart: Chart) -> None:
        assert _verbs(chart.only("ClusterRole"), "secrets") == {"get", "create", "patch"}

    def test_it_may_block_the_deletion_of_owners(self, chart: Chart) -> None:
        assert _verbs(chart.only("ClusterRole"), "wallarooapps/finalizers") == {"update"}

    def test_it_never_writes_what_is_asked_for(self, chart: Chart) -> None:
        role = chart.only("ClusterRole")
        assert not _verbs(role, "wallarooapps") & {"create", "update", "patch", "delete"}
        assert not _verbs(role, "wallarooapps/scale")
        assert _verbs(role, "wallarooapps/status") == {"patch"}
        assert "delete" not in _verbs(role, "statefulsets")

    @pytest.mark.parametrize("namespaced", ["true", "false"])
    def test_nothing_is_allowed_by_a_wildcard(self, chart: Chart, namespaced: str) -> None:
        for each in chart.render(f"namespaced={namespaced}"):
            if each["kind"] in {"Role", "ClusterRole"}:
                assert "*" not in json.dumps(each["rules"])

    def test_in_a_namespace_of_its_own_it_needs_no_right_on_the_cluster(self, chart: Chart) -> None:
        rendered = chart.render("namespaced=true", "crds.enabled=false")
        kinds = {each["kind"] for each in rendered}
        assert not kinds & {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
        role = chart.only("Role", "namespaced=true")
        assert role["metadata"]["namespace"] == "wallaroo-system"
        [container] = chart.only("Deployment", "namespaced=true")["spec"]["template"]["spec"][
            "containers"
        ]
        assert "--namespace=wallaroo-system" in container["args"]

    def test_both_modes_allow_the_same(self, chart: Chart) -> None:
        role = chart.only("Role", "namespaced=true")
        assert role["rules"] == chart.only("ClusterRole")["rules"]

    def test_who_edits_a_namespace_may_scale_its_applications(self, chart: Chart) -> None:
        [edit] = [
            each
            for each in chart.render()
            if each["kind"] == "ClusterRole" and each["metadata"]["name"].endswith("-edit")
        ]
        assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
        assert "patch" in _verbs(edit, "wallarooapps/scale")


class TestTheDefinition:
    def test_is_upgraded_with_the_release_and_outlives_it(self, chart: Chart) -> None:
        crd = chart.only("CustomResourceDefinition")
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        file = yaml.safe_load((CHART / "files" / "wallarooapps.yaml").read_text())
        assert crd["spec"] == file["spec"]

    def test_goes_with_the_release_where_that_is_asked_for(self, chart: Chart) -> None:
        crd = chart.only("CustomResourceDefinition", "crds.keep=false")
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})

    def test_is_left_to_others_where_that_is_asked_for(self, chart: Chart) -> None:
        kinds = [each["kind"] for each in chart.render("crds.enabled=false")]
        assert "CustomResourceDefinition" not in kinds


def test_prometheus_operator_is_told_only_where_it_is_there(chart: Chart) -> None:
    assert "ServiceMonitor" not in [each["kind"] for each in chart.render()]
    monitor = chart.only("ServiceMonitor", "metrics.serviceMonitor.enabled=true")
    service = chart.only("Service")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("image.tagg=1", "tagg"),
        ("namespaced=maybe", "namespaced"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("replicas=2", "replicas"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_name(chart: Chart, wrong: str, says: str) -> None:
    with pytest.raises(Failed) as failed:
        chart.render(wrong)
    assert says in failed.value.words


def test_every_value_is_described_and_checked() -> None:
    text = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load("\n".join(text))) == set(schema["properties"]) - {"global"}
    described = False
    for number, line in enumerate(text, start=1):
        name, _, value = line.strip().partition(":")
        if line.strip().startswith("#"):
            described = True
        elif not line.strip():
            described = False
        elif line.startswith(" ") and name in {"repository", "requests", "limits", "cpu", "memory"}:
            continue  # they say what they are
        elif value.strip() or line[0] != " ":
            # One description may serve a few values that stand together, or all of a group.
            nested = not value.strip()
            assert described or nested, f"values.yaml:{number}: {name} is not described"
