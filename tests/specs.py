"""What went over the wire between us and the fake, judged by the provider's own OpenAPI document, both ways."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from openapi_core.testing import MockRequest, MockResponse

from tests.openapi import document

_DOCUMENTS = {
    "mailgun": ("mailgun/openapi.yaml", "https://api.mailgun.net"),
    "resend": ("resend/resend.yaml", "https://api.resend.com"),
}


def has_document(provider: str) -> bool:
    """Whether a provider publishes one that lies among the real data."""
    return provider in _DOCUMENTS


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
    document(_DOCUMENTS[provider][0]).validate_response(_request(provider, exchange), answer)


def judge_request(provider: str, exchange: Mapping[str, Any]) -> None:
    """See that a request is what the document asks for, whatever its answer is."""
    document(_DOCUMENTS[provider][0]).validate_request(_request(provider, exchange))


def _request(provider: str, exchange: Mapping[str, Any]) -> MockRequest:
    headers = {name.title(): value for name, value in exchange["headers"].items()}
    return MockRequest(
        _DOCUMENTS[provider][1], exchange["method"], exchange["path"], args=dict(parse_qsl(exchange["query"])),
        headers=headers, data=base64.b64decode(exchange["body"]), content_type=exchange["headers"].get("content-type", ""),
    )  # fmt: skip
