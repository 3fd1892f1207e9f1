"""What is served beside the resources, as OpenAPI documents tell of it: discovery, version, the token issuer's keys."""

from __future__ import annotations

from shipwheel.api.openapi.names import group_prefix, group_tag
from shipwheel.api.openapi.operations import JSON, META, PROTOBUF, TEXT, YAML, Body, Operation
from shipwheel.api.scheme import Scheme


def root_operations(scheme: Scheme) -> list[Operation]:
    """One for each path."""
    versions, groups, group = (Body(f"{META}{name}") for name in ("APIVersions", "APIGroupList", "APIGroup"))
    json, coded = ("application/json",), (JSON, YAML, PROTOBUF)
    operations = [
        Operation(
            "/.well-known/openid-configuration/", "get", "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            consumes=(), produces=json, answers={200: TEXT}, tag="WellKnown",
        ),
        Operation(
            "/api/", "get", "getCoreAPIVersions", "get available API versions", consumes=coded,
            answers={200: versions}, tag="core",
        ),
        Operation(
            "/apis/", "get", "getAPIVersions", "get available API versions", consumes=coded,
            answers={200: groups}, tag="apis",
        ),
        Operation(
            "/openid/v1/jwks/", "get", "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            consumes=(), produces=("application/jwk-set+json",), answers={200: TEXT}, tag="openid",
        ),
        Operation(
            "/version/", "get", "getCodeVersion", "get the version information for this server",
            consumes=json, produces=json, answers={200: Body("io.k8s.apimachinery.pkg.version.Info")}, tag="version",
        ),
    ]  # fmt: skip
    operations += [
        Operation(
            f"/apis/{name}/", "get", f"get{group_prefix(name)}APIGroup", "get information of a group",
            consumes=(JSON, YAML, PROTOBUF), answers={200: group}, tag=group_tag(name),
        )
        for name in sorted({gv.group for gv in scheme.group_versions()} - {""})
    ]  # fmt: skip
    return operations


def root_paths(scheme: Scheme) -> set[str]:
    """Without the slashes around them: as the index of OpenAPI v3 names its documents."""
    return {operation.path.strip("/") for operation in root_operations(scheme)}
