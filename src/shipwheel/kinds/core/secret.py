"""Secrets. Their type says which keys they have."""

from __future__ import annotations

import base64
import json

from shipwheel.api.codec.go_json import complaint
from shipwheel.api.errors import FieldError, invalid, required, too_long
from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import Errors, check_immutable
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.core.keyeddata import MAX_SIZE, check_keys, check_sealed, encoded_size
from shipwheel.kinds.declare import served

SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_TOKEN = "kubernetes.io/service-account-token"
_TLS = "kubernetes.io/tls"
_REDACTED = "<secret contents redacted>"

_JSON_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


class SecretStrategy(Strategy):
    tracks_generation = False

    def default(self, secret: Obj) -> None:
        if not secret.get("type"):
            secret["type"] = "Opaque"

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        if not new.get("type"):
            new["type"] = old.get("type", "")

    def validate(self, secret: Obj) -> list[FieldError]:
        errors: Errors = []
        data = secret.get("data") or {}
        check_keys(data, "data", errors)
        if encoded_size(data) > MAX_SIZE:
            errors.append(too_long("data", MAX_SIZE))
        _check_type(secret, data, errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_immutable(new.get("type", ""), old.get("type", ""), "type", errors)
        check_sealed(new, old, ("data",), errors)
        return errors + self.validate(new)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if new.get("type") != _TLS:
            return []
        from shipwheel.kinds.core.keypair import key_pair_complaint

        data = new.get("data") or {}
        pair = (base64.b64decode(data.get(key) or "") for key in ("tls.crt", "tls.key"))
        wrong = key_pair_complaint(*pair)
        return [wrong] if wrong else []


def _check_type(secret: Obj, data: Obj, errors: Errors) -> None:
    kind = secret.get("type", "")
    if kind == _TOKEN:
        if not annotations_of(secret).get(SERVICE_ACCOUNT_NAME):
            errors.append(required(f"metadata.annotations[{SERVICE_ACCOUNT_NAME}]"))
    elif kind in _JSON_KEYS:
        _check_json(data, _JSON_KEYS[kind], errors)
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errors += [required("data[username]"), required("data[password]")]
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errors.append(required("data[ssh-privatekey]"))
    elif kind == _TLS:
        errors += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]


def _check_json(data: Obj, key: str, errors: Errors) -> None:
    path = f"data[{key}]"
    if key not in data:
        errors.append(required(path))
        return
    content = base64.b64decode(data[key]).decode(errors="replace")
    wrong = complaint(content)
    if wrong is None and not isinstance(value := json.loads(content), dict | None):
        wrong = f"json: cannot unmarshal {_go_kind(value)} into Go value of type map[string]interface {{}}"
    if wrong is not None:
        errors.append(invalid(path, _REDACTED, wrong))


def _go_kind(value: object) -> str:
    for kind, name in ((bool, "bool"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "number"


def _take_texts(secret: Obj) -> Obj:
    """`stringData` is only for writing: its texts are put into `data`, over what is there."""
    texts = secret.pop("stringData", None)
    if texts:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}
    return secret


RESOURCES = (
    Resource(
        kind="Secret",
        plural="secrets",
        singular="secret",
        versions=(served("", "v1", "Secret", to_storage=_take_texts),),
        strategy=SecretStrategy(),
        columns=(
            NAME,
            Column("Type", text("type")),
            Column("Data", lambda obj, now: len(obj.get("data") or ())),
            AGE,
        ),
        selectable={"type": lambda secret: secret.get("type", "")},
    ),
)
