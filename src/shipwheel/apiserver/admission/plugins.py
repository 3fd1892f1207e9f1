"""Which admission plugins run, in upstream's order, as the flags say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shipwheel.api.meta import GroupResource
from shipwheel.apiserver.admission.chain import Admission, Plugin
from shipwheel.apiserver.admission.limit_ranger import LimitRanger
from shipwheel.apiserver.admission.namespace_lifecycle import NAMESPACES, NamespaceLifecycle
from shipwheel.apiserver.admission.node_restriction import NodeRestriction
from shipwheel.apiserver.admission.priority import Priority
from shipwheel.apiserver.admission.privileged import DenyPrivileged
from shipwheel.apiserver.admission.rbac_escalation import RbacEscalation
from shipwheel.apiserver.admission.resource_quota import QUOTAS, ResourceQuota
from shipwheel.apiserver.admission.runtime_class import RuntimeClass
from shipwheel.apiserver.admission.service_account import ServiceAccount
from shipwheel.apiserver.admission.storage import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from shipwheel.apiserver.admission.tolerations import DefaultTolerationSeconds, TaintNodesByCondition
from shipwheel.apiserver.bootstrap import LOOPBACK
from shipwheel.client.flags import FlagError

if TYPE_CHECKING:
    from shipwheel.apiserver.config import ApiServerConfig
    from shipwheel.apiserver.server import ApiServer

_ACCOUNTS = GroupResource("", "serviceaccounts")
_PRIORITY_CLASSES = GroupResource("scheduling.k8s.io", "priorityclasses")
_STORAGE_CLASSES = GroupResource("storage.k8s.io", "storageclasses")
_RUNTIME_CLASSES = GroupResource("node.k8s.io", "runtimeclasses")
_LIMIT_RANGES = GroupResource("", "limitranges")
_PODS = GroupResource("", "pods")

_PLUGINS: dict[str, Callable[[ApiServer], Plugin]] = {
    "NamespaceLifecycle": lambda server: NamespaceLifecycle(lambda name: server.peek(NAMESPACES, "", name)),
    "LimitRanger": lambda server: LimitRanger(lambda namespace: server.peek_all(_LIMIT_RANGES, namespace)),
    "ServiceAccount": lambda server: ServiceAccount(lambda namespace, name: server.peek(_ACCOUNTS, namespace, name)),
    "NodeRestriction": lambda server: NodeRestriction(lambda namespace, name: server.peek(_PODS, namespace, name)),
    "TaintNodesByCondition": lambda server: TaintNodesByCondition(),
    "Priority": lambda server: Priority(lambda: server.peek_all(_PRIORITY_CLASSES)),
    "DefaultTolerationSeconds": lambda server: DefaultTolerationSeconds(),
    "DefaultStorageClass": lambda server: DefaultStorageClass(lambda: server.peek_all(_STORAGE_CLASSES)),
    "StorageObjectInUseProtection": lambda server: StorageObjectInUseProtection(),
    "PersistentVolumeClaimResize": lambda server: PersistentVolumeClaimResize(
        lambda name: server.peek(_STORAGE_CLASSES, "", name)
    ),
    "RuntimeClass": lambda server: RuntimeClass(lambda name: server.peek(_RUNTIME_CLASSES, "", name)),
    "ResourceQuota": lambda server: ResourceQuota(
        server, lambda namespace: server.peek_all(QUOTAS, namespace), LOOPBACK
    ),
}
_OFF_BY_DEFAULT = frozenset({"NodeRestriction"})


def make_admission(server: ApiServer, config: ApiServerConfig) -> Admission:
    """The chain that `--enable-admission-plugins` and `--disable-admission-plugins` leave. FlagError for a name that
    no plugin has."""
    for flag, names in (
        ("enable-admission-plugins", config.enable_admission_plugins),
        ("disable-admission-plugins", config.disable_admission_plugins),
    ):
        for name in names:
            if name not in _PLUGINS:
                raise FlagError(f'--{flag}: "{name}" is unknown')
    enabled = (set(_PLUGINS) - _OFF_BY_DEFAULT - set(config.disable_admission_plugins)) | set(
        config.enable_admission_plugins
    )
    plugins = [make(server) for name, make in _PLUGINS.items() if name in enabled]
    if not config.allow_privileged:
        plugins.append(DenyPrivileged())
    if "RBAC" in config.authorization_mode:
        plugins.insert(0, RbacEscalation(server.rbac, server.authorizer))
    return Admission(plugins)
