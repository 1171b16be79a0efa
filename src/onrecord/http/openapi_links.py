"""OpenAPI links: which value of an answer is a parameter of which other operation.

They tell readers and tools how calls follow one another (OpenAPI 3.1, section 4.8.20).
"""

from __future__ import annotations

from typing import Any

__all__ = ["add_links"]

_USER = "$response.body#/user/id"
_ID = "$response.body#/id"
_NEXT = "$response.body#/next"
_PREDICT = "/predict"

# From an operation and its status: the name of a link, the operation it leads to, the parameter.
_LINKS: dict[tuple[str, str, str], list[tuple[str, str, str, dict[str, str]]]] = {
    ("/users", "post", "201"): [
        ("show", "/users/{user_id}", "get", {"user_id": _USER}),
        ("change", "/users/{user_id}", "patch", {"user_id": _USER}),
        ("delete", "/users/{user_id}", "delete", {"user_id": _USER}),
        ("record", "/predictions", "get", {"user": _USER}),
        ("keys", "/keys", "get", {"user": _USER}),
    ],
    ("/users", "get", "200"): [
        ("next", "/users", "get", {"after": _NEXT}),
        ("show", "/users/{user_id}", "get", {"user_id": "$response.body#/users/0/id"}),
    ],
    ("/keys", "post", "201"): [
        ("revoke", "/keys/{key_id}", "delete", {"key_id": _ID}),
        ("record", "/predictions", "get", {"api_key": _ID}),
    ],
    ("/keys", "get", "200"): [("next", "/keys", "get", {"after": _NEXT})],
    (_PREDICT, "post", "200"): [
        ("show", "/predictions/{prediction}", "get", {"prediction": _ID}),
        ("prove", "/predictions/{prediction}/proof", "get", {"prediction": _ID}),
    ],
    ("/predictions", "get", "200"): [
        ("next", "/predictions", "get", {"before": _NEXT}),
        (
            "show",
            "/predictions/{prediction}",
            "get",
            {"prediction": "$response.body#/predictions/0/id"},
        ),
    ],
    ("/models", "get", "200"): [
        ("show", "/models/{name}", "get", {"name": "$response.body#/models/0/name"}),
        ("schema", "/models/{name}/schema", "get", {"name": "$response.body#/models/0/name"}),
    ],
}


def add_links(document: dict[str, Any]) -> None:
    """Put the links into an OpenAPI document that has every operation already."""
    paths = document["paths"]
    for (source, method, status), links in _LINKS.items():
        sources = [path for path in paths if source == _PREDICT and path.endswith(_PREDICT)]
        for path in sources or [source]:
            paths[path][method]["responses"][status]["links"] = {
                name: {
                    "operationId": paths[target][target_method]["operationId"],
                    "parameters": parameters,
                }
                for name, target, target_method, parameters in links
            }
