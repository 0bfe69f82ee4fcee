"""The providers' own OpenAPI documents as judges of what goes over the wire, where they are at hand."""

import base64
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import yaml
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

# Only what is spoken here: the whole of Mailgun's document takes seconds to get ready.
_SPOKEN = {
    "mailgun": ("mailgun/openapi.yaml", "https://api.mailgun.net", ("/v3/{domain_name}/messages", "/v1/analytics/logs")),
    "resend": ("resend/resend.yaml", "https://api.resend.com", ("/emails/batch", "/emails", "/emails/{email_id}")),
}


def has_document(provider: str) -> bool:
    """Whether a provider publishes one that lies among the real data."""
    return provider in _SPOKEN


@cache
def document(provider: str) -> OpenAPI:
    """A provider's document; a test without the real data is skipped."""
    data = os.environ.get("FRIDAY_REAL_DATA")
    if not data:
        pytest.skip("FRIDAY_REAL_DATA is not set: the provider's OpenAPI document is not at hand")
    name, _, paths = _SPOKEN[provider]
    whole = yaml.load((Path(data) / "specs" / name).read_bytes(), Loader=yaml.CSafeLoader)
    return OpenAPI.from_dict({**whole, "paths": {path: whole["paths"][path] for path in paths}})


def judge(provider: str, exchange: Mapping[str, Any]) -> None:
    """See that a request is what the document asks for, and its answer what the document promises.

    Args:
        provider: whose document judges.
        exchange: as the fake keeps it.

    Raises:
        OpenAPIError: one of them is not.
    """
    judge_request(provider, exchange)
    answer = MockResponse(exchange["answer"].encode(), exchange["status"], content_type=exchange["kind"])
    document(provider).validate_response(_request(provider, exchange), answer)


def judge_request(provider: str, exchange: Mapping[str, Any]) -> None:
    """See that a request is what the document asks for, whatever its answer is."""
    document(provider).validate_request(_request(provider, exchange))


def _request(provider: str, exchange: Mapping[str, Any]) -> MockRequest:
    headers = {name.title(): value for name, value in exchange["headers"].items()}
    return MockRequest(
        _SPOKEN[provider][1], exchange["method"], exchange["path"], args=dict(parse_qsl(exchange["query"])), headers=headers,
        data=base64.b64decode(exchange["body"]), content_type=exchange["headers"].get("content-type", ""),
    )  # fmt: skip
