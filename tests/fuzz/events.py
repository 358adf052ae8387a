"""Bytes as HTTP API events (payload 2.0): a captured review is an input without change, and so are any other bytes.

    input := body [ "\\n\\0\\n" query [ "\\n\\0\\n" headers [ "\\n\\0\\n" flags ] ] ]

The first byte of `flags` says how the gateway passes the body (bit 0: marked as base64, bit 1: encoded in base64). Its
other bits choose a scenario of scenarios.py.
"""

import base64
from typing import Any
from urllib.parse import parse_qsl

from fuzz.scenarios import SCENARIOS, Scenario
from fuzz.table import NOW

BREAK = b"\n\0\n"
MARKED, ENCODED, _SCENARIO = 1, 2, 4
QUERY, HEADERS = b"timeout=10s", b"content-type: application/json\naccept-encoding: gzip"
Json = dict[str, Any]


def joined(body: bytes, query: bytes = QUERY, headers: bytes = HEADERS, encoding: int = 0, scenario: int = 0) -> bytes:
    """Return the input with these parts; `encoding` is a combination of MARKED and ENCODED."""
    return BREAK.join((body, query, headers, bytes([(scenario * _SCENARIO + encoding) & 255])))


def split(data: bytes) -> tuple[bytes, bytes, bytes, int, int]:
    """Return the parts of an input; a part that is missing is as an API server sends it."""
    given = data.split(BREAK, 3)
    body, query, headers, flags = (*given, *(b"", QUERY, HEADERS, b"\0")[len(given) :])
    scenario, encoding = divmod((flags or b"\0")[0], _SCENARIO)
    return body, query, headers, encoding, scenario


def event_of(data: bytes) -> tuple[Json, Scenario]:
    """Return the event of an input and its scenario."""
    body, query, headers, encoding, scenario = split(data)
    text = base64.b64encode(body).decode() if encoding & ENCODED else body.decode(errors="surrogateescape")
    query_text = query.decode(errors="replace")
    lines = (line.partition(":") for line in headers.decode(errors="replace").splitlines())
    chosen = SCENARIOS[scenario % len(SCENARIOS)]
    path = f"/token{chosen.route}"
    event: Json = {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "rawPath": path,
        "rawQueryString": query_text,
        "headers": {name.strip().lower(): value.strip() for name, _, value in lines},
        "requestContext": {"http": {"method": "POST", "path": path}, "timeEpoch": NOW},
        "isBase64Encoded": bool(encoding & MARKED),
    }
    parameters = dict(parse_qsl(query_text, keep_blank_values=True))
    # The gateway leaves out empty parts.
    event |= {name: value for name, value in (("queryStringParameters", parameters), ("body", text)) if value}
    return event, chosen
