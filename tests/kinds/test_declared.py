# ruff: noqa: E501 (a table)
"""Every built-in kind is declared as the API documents it: names, scope, verbs and subresources."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import GroupVersion
from shipwheel.api.resource import Resource
from shipwheel.api.scheme import Scheme
from shipwheel.kinds import builtin_resources

ALL = "create delete deletecollection get list patch update watch"
RW = "get,patch,update"
PROXY = "create,delete,get,patch,update"

# plural, kind, scope (N or C), singular, short names, categories, verbs, subresources with their verbs
FACTS = f"""
v1
  bindings                Binding                N binding - - create
  componentstatuses       ComponentStatus        C componentstatus cs - get,list
  configmaps              ConfigMap              N configmap cm - *
  endpoints               Endpoints              N endpoints ep - *
  events                  Event                  N event ev - *
  limitranges             LimitRange             N limitrange limits - *
  namespaces              Namespace              C namespace ns - create,delete,get,list,patch,update,watch finalize=update status={RW}
  nodes                   Node                   C node no - * proxy={PROXY} status={RW}
  persistentvolumeclaims  PersistentVolumeClaim  N persistentvolumeclaim pvc - * status={RW}
  persistentvolumes       PersistentVolume       C persistentvolume pv - * status={RW}
  pods                    Pod                    N pod po all * attach=create,get binding=create ephemeralcontainers={RW} eviction=create exec=create,get log=get portforward=create,get proxy={PROXY} resize={RW} status={RW}
  podtemplates            PodTemplate            N podtemplate - - *
  replicationcontrollers  ReplicationController  N replicationcontroller rc all * scale={RW} status={RW}
  resourcequotas          ResourceQuota          N resourcequota quota - * status={RW}
  secrets                 Secret                 N secret - - *
  serviceaccounts         ServiceAccount         N serviceaccount sa - * token=create
  services                Service                N service svc all * proxy={PROXY} status={RW}
apiregistration.k8s.io/v1
  apiservices             APIService             C apiservice - api-extensions * status={RW}
apps/v1
  controllerrevisions     ControllerRevision     N controllerrevision - - *
  daemonsets              DaemonSet              N daemonset ds all * status={RW}
  deployments             Deployment             N deployment deploy all * scale={RW} status={RW}
  replicasets             ReplicaSet             N replicaset rs all * scale={RW} status={RW}
  statefulsets            StatefulSet            N statefulset sts all * scale={RW} status={RW}
events.k8s.io/v1
  events                  Event                  N event ev - *
authentication.k8s.io/v1
  selfsubjectreviews      SelfSubjectReview      C selfsubjectreview - - create
  tokenreviews            TokenReview            C tokenreview - - create
authorization.k8s.io/v1
  localsubjectaccessreviews LocalSubjectAccessReview N localsubjectaccessreview - - create
  selfsubjectaccessreviews SelfSubjectAccessReview C selfsubjectaccessreview - - create
  selfsubjectrulesreviews SelfSubjectRulesReview C selfsubjectrulesreview - - create
  subjectaccessreviews    SubjectAccessReview    C subjectaccessreview - - create
autoscaling/v2
  horizontalpodautoscalers HorizontalPodAutoscaler N horizontalpodautoscaler hpa all * status={RW}
autoscaling/v1
  horizontalpodautoscalers HorizontalPodAutoscaler N horizontalpodautoscaler hpa all * status={RW}
batch/v1
  cronjobs                CronJob                N cronjob cj all * status={RW}
  jobs                    Job                    N job - all * status={RW}
certificates.k8s.io/v1
  certificatesigningrequests CertificateSigningRequest C certificatesigningrequest csr - * approval={RW} status={RW}
networking.k8s.io/v1
  ingressclasses          IngressClass           C ingressclass - - *
  ingresses               Ingress                N ingress ing - * status={RW}
  ipaddresses             IPAddress              C ipaddress ip - *
  networkpolicies         NetworkPolicy          N networkpolicy netpol - *
  servicecidrs            ServiceCIDR            C servicecidr - - * status={RW}
policy/v1
  poddisruptionbudgets    PodDisruptionBudget    N poddisruptionbudget pdb - * status={RW}
rbac.authorization.k8s.io/v1
  clusterrolebindings     ClusterRoleBinding     C clusterrolebinding - - *
  clusterroles            ClusterRole            C clusterrole - - *
  rolebindings            RoleBinding            N rolebinding - - *
  roles                   Role                   N role - - *
storage.k8s.io/v1
  csidrivers              CSIDriver              C csidriver - - *
  csinodes                CSINode                C csinode - - *
  csistoragecapacities    CSIStorageCapacity     N csistoragecapacity - - *
  storageclasses          StorageClass           C storageclass sc - *
  volumeattachments       VolumeAttachment       C volumeattachment - - * status={RW}
  volumeattributesclasses VolumeAttributesClass  C volumeattributesclass vac - *
