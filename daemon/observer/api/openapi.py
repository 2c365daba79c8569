"""The description of the API in OpenAPI 3.1, from its tables.

See https://spec.openapis.org/oas/v3.1.0.

Schemas come from the records that are encoded, so that the description cannot differ from the
answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from daemon.observer.api.bodies import ErrorBody, ProbeBody
from daemon.observer.api.control import ACTIONS, PREFIX, OrderBody, OrderRequest
from daemon.observer.api.dashboard import DashboardNode, Message
from daemon.observer.api.query import DEFAULT_LIMIT, MAX_CURSOR_CHARS, MAX_LIMIT
from daemon.observer.api.resources import RESOURCES, Resource
from daemon.observer.endpoints import ENDPOINTS, JSON, PROBES
from daemon.observer.history.feed_event import FeedEvent

OPENAPI_PATH = "/api/openapi.json"
VERSION = "1"

PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "The most items of one page.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LIMIT,
            "default": DEFAULT_LIMIT,
        },
    },
    "cursor": {
        "name": "cursor",
        "in": "query",
        "description": "Where the page begins, from `next` of the page before.",
        "schema": {"type": "string", "maxLength": MAX_CURSOR_CHARS},
    },
}
PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "address": {
        "type": "string",
        "pattern": "^0x([0-9a-f]{40}|[0-9A-F]{40})$",
        "description": "An account in one case. Mixed case is taken with a right checksum.",
    },
    "id": {"type": "string", "minLength": 1, "maxLength": 128},
}
ERRORS = {
    "400": "A parameter cannot be used.",
    "401": "The token of the owner's home is missing or wrong.",
    "403": "A page of another origin asks, or only the run's owner may do that.",
    "404": "There is no such thing.",
    "413": "The body is too large.",
    "414": "The path and query are too long.",
    "421": "The host name is not one of this server's.",
    "429": "Too many requests of one client.",
    "503": "The answer is not available now.",
}


def openapi_document() -> dict[str, Any]:
    """Return the description of every path."""
    paths: dict[str, Any] = {}
    for path, operation in _operations():
        paths[path] = {"get": operation}
    for action in ACTIONS:
        paths[f"{PREFIX}{action}"] = {"post": _order_operation(action)}
    types = [
        ErrorBody,
        ProbeBody,
        OrderRequest,
        OrderBody,
        FeedEvent,
        DashboardNode,
        Message,
        *(one.body for one in ENDPOINTS if one.body is not None),
        *(one.body for one in RESOURCES),
    ]
    _, schemas = msgspec.json.schema_components(
        list(dict.fromkeys(types)), ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HyperGPU observer",
            "version": VERSION,
            "description": "What an observer verified of a run. Amounts are strings in base units;"
            " times are unix seconds. Every refusal has the same form.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of api-token in the owner's home.",
                }
            },
        },
    }


def _order_operation(action: str) -> dict[str, Any]:
    told = _operation(f"Order every node to {action} training (the run's owner).", JSON, OrderBody)
    del told["responses"]["304"]
    schema = {"$ref": f"#/components/schemas/{OrderRequest.__name__}"}
    told["requestBody"] = {"required": False, "content": {JSON: {"schema": schema}}}
    told["security"] = [{"token": []}, {}]
    told["responses"] |= _errors("401", "413")
    return told


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for endpoint in ENDPOINTS:
        yield endpoint.path, _operation(endpoint.summary, endpoint.content_type, endpoint.body)
    for probe in PROBES:
        told = _operation(f"Whether this observer is {_PROBED[probe]}.", JSON, ProbeBody)
        told["responses"]["503"] = _answer("What is missing.", JSON, ProbeBody)
        yield probe, told
    for resource in RESOURCES:
        yield resource.path, _of_resource(resource)
    yield "/api/nodes/{id}", _operation("One node (original dashboard).", JSON, DashboardNode, "id")
    socket = _operation("Messages as they happen, over a WebSocket.", JSON, None)
    socket["responses"] = {
        "101": {"description": "Messages of the schema Message follow."},
        **_errors("400", "403", "414", "421", "429"),
    }
    yield "/ws", socket
    yield OPENAPI_PATH, _operation("This description.", JSON, None)
    yield "/api/docs", _operation("This description as a page.", "text/html; charset=utf-8", None)


_PROBED = {"/healthz": "working", "/readyz": "ready: a run is found and does not stand still"}


def _of_resource(resource: Resource) -> dict[str, Any]:
    _, _, part = resource.path.rstrip("}").partition("{")
    told = _operation(resource.summary, JSON, resource.body, part)
    told["parameters"] += [_parameter(name, resource) for name in resource.parameters]
    if resource.path == "/api/v1/events":
        told["parameters"].append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "With Accept: text/event-stream, the last event that arrived.",
                "schema": {"type": "string"},
            }
        )
        told["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return told


def _parameter(name: str, resource: Resource) -> dict[str, Any]:
    """Return the description of a parameter; a cursor looks different in each list."""
    known = PARAMETERS[name]
    if name != "cursor" or not resource.cursor_pattern:
        return known
    return known | {"schema": known["schema"] | {"pattern": resource.cursor_pattern}}


def _operation(
    summary: str, content_type: str, body: type[msgspec.Struct] | None, part: str = ""
) -> dict[str, Any]:
    parameters = []
    if part:
        parameters.append(
            {"name": part, "in": "path", "required": True, "schema": PATH_SCHEMAS[part]}
        )
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": _answer(summary, content_type, body),
            "304": {"description": "The client has the answer already (If-None-Match)."},
            **_errors("400", "403", "404", "414", "421", "429", "503"),
        },
    }


def _answer(
    description: str, content_type: str, body: type[msgspec.Struct] | None
) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{body.__name__}"} if body else {}
    return {
        "description": description,
        "content": {content_type.partition(";")[0]: {"schema": schema}},
    }


def _errors(*codes: str) -> dict[str, Any]:
    return {code: _answer(ERRORS[code], JSON, ErrorBody) for code in codes}
