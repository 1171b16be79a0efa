"""The exact call of a page as code to copy."""

from __future__ import annotations

import json
import pprint
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request

__all__ = ["Snippet", "curl_command", "predict_url", "snippets"]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A call in one language."""

    language: str
    text: str


def predict_url(request: Request, model: str) -> str:
    """Return the address of a model's predictions at the server that a request came to."""
    return f"{request.url.scheme}://{request.url.netloc}/models/{quote(model)}/predict"


def curl_command(url: str, content_type: str, data: str) -> str:
    """Return the command of a call; `data` is the option that gives its body."""
    kind = shlex.quote(f"content-type: {content_type}")
    return (
        f"curl {shlex.quote(url)} \\\n"
        f'  -H "authorization: Bearer $ONRECORD_TOKEN" \\\n'
        f"  -H {kind} \\\n"
        f"  {data}"
    )


def snippets(url: str, row: dict[str, Any]) -> list[Snippet]:
    """Return the call of a row as curl, Python and JavaScript; each takes ONRECORD_TOKEN."""
    body = json.dumps(row, ensure_ascii=False)
    curl = curl_command(url, "application/json", f"--data-raw {shlex.quote(body)}")
    python = (
        "import os\n\nimport requests\n\n"
        f"row = {pprint.pformat(row, sort_dicts=False)}\n"
        "answer = requests.post(\n"
        f"    {url!r},\n"
        "    json=row,\n"
        '    headers={"authorization": f"Bearer {os.environ[\'ONRECORD_TOKEN\']}"},\n'
        "    timeout=30,\n"
        ")\n"
        "answer.raise_for_status()\n"
        "print(answer.json())"
    )
    javascript = (
        f"const answer = await fetch({json.dumps(url)}, {{\n"
        '  method: "POST",\n'
        "  headers: {\n"
        "    authorization: `Bearer ${process.env.ONRECORD_TOKEN}`,\n"
        '    "content-type": "application/json",\n'
        "  },\n"
        f"  body: JSON.stringify({json.dumps(row, ensure_ascii=False, indent=2)}),\n"
        "});\n"
        "if (!answer.ok) throw new Error(await answer.text());\n"
        "console.log(await answer.json());"
    )
    return [Snippet("curl", curl), Snippet("Python", python), Snippet("JavaScript", javascript)]