admissionregistration.k8s.io/v1
  mutatingadmissionpolicies MutatingAdmissionPolicy C mutatingadmissionpolicy - api-extensions *
  mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding C mutatingadmissionpolicybinding - api-extensions *
  mutatingwebhookconfigurations MutatingWebhookConfiguration C mutatingwebhookconfiguration - api-extensions *
  validatingadmissionpolicies ValidatingAdmissionPolicy C validatingadmissionpolicy - api-extensions * status={RW}
  validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C validatingadmissionpolicybinding - api-extensions *
  validatingwebhookconfigurations ValidatingWebhookConfiguration C validatingwebhookconfiguration - api-extensions *
apiextensions.k8s.io/v1
  customresourcedefinitions CustomResourceDefinition C customresourcedefinition crd,crds api-extensions * status={RW}
scheduling.k8s.io/v1
  priorityclasses         PriorityClass          C priorityclass pc - *
coordination.k8s.io/v1
  leases                  Lease                  N lease - - *
node.k8s.io/v1
  runtimeclasses          RuntimeClass           C runtimeclass - - *
discovery.k8s.io/v1
  endpointslices          EndpointSlice          N endpointslice - - *
resource.k8s.io/v1
  deviceclasses           DeviceClass            C deviceclass - - *
  resourceclaims          ResourceClaim          N resourceclaim - - * status={RW}
  resourceclaimtemplates  ResourceClaimTemplate  N resourceclaimtemplate - - *
  resourceslices          ResourceSlice          C resourceslice - - *
flowcontrol.apiserver.k8s.io/v1
  flowschemas             FlowSchema             C flowschema - - * status={RW}
  prioritylevelconfigurations PriorityLevelConfiguration C prioritylevelconfiguration - - * status={RW}
"""


def _rows() -> list[tuple[GroupVersion, list[str]]]:
    rows = []
    group_version = GroupVersion("", "")
    for line in FACTS.strip().splitlines():
        if line.startswith(" "):
            rows.append((group_version, line.split()))
        else:
            group_version = GroupVersion.parse(line)
    return rows


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    return Scheme(builtin_resources())


def _list(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))


@pytest.mark.parametrize(
    ("group_version", "row"), _rows(), ids=lambda each: each[0] if isinstance(each, list) else str(each)
)
def test_a_kind_is_declared_as_documented(scheme: Scheme, group_version: GroupVersion, row: list[str]) -> None:
    plural, kind, scope, singular, short_names, categories, verbs, *subresources = row
    found = scheme.at(group_version.group, group_version.version, plural)
    assert found is not None
    resource, version = found
    assert resource.kind == kind
    assert resource.namespaced == (scope == "N")
    assert resource.singular == singular
    assert resource.short_names == _list(short_names)
    assert resource.categories == _list(categories)
    assert sorted(resource.verbs) == (ALL.split() if verbs == "*" else sorted(verbs.split(",")))
    served = {
        sub.name: ",".join(sorted(sub.verbs))
        for sub in resource.subresources
        if version.subresources is None or sub.name in version.subresources
    }
    assert served == dict(pair.split("=") for pair in subresources)
    assert version.schema.properties["metadata"] is not None


def test_the_table_above_misses_no_current_kind(scheme: Scheme) -> None:
    listed = {(str(group_version), row[0]) for group_version, row in _rows()}
    served = {
        (str(version.group_version), resource.plural)
        for resource in scheme
        for version in resource.versions
        if "beta" not in version.version and "alpha" not in version.version
    }
    assert served == listed


def test_subresources_say_how_they_are_served() -> None:
    for resource in builtin_resources():
        for sub in resource.subresources:
            if sub.read is not None or sub.update is not None:
                assert sub.read is not None and sub.update is not None and sub.schema is not None
            elif sub.connect or sub.kind is not None:
                assert sub.call is not None, f"{resource.plural}/{sub.name}"


PREFIXES = {
    "pods": "pods",
    "nodes": "minions",
    "services": "services/specs",
    "endpoints": "services/endpoints",
    "replicationcontrollers": "controllers",
    "ingresses": "ingress",
    "leases": "leases",
    "events": "events",
    "deployments": "deployments",
    "clusterroles": "clusterroles",
    "customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
    "apiservices": "apiregistration.k8s.io/apiservices",
}


def test_keys_are_those_of_the_familiar_tree() -> None:
    by_plural: dict[str, Resource] = {resource.plural: resource for resource in builtin_resources()}
    for plural, prefix in PREFIXES.items():
        resource = by_plural[plural]
        namespace = "ns/" if resource.namespaced else ""
        assert resource.key("ns", "name") == f"/registry/{prefix}/{namespace}name"


def test_no_two_kinds_share_a_prefix() -> None:
    prefixes = [resource.prefix for resource in builtin_resources() if resource.call is None]
    assert len(prefixes) == len(set(prefixes))
