"""The kinds every cluster has.

A package for each API group, a module for each kind that has something to say. A module declares its kinds in
`RESOURCES`; nothing outside it names them. Importing them all is not free, so it happens only when asked.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from shipwheel.api.resource import Resource

_MODULES = (
    "core.pod", "core.binding", "core.service", "core.endpoints", "core.node", "core.namespace", "core.configmap",
    "core.secret", "core.serviceaccount", "core.event", "core.limitrange", "core.resourcequota",
    "core.persistentvolume", "core.persistentvolumeclaim", "core.replicationcontroller", "core.podtemplate",
    "core.componentstatus",
    "apps.deployment", "apps.replicaset", "apps.daemonset", "apps.statefulset", "apps.controllerrevision",
    "batch.job", "batch.cronjob",
    "autoscaling.horizontalpodautoscaler",
    "policy.poddisruptionbudget", "policy.podsecuritypolicy", "settings.podpreset",
    "networking.ingress", "networking.ingressclass", "networking.networkpolicy", "networking.ipaddress",
    "networking.servicecidr",
    "discovery.endpointslice",
    "rbac.kinds",
    "storage.storageclass", "storage.volumeattachment", "storage.csi", "storage.volumeattributesclass",
    "scheduling.priorityclass",
    "coordination.lease",
    "node.runtimeclass",
    "certificates.certificatesigningrequest",
    "admissionregistration.webhooks", "admissionregistration.policies",
    "apiextensions.customresourcedefinition",
    "apiregistration.apiservice",
    "flowcontrol.kinds",
    "authentication.reviews", "authorization.reviews",
    "resource.kinds",
)  # fmt: skip


def builtin_resources(*, older: bool = True) -> list[Resource]:
    """Every built-in kind as the API server serves it; without `older`, as upstream's current release does."""
    resources = [each for module in _MODULES for each in import_module(f"shipwheel.kinds.{module}").RESOURCES]
    if older:
        return resources
    of_today = ((resource, tuple(v for v in resource.versions if not v.removed_in)) for resource in resources)
    return [replace(resource, versions=versions) for resource, versions in of_today if versions]
