"""The table of built-in schemas is complete and says what the API says."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.schema import MISSING
from shipwheel.kinds import catalog


def test_every_definition_can_be_read_and_every_reference_found():
    seen = 0
    todo = [catalog.schema(name) for name in catalog.names()]
    for schema in todo:
        for child in (*schema.properties.values(), schema.items, schema.additional):
            if child is not None:
                seen += 1
                assert child.type in ("object", "array", "string", "integer", "number", "boolean", "")
    assert len(todo) > 750
    assert seen > 3000


def test_definitions_are_shared():
    pod = catalog.schema("io.k8s.api.core.v1.Pod")
    template = catalog.schema("io.k8s.api.core.v1.PodTemplateSpec")
    assert pod is catalog.schema_for(GroupVersionKind("", "v1", "Pod"))
    assert pod.properties["spec"].properties["affinity"] is template.properties["spec"].properties["affinity"]


def test_lists_and_patches():
    spec = catalog.schema("io.k8s.api.core.v1.PodSpec")
    containers = spec.properties["containers"]
    assert (containers.list_type, containers.list_map_keys) == ("map", ("name",))
    assert (containers.patch_strategy, containers.patch_merge_key) == (("merge",), "name")
    assert spec.properties["volumes"].patch_strategy == ("merge", "retainKeys")
    strategy = catalog.schema("io.k8s.api.apps.v1.DeploymentSpec").properties["strategy"]
    assert strategy.patch_strategy == ("retainKeys",)
    assert strategy.name == "io.k8s.api.apps.v1.DeploymentStrategy"
    assert strategy.properties["rollingUpdate"].type == "object"
    assert spec.properties["nodeSelector"].map_type == "atomic"
    assert spec.required == ("containers",)


def test_defaults():
    port = catalog.schema("io.k8s.api.core.v1.ContainerPort")
    assert port.properties["protocol"].default == "TCP"
    assert port.properties["hostPort"].default is MISSING
    assert port.properties["hostPort"].format == "int32"


def test_scalars_with_a_form_of_their_own():
    assert catalog.schema("io.k8s.apimachinery.pkg.util.intstr.IntOrString").int_or_string
    assert catalog.schema("io.k8s.apimachinery.pkg.apis.meta.v1.Time").format == "date-time"


@pytest.mark.parametrize(
    ("group", "version", "kind"),
    [
        ("extensions", "v1beta1", "Deployment"),
        ("extensions", "v1beta1", "Ingress"),
        ("apps", "v1beta1", "StatefulSet"),
        ("apps", "v1beta2", "DaemonSet"),
        ("batch", "v1beta1", "CronJob"),
        ("batch", "v2alpha1", "CronJob"),
        ("autoscaling", "v2beta1", "HorizontalPodAutoscaler"),
        ("policy", "v1beta1", "PodSecurityPolicy"),
        ("policy", "v1beta1", "Eviction"),
        ("settings.k8s.io", "v1alpha1", "PodPreset"),
        ("apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition"),
        ("rbac.authorization.k8s.io", "v1beta1", "Role"),
        ("storage.k8s.io", "v1beta1", "StorageClass"),
    ],
)
def test_versions_of_the_past(group: str, version: str, kind: str):
    assert catalog.schema_for(GroupVersionKind(group, version, kind)).properties["metadata"].type == "object"


def test_versions_of_the_past_use_todays_types():
    old = catalog.schema("io.k8s.api.extensions.v1beta1.DeploymentSpec").properties["template"]
    assert old is catalog.schema("io.k8s.api.core.v1.PodTemplateSpec") or old.definition is catalog.schema(
        "io.k8s.api.core.v1.PodTemplateSpec"
    )
    assert "timeZone" in catalog.schema("io.k8s.api.batch.v1beta1.CronJobSpec").properties


def test_what_is_not_there():
    with pytest.raises(KeyError):
        catalog.schema("io.k8s.api.core.v1.Nothing")
    with pytest.raises(KeyError):
        catalog.schema_for(GroupVersionKind("example.com", "v1", "Thing"))
