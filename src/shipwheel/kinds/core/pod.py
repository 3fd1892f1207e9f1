"""Pods: what everything else is about."""

from __future__ import annotations

from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.resource import Resource, Strategy, Subresource
from shipwheel.kinds import catalog
from shipwheel.kinds.core.podcalls import attach, bind, evict, exec_, log, portforward, proxy
from shipwheel.kinds.core.podcolumns import POD_COLUMNS
from shipwheel.kinds.core.proxy import proxy_subresource
from shipwheel.kinds.declare import READ_WRITE, STATUS, STREAM, served

BINDING = GroupVersionKind("", "v1", "Binding")
EVICTION = GroupVersionKind("policy", "v1", "Eviction")


def _options(kind: str) -> GroupVersionKind:
    return GroupVersionKind("", "v1", kind)


def _pod_ip(pod: Obj) -> str:
    addresses = pod["status"].get("podIPs") if "status" in pod else None
    return addresses[0].get("ip", "") if addresses else ""


RESOURCES = (
    Resource(
        kind="Pod",
        plural="pods",
        singular="pod",
        short_names=("po",),
        categories=("all",),
        versions=(served("", "v1", "Pod"),),
        strategy=Strategy(),
        columns=POD_COLUMNS,
        subresources=(
            STATUS,
            Subresource("ephemeralcontainers", READ_WRITE),
            Subresource("resize", READ_WRITE),
            Subresource("binding", ("create",), kind=BINDING, schema=catalog.schema_for(BINDING), call=bind),
            Subresource(
                "eviction", ("create",), kind=EVICTION, schema=catalog.schema_for(EVICTION), call=evict
            ),
            Subresource("log", ("get",), call=log, connect=True),
            Subresource("exec", STREAM, kind=_options("PodExecOptions"), call=exec_, connect=True),
            Subresource("attach", STREAM, kind=_options("PodAttachOptions"), call=attach, connect=True),
            Subresource(
                "portforward", STREAM, kind=_options("PodPortForwardOptions"), call=portforward, connect=True
            ),
            proxy_subresource("PodProxyOptions", proxy),
        ),
        selectable={
            "spec.nodeName": lambda pod: pod["spec"].get("nodeName", ""),
            "spec.restartPolicy": lambda pod: pod["spec"].get("restartPolicy", ""),
            "spec.schedulerName": lambda pod: pod["spec"].get("schedulerName", ""),
            "spec.serviceAccountName": lambda pod: pod["spec"].get("serviceAccountName", ""),
            "spec.hostNetwork": lambda pod: "true" if pod["spec"].get("hostNetwork") else "false",
            "status.phase": lambda pod: (pod.get("status") or {}).get("phase", ""),
            "status.podIP": _pod_ip,
            "status.nominatedNodeName": lambda pod: (pod.get("status") or {}).get("nominatedNodeName", ""),
        },
    ),
)
