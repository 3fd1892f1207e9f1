"""Which admission plugins run, in upstream's order, as the flags say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shipwheel.api.meta import GroupResource
from shipwheel.apiserver.admission.chain import Admission, Plugin
from shipwheel.apiserver.admission.namespace_lifecycle import NAMESPACES, NamespaceLifecycle
from shipwheel.apiserver.admission.priority import Priority
from shipwheel.apiserver.admission.service_account import ServiceAccount
from shipwheel.client.flags import FlagError

if TYPE_CHECKING:
    from shipwheel.apiserver.config import ApiServerConfig
    from shipwheel.apiserver.server import ApiServer

_ACCOUNTS = GroupResource("", "serviceaccounts")
_CLASSES = GroupResource("scheduling.k8s.io", "priorityclasses")

_PLUGINS: dict[str, Callable[[ApiServer], Plugin]] = {
    "NamespaceLifecycle": lambda server: NamespaceLifecycle(lambda name: server.peek(NAMESPACES, "", name)),
    "ServiceAccount": lambda server: ServiceAccount(lambda namespace, name: server.peek(_ACCOUNTS, namespace, name)),
    "Priority": lambda server: Priority(lambda: server.peek_all(_CLASSES)),
}
_OFF_BY_DEFAULT: frozenset[str] = frozenset()


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
    return Admission([make(server) for name, make in _PLUGINS.items() if name in enabled])
