"""What the query of a LIST or a WATCH asks for, read and checked (ListOptions)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shipwheel.api.errors import ApiError, bad_request, forbidden, invalid, invalid_object, not_supported
from shipwheel.api.resource import Resource, Version
from shipwheel.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from shipwheel.client.httpserver import Request

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class ListOptions:
    labels: LabelSelector | None
    fields: FieldSelector | None
    limit: int
    token: str
    resource_version: str
    match: str
    watch: bool
    bookmarks: bool
    timeout: int
    send_initial: bool | None

    @property
    def revision(self) -> int:
        """The resource version as a number, -1 when unset."""
        if not self.resource_version:
            return -1
        try:
            return parse_revision(self.resource_version)
        except ApiError as error:
            if not self.watch:
                error.message = f"invalid resource version: {error.message}"
            raise


def parse_revision(text: str, *, code: int = 400) -> int:
    """A resource version that a client gave. ApiError when it is none: 400 for lists, 500 for a get, as upstream."""
    try:
        return parse_uint(text)
    except ValueError as error:
        message = str(invalid("resourceVersion", text, str(error)))
        raise ApiError(code, "BadRequest" if code == 400 else "", message) from None


def parse_uint(text: str) -> int:
    """A number of 64 bits without sign. ValueError with the words in which Go's strconv refuses it."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    number = int(text)
    if number >= 1 << 64:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number


def list_options(request: Request, resource: Resource, version: Version) -> ListOptions:
    """Read and check the query of a list or a watch."""
    labels = fields = None
    if text := request.parameter("labelSelector"):
        try:
            labels = parse_label_selector(text)
        except ValueError as error:
            raise bad_request(str(error)) from None
    if text := request.parameter("fieldSelector"):
        try:
            fields = parse_field_selector(text)
        except ValueError as error:
            raise bad_request(str(error)) from None
        own = version.field_labels
        known = resource.selectable if own is None else own
        for name in sorted(fields.fields()):
            if name in ("metadata.name", "metadata.namespace") or name in known:
                continue
            if known or resource.custom:
                gvk = f"{version.api_version}, Kind={resource.kind}"
                raise bad_request(resource.unknown_field.format(field=name, gvk=gvk))
            raise bad_request(f'"{name}" is not a known field selector: only "metadata.name", "metadata.namespace"')
        if own is not None:
            fields = fields.transform(lambda name, value: (own.get(name, name), value))
    options = ListOptions(
        labels,
        fields,
        max(_number(request, "limit"), 0),
        request.parameter("continue"),
        request.parameter("resourceVersion"),
        request.parameter("resourceVersionMatch"),
        bool(request.flag("watch")),
        bool(request.flag("allowWatchBookmarks")),
        _number(request, "timeoutSeconds"),
        request.flag("sendInitialEvents"),
    )
    _check_match(options)
    return options


def _number(request: Request, name: str) -> int:
    text = request.parameter(name)
    if not text:
        return 0
    if not _INTEGER.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -(1 << 63) <= (number := int(text)) < 1 << 63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def _check_match(options: ListOptions) -> None:
    errors = []
    match = options.match
    if options.watch:
        if options.send_initial is not None and match != "NotOlderThan":
            errors.append(
                forbidden(
                    "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                )
            )
        if options.send_initial is None and match:
            errors.append(
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if match and match != "NotOlderThan":
            errors.append(not_supported("resourceVersionMatch", match, ["NotOlderThan"]))
        if options.token:
            errors.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
    elif match:
        if not options.resource_version:
            errors.append(
                forbidden(
                    "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                )
            )
        if options.token:
            errors.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
        if match not in ("Exact", "NotOlderThan"):
            errors.append(not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
        elif match == "Exact" and options.resource_version == "0":
            errors.append(
                forbidden("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
            )
    elif options.send_initial is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise invalid_object("meta.k8s.io", "ListOptions", "", errors)
