"""Whatever is sent to whatever page: an answer that was thought of, and never an error of the server."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from pipeline.web import reader
from tests.conftest import World
from tests.serving import serving
from tests.test_door import Browser, furnish

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("FRIDAY_OPENAPI_CASES", "300"))


@dataclass(frozen=True)
class Visit:
    """A browser that is signed in, and the app that it is in front of."""

    browser: Browser
    app: FastAPI


@pytest.fixture
def visit(local_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator["Visit"]:
    """A browser of an owner, in front of the whole app with some people on the roll."""
    monkeypatch.setattr(reader, "PER_NETWORK", 1_000_000)
    local_world.tell_a_week()
    local_world.subscribe("ada", "ben")
    house = furnish(local_world)
    with serving(house.app) as url:
        browser = Browser(url).sign_in()
        browser.session.headers["Origin"] = url
        browser.session.headers["X-CSRF-Token"] = browser.token()
        yield Visit(browser, house.app)


def test_no_case_makes_an_error_of_the_server(visit: Visit) -> None:
    schema = schemathesis.openapi.from_dict(visit.app.openapi())
    operations: list[Any] = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    operations = [each for each in operations if not each.path.startswith(("/newsroom/sign", "/newsroom/account"))]
    assert len(operations) > 20
    seen: set[int] = set()

    @given(st.data())
    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def ask(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(operations))
        case = data.draw(operation.as_strategy())
        answer = case.call(base_url=visit.browser.url, session=visit.browser.session, timeout=60, allow_redirects=False)
        seen.add(answer.status_code)
        assert answer.status_code < 500, f"{case.method} {case.formatted_path}"

    ask()
    assert {200, 404, 422} <= seen
