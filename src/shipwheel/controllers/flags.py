"""The controller manager's flags, by section: name, type, help.

The names are upstream's; a flag's field in `ControllerManagerConfig` has its name with underscores, and its
default. Flags that name files end up as the file's contents (see `config`).
"""

from __future__ import annotations

from shipwheel.client.flags import Type

_MORE = "Larger number = more responsive, but more CPU (and network) load."

SECTIONS: dict[str, tuple[tuple[str, Type, str], ...]] = {
    "Generic": (
        (
            "controllers",
            "stringSlice",
            "Which controllers to run: '*' all that are on by default, 'foo' that one, '-foo' not that one.",
        ),
        ("kubeconfig", "string", "Path of the kubeconfig file for the API server."),
        ("master", "string", "Address of the API server (overrides the one in the kubeconfig)."),
        ("kube-api-qps", "float", "Requests per second to the API server; negative: no limit."),
        ("kube-api-burst", "int", "Requests that may be sent at once beyond --kube-api-qps."),
        ("use-service-account-credentials", "bool", "Let each controller act as a service account of its own."),
        ("cluster-name", "string", "Name of the cluster."),
        ("cluster-cidr", "stringSlice", "Ranges of pod addresses, for --allocate-node-cidrs."),
        ("service-cluster-ip-range", "stringSlice", "Ranges of Service addresses, for --allocate-node-cidrs."),
        ("allocate-node-cidrs", "bool", "Give each node a range of pod addresses. Requires --cluster-cidr."),
    ),
    "Leader election": (
        ("leader-elect", "bool", "Work only while holding the lease, so that several managers can run."),
        ("leader-elect-lease-duration", "duration", "How long others wait for a leader that does not renew."),
        ("leader-elect-renew-deadline", "duration", "How long the leader tries to renew before it gives up."),
        ("leader-elect-retry-period", "duration", "How long to wait between attempts to get or renew the lease."),
        ("leader-elect-resource-name", "string", "Name of the lease."),
        ("leader-elect-resource-namespace", "string", "Namespace of the lease."),
    ),
    "Attach detach controller": (
        ("attach-detach-reconcile-sync-period", "duration", "How often to look at nodes with attached volumes."),
        ("disable-attach-detach-reconcile-sync", "bool", "Look at them only when something changes."),
        (
            "disable-force-detach-on-timeout",
            "bool",
            "Never detach a volume from a node that does not answer and may still use it.",
        ),
    ),
    "CSR signing controller": (
        ("cluster-signing-cert-file", "string", "CA certificate for all signers."),
        ("cluster-signing-key-file", "string", "Its key."),
        ("cluster-signing-kube-apiserver-client-cert-file", "string", "CA certificate for kube-apiserver-client."),
        ("cluster-signing-kube-apiserver-client-key-file", "string", "Its key."),
        ("cluster-signing-kubelet-client-cert-file", "string", "CA for kube-apiserver-client-kubelet."),
        ("cluster-signing-kubelet-client-key-file", "string", "Its key."),
        ("cluster-signing-kubelet-serving-cert-file", "string", "CA certificate for kubelet-serving."),
        ("cluster-signing-kubelet-serving-key-file", "string", "Its key."),
        ("cluster-signing-legacy-unknown-cert-file", "string", "CA certificate for legacy-unknown."),
        ("cluster-signing-legacy-unknown-key-file", "string", "Its key."),
        ("cluster-signing-duration", "duration", "The longest life of a certificate."),
    ),
    "Workers": (
        ("concurrent-deployment-syncs", "int", f"Deployments synced at the same time. {_MORE}"),
        ("concurrent-replicaset-syncs", "int", f"ReplicaSets synced at the same time. {_MORE}"),
        ("concurrent-rc-syncs", "int", f"ReplicationControllers synced at the same time. {_MORE}"),
        ("concurrent-statefulset-syncs", "int", f"StatefulSets synced at the same time. {_MORE}"),
        ("concurrent-daemonset-syncs", "int", f"DaemonSets synced at the same time. {_MORE}"),
        ("concurrent-job-syncs", "int", f"Jobs synced at the same time. {_MORE}"),
        ("concurrent-cron-job-syncs", "int", f"CronJobs synced at the same time. {_MORE}"),
        ("concurrent-ttl-after-finished-syncs", "int", f"Finished Jobs looked at at the same time. {_MORE}"),
        ("concurrent-endpoint-syncs", "int", f"Services whose Endpoints are synced at the same time. {_MORE}"),
        ("concurrent-service-endpoint-syncs", "int", f"Services whose slices are synced at the same time. {_MORE}"),
        ("mirroring-concurrent-service-endpoint-syncs", "int", f"Endpoints mirrored at the same time. {_MORE}"),
        ("concurrent-namespace-syncs", "int", f"Namespaces emptied at the same time. {_MORE}"),
        ("concurrent-gc-syncs", "int", f"Workers of the garbage collector. {_MORE}"),
        ("concurrent-resource-quota-syncs", "int", f"ResourceQuotas counted at the same time. {_MORE}"),
        ("concurrent-serviceaccount-token-syncs", "int", f"Token Secrets synced at the same time. {_MORE}"),
        ("concurrent-horizontal-pod-autoscaler-syncs", "int", f"Autoscalers synced at the same time. {_MORE}"),
        ("concurrent-ephemeralvolume-syncs", "int", f"Pods whose claims are made at the same time. {_MORE}"),
        ("concurrent-resourceclaim-syncs", "int", f"ResourceClaims synced at the same time. {_MORE}"),
        ("concurrent-device-taint-eviction-syncs", "int", f"Pods evicted from tainted devices at once. {_MORE}"),
        ("concurrent-validating-admission-policy-status-syncs", "int", f"Policies checked at the same time. {_MORE}"),
    ),
    "Endpoints and slices": (
        ("endpoint-updates-batch-period", "duration", "How long to wait for more changes of pods."),
        ("endpointslice-updates-batch-period", "duration", "How long to wait for more changes of pods."),
        ("max-endpoints-per-slice", "int", "The most endpoints in a slice."),
        ("mirroring-endpointslice-updates-batch-period", "duration", "How long to wait for more changes."),
        ("mirroring-max-endpoints-per-subset", "int", "The most addresses of a subset that are mirrored."),
    ),
    "Garbage collector": (("enable-garbage-collector", "bool", "Delete objects whose owners have gone."),),
    "Horizontal pod autoscaling": (
        ("horizontal-pod-autoscaler-sync-period", "duration", "How often to compare metrics with targets."),
        ("horizontal-pod-autoscaler-downscale-stabilization", "duration", "How long a recommendation holds."),
        ("horizontal-pod-autoscaler-tolerance", "float", "The least change of the ratio that is acted on."),
        ("horizontal-pod-autoscaler-cpu-initialization-period", "duration", "When CPU samples may be skipped."),
        ("horizontal-pod-autoscaler-initial-readiness-delay", "duration", "When a pod may be not ready yet."),
    ),
    "Namespaces": (("namespace-sync-period", "duration", "How often to look at namespaces being deleted."),),
    "Nodes": (
        ("node-cidr-mask-size", "int", "Mask of a node's range; default 24 for IPv4, 64 for IPv6."),
        ("node-cidr-mask-size-ipv4", "int", "Mask of a node's IPv4 range in a dual-stack cluster."),
        ("node-cidr-mask-size-ipv6", "int", "Mask of a node's IPv6 range in a dual-stack cluster."),
        ("node-monitor-period", "duration", "How often to look at the nodes' health."),
        ("node-monitor-grace-period", "duration", "How long a node may be silent before it is unhealthy."),
        ("node-startup-grace-period", "duration", "How long a new node may be silent."),
        ("node-eviction-rate", "float", "Nodes tainted per second in a healthy zone."),
        ("secondary-node-eviction-rate", "float", "Nodes tainted per second in an unhealthy zone."),
        ("large-cluster-size-threshold", "int", "Zones up to this size are not evicted while unhealthy."),
        ("unhealthy-zone-threshold", "float", "Share of unhealthy nodes that makes a zone unhealthy."),
    ),
    "Pods": (
        (
            "terminated-pod-gc-threshold",
            "int",
            "How many terminated pods may be there before the oldest are deleted; 0 or less: any number.",
        ),
    ),
    "Resource quotas": (("resource-quota-sync-period", "duration", "How often to count everything again."),),
    "Service accounts": (
        ("root-ca-file", "string", "CA certificate that is published to every namespace."),
        ("service-account-private-key-file", "string", "Key that signs tokens in Secrets."),
        (
            "legacy-service-account-token-clean-up-period",
            "duration",
            "How long a token in a Secret may be unused before it is deleted.",
        ),
    ),
    "Storage": (
        ("pvclaimbinder-sync-period", "duration", "How often to look at volumes and claims."),
        ("enable-dynamic-provisioning", "bool", "Have volumes made for claims."),
        ("pv-recycler-pod-template-filepath-nfs", "string", "Pod that empties NFS volumes."),
        ("pv-recycler-minimum-timeout-nfs", "int", "The least time (seconds) it has for that."),
        ("pv-recycler-increment-timeout-nfs", "int", "Time (seconds) for each Gi."),
        ("pv-recycler-pod-template-filepath-hostpath", "string", "Pod that empties hostPath volumes."),
        ("pv-recycler-minimum-timeout-hostpath", "int", "The least time (seconds) it has for that."),
        ("pv-recycler-timeout-increment-hostpath", "int", "Time (seconds) for each Gi."),
        (
            "local-path-provisioner",
            "string",
            "Directory on the nodes for volumes of the built-in provisioner shipwheel.dev/local-path; empty: none.",
        ),
        ("local-path-helper-image", "string", "Image with a shell, mkdir, chmod and rm, to make and remove them."),
        (
            "local-path-helper-tools",
            "stringSlice",
            "Directories with these programs that are taken from the nodes, for an image that has none.",
        ),
    ),
}
