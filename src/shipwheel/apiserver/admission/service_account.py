"""ServiceAccount: every pod runs as one, with its token and the cluster's CA mounted (KEP-1205)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import orjson

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3607
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MIRROR = "kubernetes.io/config.mirror"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"


class ServiceAccount(Plugin):
    name = "ServiceAccount"
    kinds = frozenset({GroupResource("", "pods")})

    def __init__(self, account: Callable[[str, str], Obj | None]) -> None:
        self._account = account

    async def mutate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if attempt.operation != "CREATE" or not attempt.concerns("", "pods") or pod is None:
            return
        if _MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod.setdefault("spec", {})
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = "default"
        spec["serviceAccount"] = spec["serviceAccountName"]
        account = self._require(attempt, spec["serviceAccountName"])
        if _should_mount(spec, account):
            _mount_token(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(each) for each in account["imagePullSecrets"]]

    async def validate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if pod is None or attempt.operation != "CREATE" or not attempt.concerns("", "pods"):
            return
        spec = pod["spec"]
        if _MIRROR in (pod["metadata"].get("annotations") or {}):
            if spec.get("serviceAccountName"):
                raise attempt.forbid("a mirror pod may not reference service accounts")
            for volume in spec.get("volumes") or ():
                if "secret" in volume:
                    raise attempt.forbid("a mirror pod may not reference secrets")
            return
        account = self._require(attempt, spec.get("serviceAccountName", ""))
        if (account["metadata"].get("annotations") or {}).get(_ENFORCE) == "true":
            _check_secrets(attempt, spec, account)

    def _require(self, attempt: Attempt, name: str) -> Obj:
        account = self._account(attempt.namespace, name)
        if account is None:
            raise attempt.forbid(
                f'error looking up service account {attempt.namespace}/{name}: serviceaccount "{name}" not found'
            )
        return account


def _should_mount(spec: Obj, account: Obj) -> bool:
    if spec.get("automountServiceAccountToken") is not None:
        return bool(spec["automountServiceAccountToken"])
    if account.get("automountServiceAccountToken") is not None:
        return bool(account["automountServiceAccountToken"])
    return True


def _mount_token(spec: Obj) -> None:
    """Give every container that has nothing at the place a mount of the token volume, made if it is not there."""
    volumes = spec.setdefault("volumes", [])
    existing = next(
        (v["name"] for v in volumes if v.get("name", "").startswith("kube-api-access-") and "projected" in v), ""
    )
    name = existing or f"kube-api-access-{_suffix(spec)}"
    needed = False
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            mounts = container.get("volumeMounts") or []
            if any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
                continue
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            needed = True
    if needed and not existing:
        volumes.append({"name": name, "projected": _projection()})
    if not volumes:
        del spec["volumes"]


def _suffix(spec: Obj) -> str:
    """Five characters that look like chance, and are the same for the same spec: so what is found out about the spec
    of one pod holds for all that are made of the same template (see `memo`)."""
    digest = hashlib.blake2b(orjson.dumps(spec), digest_size=5).digest()
    return "".join(_ALPHABET[each % len(_ALPHABET)] for each in digest)


def _projection() -> Obj:
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
        "defaultMode": 420,
    }


def _check_secrets(attempt: Attempt, spec: Obj, account: Obj) -> None:
    allowed = {each.get("name") for each in account.get("secrets") or ()}
    name = account["metadata"]["name"]
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret and secret not in allowed:
            raise attempt.forbid(
                f'volume with secret.secretName="{secret}" is not allowed because service account {name} does not '
                "reference that secret"
            )
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            for variable in container.get("env") or ():
                ref = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
                if ref.get("name") and ref["name"] not in allowed:
                    raise attempt.forbid(
                        f"container {container['name']} with envVar {variable['name']} referencing "
                        f'secret.secretName="{ref["name"]}" is not allowed because service account {name} does not '
                        "reference that secret"
                    )
    pulls = {each.get("name") for each in account.get("imagePullSecrets") or ()}
    for each in spec.get("imagePullSecrets") or ():
        if each.get("name") not in pulls:
            raise attempt.forbid(
                f"imagePullSecrets[{each.get('name')}] is not allowed because service account {name} does not "
                "reference that imagePullSecret"
            )
