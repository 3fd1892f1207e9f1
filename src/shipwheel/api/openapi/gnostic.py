"""The v2 document as protobuf, which kubectl asks for because it is quicker to read.

The messages are those of gnostic's `openapi.v2` package: every map is a list of named values, every alternative a
message around the one that was chosen, and what OpenAPI does not define (`x-kubernetes-*`) is carried as YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import orjson

from shipwheel.api.meta import Obj
from shipwheel.api.protobuf import Message, encode, parse_tables

_TABLES = """
Any yaml=2:string
NamedAny name=1:string value=2:Any
NamedSchema name=1:string value=2:Schema
Properties additional_properties=1:[NamedSchema]
TypeItem value=1:[string]
ItemsItem schema=1:[Schema]
AdditionalPropertiesItem schema=1:Schema boolean=2:bool
Schema $ref=1:string format=2:string title=3:string description=4:string default=5:Any multipleOf=6:double
    maximum=7:double exclusiveMaximum=8:bool minimum=9:double exclusiveMinimum=10:bool maxLength=11:int64
    minLength=12:int64 pattern=13:string maxItems=14:int64 minItems=15:int64 uniqueItems=16:bool
    maxProperties=17:int64 minProperties=18:int64 required=19:[string] enum=20:[Any]
    additionalProperties=21:AdditionalPropertiesItem type=22:TypeItem items=23:ItemsItem allOf=24:[Schema]
    properties=25:Properties discriminator=26:string readOnly=27:bool example=30:Any vendor_extension=31:[NamedAny]
SchemaItem schema=1:Schema
Response description=1:string schema=2:SchemaItem
ResponseValue response=1:Response
NamedResponseValue name=1:string value=2:ResponseValue
Responses response_code=1:[NamedResponseValue]
JsonReference $ref=1:string
BodyParameter description=1:string name=2:string in=3:string required=4:bool schema=5:Schema
QueryParameter required=1:bool in=2:string description=3:string name=4:string type=6:string format=7:string
    uniqueItems=20:bool
PathParameter required=1:bool in=2:string description=3:string name=4:string type=5:string format=6:string
    uniqueItems=19:bool
NonBodyParameter query=3:QueryParameter path=4:PathParameter
Parameter body=1:BodyParameter other=2:NonBodyParameter
ParametersItem parameter=1:Parameter reference=2:JsonReference
NamedParameter name=1:string value=2:Parameter
ParameterDefinitions additional_properties=1:[NamedParameter]
Operation tags=1:[string] summary=2:string description=3:string operationId=5:string produces=6:[string]
    consumes=7:[string] parameters=8:[ParametersItem] responses=9:Responses schemes=10:[string] deprecated=11:bool
    vendor_extension=13:[NamedAny]
PathItem get=2:Operation put=3:Operation post=4:Operation delete=5:Operation options=6:Operation head=7:Operation
    patch=8:Operation parameters=9:[ParametersItem]
NamedPathItem name=1:string value=2:PathItem
Paths path=2:[NamedPathItem]
Definitions additional_properties=1:[NamedSchema]
StringArray value=1:[string]
NamedStringArray name=1:string value=2:StringArray
SecurityRequirement additional_properties=1:[NamedStringArray]
ApiKeySecurity type=1:string name=2:string in=3:string description=4:string
SecurityDefinitionsItem api_key_security=2:ApiKeySecurity
NamedSecurityDefinitionsItem name=1:string value=2:SecurityDefinitionsItem
SecurityDefinitions additional_properties=1:[NamedSecurityDefinitionsItem]
Info title=1:string version=2:string
Document swagger=1:string info=2:Info paths=8:Paths definitions=9:Definitions parameters=10:ParameterDefinitions
    security=12:[SecurityRequirement] security_definitions=13:SecurityDefinitions
"""
_PLAIN = (
    "$ref", "format", "title", "description", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxProperties",
    "minProperties", "required", "discriminator", "readOnly",
)  # fmt: skip


@cache
def message(name: str = "Document") -> Message:
    return parse_tables(_TABLES)[name]


def encode_v2(document: Obj) -> bytes:
    """What `/openapi/v2` answers to `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`."""
    return encode(
        message(),
        {
            "swagger": document["swagger"],
            "info": document["info"],
            "paths": {"path": _named(document["paths"], _path)},
            "definitions": {"additional_properties": _named(document["definitions"], _schema)},
            "parameters": {"additional_properties": _named(document["parameters"], _parameter)},
            "security": [
                {"additional_properties": [{"name": name, "value": {"value": scopes}} for name, scopes in each.items()]}
                for each in document["security"]
            ],
            "security_definitions": {
                "additional_properties": _named(
                    document["securityDefinitions"], lambda each: {"api_key_security": each}
                )
            },
        },
    )


def _named(values: Mapping[str, Any], convert: Any) -> list[Obj]:
    return [{"name": name, "value": convert(value)} for name, value in values.items()]


def _any(value: Any) -> Obj:
    """JSON is YAML."""
    return {"yaml": orjson.dumps(value).decode()}


def _extensions(node: Mapping[str, Any]) -> list[Obj]:
    return [{"name": key, "value": _any(value)} for key, value in node.items() if key.startswith("x-")]


def _schema(node: Mapping[str, Any]) -> Obj:
    out: Obj = {key: node[key] for key in _PLAIN if key in node}
    for key in ("default", "example"):
        if key in node:
            out[key] = _any(node[key])
    if "enum" in node:
        out["enum"] = [_any(each) for each in node["enum"]]
    if "type" in node:
        out["type"] = {"value": [node["type"]]}
    if "items" in node:
        out["items"] = {"schema": [_schema(node["items"])]}
    if "allOf" in node:
        out["allOf"] = [_schema(each) for each in node["allOf"]]
    if "properties" in node:
        out["properties"] = {"additional_properties": _named(node["properties"], _schema)}
    additional = node.get("additionalProperties")
    if isinstance(additional, bool):
        out["additionalProperties"] = {"boolean": additional}
    elif additional is not None:
        out["additionalProperties"] = {"schema": _schema(additional)}
    extensions = _extensions(node)
    if extensions:
        out["vendor_extension"] = extensions
    return out


def _parameter(node: Mapping[str, Any]) -> Obj:
    if node["in"] == "body":
        return {"body": {**node, "schema": _schema(node["schema"])}}
    return {"other": {node["in"]: node}}


def _parameters(nodes: Iterable[Mapping[str, Any]]) -> list[Obj]:
    return [{"reference": node} if "$ref" in node else {"parameter": _parameter(node)} for node in nodes]


def _path(node: Mapping[str, Any]) -> Obj:
    return {key: _parameters(value) if key == "parameters" else _operation(value) for key, value in node.items()}


def _operation(node: Mapping[str, Any]) -> Obj:
    out: Obj = {key: value for key, value in node.items() if not key.startswith("x-")}
    if "parameters" in node:
        out["parameters"] = _parameters(node["parameters"])
    out["responses"] = {"response_code": _named(node["responses"], _response)}
    extensions = _extensions(node)
    if extensions:
        out["vendor_extension"] = extensions
    return out


def _response(node: Mapping[str, Any]) -> Obj:
    out: Obj = {"description": node["description"]}
    if "schema" in node:
        out["schema"] = {"schema": _schema(node["schema"])}
    return {"response": out}
