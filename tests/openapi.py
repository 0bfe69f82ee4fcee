"""The providers' own OpenAPI documents, as judges of our requests and of the events that our tests make up."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIWebhookRequest

from tests.fake_http import Call


@cache
def _read(path: Path) -> OpenAPI:
    return OpenAPI.from_dict(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader))


def document(path: str) -> OpenAPI:
    """The document, where the data that are not part of the project are at hand."""
    data = os.environ.get("FRIDAY_REAL_DATA")
    if not data:
        pytest.skip("FRIDAY_REAL_DATA is not set: the provider's OpenAPI document is not at hand")
    return _read(Path(data) / "specs" / path)


def validate_call(path: str, host: str, call: Call) -> None:
    """See that a call, sent to the API's own host instead, is what the document takes."""
    headers = {name: value for name, value in call.headers.items() if name not in ("host", "content-length")}
    content: dict[str, Any] = {"data": call.body}
    if headers["content-type"].startswith("multipart/"):
        # It knows forms only before they are encoded.
        content = {"files": [(name, (None, value.encode())) for name, value in call.fields]}
        del headers["content-type"]
    request = requests.Request(call.method, host + call.path, headers=headers, **content)
    document(path).validate_request(RequestsOpenAPIRequest(request))


def validate_event(path: str, name: str, body: bytes) -> None:
    """See that an event is one that the document lists."""
    # The document asks of events what it asks of calls.
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = requests.Request("POST", "https://news.example.com/hooks/x", headers=headers, data=body)
    document(path).validate_webhook_request(RequestsOpenAPIWebhookRequest(request, name))
