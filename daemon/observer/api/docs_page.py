"""The description of the API as a page, from our own files alone."""

from __future__ import annotations

from html import escape
from typing import Any

DOCS_PATH = "/api/docs"


def docs_html(document: dict[str, Any]) -> str:
    """Render an OpenAPI document: one section for each path."""
    sections = "".join(
        _section(path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    info = document["info"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport"
content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{escape(info["title"])}: API</title><link rel="icon" href="/static/icon.svg"
type="image/svg+xml"><link rel="stylesheet" href="/static/page.css"></head>
<body><header><div class="brand"><img src="/static/icon.svg" alt="" width="28"
height="28"><strong>{escape(info["title"])}</strong></div><p class="run">API version
{escape(info["version"])}</p></header><main><p>{escape(info["description"])} The same for programs:
<a href="/api/openapi.json">/api/openapi.json</a>. Back to <a href="/">the page</a>.</p>
{sections}</main></body></html>
"""


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<div><dt><code>{escape(one['name'])}</code></dt><dd>{escape(_about(one))}</dd></div>"
        for one in operation["parameters"]
    )
    answers = "".join(
        f"<div><dt>{escape(code)}</dt><dd>{escape(answer['description'])}</dd></div>"
        for code, answer in operation["responses"].items()
    )
    shown = f"<code>{escape(path)}</code>"
    if "{" not in path and method == "get":
        shown = f'<a href="{escape(path)}">{shown}</a>'
    return (
        f'<section class="card"><h2>{escape(method.upper())} {shown}</h2>'
        f"<p>{escape(operation['summary'])}</p><dl>{rows}{answers}</dl></section>"
    )


def _about(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    limits = [
        f"{name} {schema[name]}" for name in ("minimum", "maximum", "default") if name in schema
    ]
    return ", ".join([parameter.get("description", f"in the {parameter['in']}"), *limits])
