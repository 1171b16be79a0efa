"""`/docs`: Swagger UI from vendored files, so that it works offline and under a strict CSP."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from onrecord.http.own_files import own_file

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_VENDOR = "swagger-ui-5.35.0"
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>onrecord API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="static/vendor/{_VENDOR}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="static/vendor/{_VENDOR}/swagger-ui-bundle.js"></script>
<script src="static/docs.js"></script>
</body>
</html>
"""
# Swagger UI sets style attributes; everything else must come from this server.
_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)
_FILES = {
    "docs.js": "text/javascript",
    f"vendor/{_VENDOR}/swagger-ui.css": "text/css",
    f"vendor/{_VENDOR}/swagger-ui-bundle.js": "text/javascript",
}


@router.get("/docs")
async def docs() -> Response:
    """Show the API's documentation page."""
    return HTMLResponse(
        _PAGE, headers={"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
    )


@router.get("/static/{path:path}")
async def static(path: str) -> Response:
    """Serve one of the page's own files."""
    return own_file("onrecord.http", _FILES, path)
