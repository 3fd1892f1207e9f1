"""What the API answers when it refuses: `metav1.Status` with upstream's codes, reasons and messages.

`ApiError` is raised on the server's side of the wire and again on the client's, so that a controller sees
the same error whichever server it speaks to. `FieldError` names one wrong field; an object's field errors
travel together as the causes of one 422 (API conventions, "Response Status Kind").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shipwheel.api.meta import GroupResource, Obj

_MISSING: Any = object()


class FieldErrorType:
    """Values of `StatusCause.reason`, and how each begins its message."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    FORBIDDEN = "FieldValueForbidden"
    DUPLICATE = "FieldValueDuplicate"
    NOT_FOUND = "FieldValueNotFound"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    TYPE_INVALID = "FieldValueTypeInvalid"
    INTERNAL = "InternalError"


_PREFIX = {
    FieldErrorType.REQUIRED: "Required value",
    FieldErrorType.INVALID: "Invalid value",
    FieldErrorType.NOT_SUPPORTED: "Unsupported value",
    FieldErrorType.FORBIDDEN: "Forbidden",
    FieldErrorType.DUPLICATE: "Duplicate value",
    FieldErrorType.NOT_FOUND: "Not found",
    FieldErrorType.TOO_LONG: "Too long",
    FieldErrorType.TOO_MANY: "Too many",
    FieldErrorType.TYPE_INVALID: "Invalid value",
    FieldErrorType.INTERNAL: "Internal error",
}
_WITHOUT_VALUE = {
    FieldErrorType.REQUIRED,
    FieldErrorType.FORBIDDEN,
    FieldErrorType.TOO_LONG,
    FieldErrorType.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong. `field` is a path as upstream writes it: `spec.containers[0].name`."""

    type: str
    field: str
    detail: str = ""
    value: Any = _MISSING

    @property
    def body(self) -> str:
        """The message without the field: `Invalid value: "x": must be ...`."""
        text = _PREFIX[self.type]
        if self.type not in _WITHOUT_VALUE and self.value is not _MISSING:
            text += f": {_show(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"

    def to_cause(self) -> Obj:
        return {"reason": self.type, "message": self.body, "field": self.field}


def _show(value: Any) -> str:
    """A value as Go's `%q`, `%v` and JSON would show it in a field error."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # as Go writes JSON


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(FieldErrorType.REQUIRED, field, detail)


def invalid(field: str, value: Any, detail: str) -> FieldError:
    return FieldError(FieldErrorType.INVALID, field, detail, value)


def not_supported(field: str, value: Any, supported: list[str] | tuple[str, ...]) -> FieldError:
    detail = "supported values: " + ", ".join(json.dumps(each) for each in supported) if supported else ""
    return FieldError(FieldErrorType.NOT_SUPPORTED, field, detail, value)


def forbidden(field: str, detail: str) -> FieldError:
    return FieldError(FieldErrorType.FORBIDDEN, field, detail)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError(FieldErrorType.DUPLICATE, field, "", value)


def not_found_field(field: str, value: Any) -> FieldError:
    return FieldError(FieldErrorType.NOT_FOUND, field, "", value)


def too_long(field: str, max_length: int) -> FieldError:
    detail = f"may not be more than {max_length} bytes" if max_length >= 0 else "value is too long"
    return FieldError(FieldErrorType.TOO_LONG, field, detail)


def too_many(field: str, actual: int, limit: int) -> FieldError:
    plural = "" if limit == 1 else "s"
    return FieldError(FieldErrorType.TOO_MANY, field, f"must have at most {limit} item{plural}", actual)


class ApiError(Exception):
    """A `metav1.Status` of failure. `reason` is upstream's `StatusReason`; `code` its HTTP status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        headers: dict[str, str] | None = None,
        continue_token: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}
        self.warnings: list[str] = []
        """Texts for `Warning` headers."""
        self.continue_token = continue_token
        """Of a list whose snapshot is gone: how to go on without it."""

    def to_status(self) -> Obj:
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: Obj, *, headers: dict[str, str] | None = None) -> ApiError:
        """The error that a server's `Status` stands for."""
        return cls(
            int(status.get("code") or 500),
            status.get("reason", ""),
            status.get("message", ""),
            details=status.get("details"),
            headers=headers,
            continue_token=(status.get("metadata") or {}).get("continue", ""),
        )


def _details(resource: GroupResource, name: str) -> Obj:
    details: Obj = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    if resource.resource:
        details["kind"] = resource.resource
    return details


def not_found(resource: GroupResource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', details=_details(resource, name))


def already_exists(resource: GroupResource, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', details=_details(resource, name))


def conflict(resource: GroupResource, name: str, why: str) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource} "{name}": {why}',
        details=_details(resource, name),
    )


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid_object(group: str, kind: str, name: str, errors: list[FieldError]) -> ApiError:
    """422 with every wrong field as a cause."""
    qualified = f"{kind}.{group}" if group else kind
    texts = list(dict.fromkeys(str(error) for error in errors))
    shown = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details: Obj = {"name": name} if name else {}
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details["causes"] = [error.to_cause() for error in errors]
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {shown}', details=details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden_error(resource: GroupResource, name: str, why: str) -> ApiError:
    """403 about a resource: `pods "x" is forbidden: why`."""
    if name:
        message = f'{resource} "{name}" is forbidden: {why}'
    elif resource.resource:
        message = f"{resource} is forbidden: {why}"
    else:
        message = f"forbidden: {why}"
    return ApiError(403, "Forbidden", message, details=_details(resource, name))


def method_not_supported(resource: GroupResource, action: str) -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        f'{action} is not supported on resources of kind "{resource}"',
        details=_details(resource, ""),
    )


def expired(message: str) -> ApiError:
    """410: the resource version is older than what is kept."""
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", message)


def unsupported_media_type(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(message: str, *, details: Obj | None = None) -> ApiError:
    return ApiError(406, "NotAcceptable", message, details=details)


def too_many_requests(message: str, retry_after_seconds: int) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        message,
        details={"retryAfterSeconds": retry_after_seconds},
        headers={"Retry-After": str(retry_after_seconds)},
    )


def internal(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def timeout(message: str, retry_after_seconds: int = 0) -> ApiError:
    details = {"retryAfterSeconds": retry_after_seconds} if retry_after_seconds else None
    return ApiError(504, "Timeout", f"Timeout: {message}", details=details)


def method_not_allowed() -> ApiError:
    """405 for a path that does not know the method at all."""
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
    )


def page_not_found() -> ApiError:
    """404 for a path below an API that has nothing there."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


class AllocationError(Exception):
    """A shared means (an address, a port) cannot be had: it is taken, out of range, or nothing is left. The message
    is upstream's."""
