"""What the query of a LIST or a WATCH asks for, read and checked (ListOptions)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shipwheel.api.errors import bad_request, forbidden, invalid, invalid_object
from shipwheel.api.resource import Resource, Version
from shipwheel.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from shipwheel.client.httpserver import Request

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


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
            revision = int(self.resource_version)
        except ValueError:
            revision = -1
        if revision < 0:
            field_error = invalid("resourceVersion", self.resource_version, "strconv.ParseUint: parsing \"" +
                                  self.resource_version + "\": invalid syntax")  # fmt: skip
            raise invalid_object("meta.k8s.io", "ListOptions", "", [field_error])
        return revision


def list_options(request: Request, resource: Resource, version: Version) -> ListOptions:
    """Read and check the query of a list or a watch."""
    labels = fields = None
    if text := request.parameter("labelSelector"):
        try:
            labels = parse_label_selector(text)
        except ValueError as error:
            raise bad_request(f"unable to parse requirement: {error}") from None
    if text := request.parameter("fieldSelector"):
        try:
            fields = parse_field_selector(text)
        except ValueError as error:
            raise bad_request(str(error)) from None
        own = version.field_labels
        for name in sorted(fields.fields()):
            if name not in ("metadata.name", "metadata.namespace") and name not in (
                resource.selectable if own is None else own
            ):
                known = f"{version.group_version}, Kind={resource.kind}"
                raise bad_request(
                    f'Unable to find "{known}" that match label selector "{request.parameter("labelSelector")}", '
                    f'field selector "{text}": field label not supported: {name}'
                    if resource.custom
                    else f'Unable to find "{version.group_version}, Resource={resource.plural}" that match label '
                    f'selector "{request.parameter("labelSelector")}", field selector "{text}": field label not '
                    f"supported: {name}"
                )
        if own is not None:
            fields = fields.transform(lambda name, value: (own.get(name, name), value))
    initial = request.parameter("sendInitialEvents")
    options = ListOptions(
        labels,
        fields,
        max(_number(request, "limit"), 0),
        request.parameter("continue"),
        request.parameter("resourceVersion"),
        request.parameter("resourceVersionMatch"),
        request.parameter("watch") in _TRUE,
        request.parameter("allowWatchBookmarks") in _TRUE,
        _number(request, "timeoutSeconds"),
        None if not initial else initial in _TRUE,
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
        if options.send_initial is not None and not match:
            errors.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch must be set when sendInitialEvents is set")
            )
        if options.send_initial is None and match:
            errors.append(
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if match and match != "NotOlderThan" and options.send_initial is not None:
            errors.append(invalid("resourceVersionMatch", match, 'supported values: "NotOlderThan"'))
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
            errors.append(invalid("resourceVersionMatch", match, 'supported values: "Exact", "NotOlderThan", ""'))
        elif match == "Exact" and options.resource_version == "0":
            errors.append(
                forbidden("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
            )
    elif options.send_initial is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise invalid_object("meta.k8s.io", "ListOptions", "", errors)
