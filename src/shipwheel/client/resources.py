"""The resources that components address, at the versions they use."""

from shipwheel.api.meta import GroupVersionResource as _R

BINDINGS = _R("", "v1", "bindings")
CONFIG_MAPS = _R("", "v1", "configmaps")
ENDPOINTS = _R("", "v1", "endpoints")
EVENTS = _R("", "v1", "events")
LIMIT_RANGES = _R("", "v1", "limitranges")
NAMESPACES = _R("", "v1", "namespaces")
NODES = _R("", "v1", "nodes")
PERSISTENT_VOLUMES = _R("", "v1", "persistentvolumes")
PERSISTENT_VOLUME_CLAIMS = _R("", "v1", "persistentvolumeclaims")
PODS = _R("", "v1", "pods")
POD_TEMPLATES = _R("", "v1", "podtemplates")
REPLICATION_CONTROLLERS = _R("", "v1", "replicationcontrollers")
RESOURCE_QUOTAS = _R("", "v1", "resourcequotas")
SECRETS = _R("", "v1", "secrets")
SERVICES = _R("", "v1", "services")
SERVICE_ACCOUNTS = _R("", "v1", "serviceaccounts")

DEPLOYMENTS = _R("apps", "v1", "deployments")
REPLICA_SETS = _R("apps", "v1", "replicasets")
STATEFUL_SETS = _R("apps", "v1", "statefulsets")
DAEMON_SETS = _R("apps", "v1", "daemonsets")
CONTROLLER_REVISIONS = _R("apps", "v1", "controllerrevisions")

JOBS = _R("batch", "v1", "jobs")
CRON_JOBS = _R("batch", "v1", "cronjobs")

HORIZONTAL_POD_AUTOSCALERS = _R("autoscaling", "v2", "horizontalpodautoscalers")
POD_DISRUPTION_BUDGETS = _R("policy", "v1", "poddisruptionbudgets")

LEASES = _R("coordination.k8s.io", "v1", "leases")
ENDPOINT_SLICES = _R("discovery.k8s.io", "v1", "endpointslices")
EVENTS_V1 = _R("events.k8s.io", "v1", "events")
PRIORITY_CLASSES = _R("scheduling.k8s.io", "v1", "priorityclasses")
RUNTIME_CLASSES = _R("node.k8s.io", "v1", "runtimeclasses")

INGRESSES = _R("networking.k8s.io", "v1", "ingresses")
INGRESS_CLASSES = _R("networking.k8s.io", "v1", "ingressclasses")
NETWORK_POLICIES = _R("networking.k8s.io", "v1", "networkpolicies")
IP_ADDRESSES = _R("networking.k8s.io", "v1", "ipaddresses")
SERVICE_CIDRS = _R("networking.k8s.io", "v1", "servicecidrs")

FLOW_SCHEMAS = _R("flowcontrol.apiserver.k8s.io", "v1", "flowschemas")
STORAGE_CLASSES = _R("storage.k8s.io", "v1", "storageclasses")
VOLUME_ATTACHMENTS = _R("storage.k8s.io", "v1", "volumeattachments")
VOLUME_ATTRIBUTES_CLASSES = _R("storage.k8s.io", "v1", "volumeattributesclasses")
CSI_DRIVERS = _R("storage.k8s.io", "v1", "csidrivers")
CSI_NODES = _R("storage.k8s.io", "v1", "csinodes")
CSI_STORAGE_CAPACITIES = _R("storage.k8s.io", "v1", "csistoragecapacities")

CLUSTER_ROLES = _R("rbac.authorization.k8s.io", "v1", "clusterroles")
CLUSTER_ROLE_BINDINGS = _R("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
ROLES = _R("rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDINGS = _R("rbac.authorization.k8s.io", "v1", "rolebindings")

CERTIFICATE_SIGNING_REQUESTS = _R("certificates.k8s.io", "v1", "certificatesigningrequests")
TOKEN_REVIEWS = _R("authentication.k8s.io", "v1", "tokenreviews")
SUBJECT_ACCESS_REVIEWS = _R("authorization.k8s.io", "v1", "subjectaccessreviews")

CUSTOM_RESOURCE_DEFINITIONS = _R("apiextensions.k8s.io", "v1", "customresourcedefinitions")
API_SERVICES = _R("apiregistration.k8s.io", "v1", "apiservices")
MUTATING_WEBHOOK_CONFIGURATIONS = _R("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")
VALIDATING_WEBHOOK_CONFIGURATIONS = _R("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
VALIDATING_ADMISSION_POLICIES = _R("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")

RESOURCE_CLAIMS = _R("resource.k8s.io", "v1", "resourceclaims")
RESOURCE_CLAIM_TEMPLATES = _R("resource.k8s.io", "v1", "resourceclaimtemplates")
RESOURCE_SLICES = _R("resource.k8s.io", "v1", "resourceslices")
STORAGE_VERSIONS = _R("internal.apiserver.k8s.io", "v1alpha1", "storageversions")

DEVICE_CLASSES = _R("resource.k8s.io", "v1", "deviceclasses")
