"""Fixtures of the browser suite: one Chromium and one street for all of it, houses for those who need their own."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.desk import DESK, furnished
from tests.browser.street import OURS, House, Street, Visit, build_house, street, visiting


@pytest.fixture(scope="session")
def road() -> Iterator[Street]:
    with street() as made:
        yield made


@pytest.fixture(scope="session")
def chromium(road: Street) -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "there is no Chromium: run `make test-browser`, which installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=road.arguments)
        yield browser
        browser.close()


@pytest.fixture
def house(road: Street, tmp_path: Path, empty: bytes) -> Iterator[House]:
    """A newsroom without people, under the name of ours."""
    made = build_house(tmp_path, empty)
    with road.home(made.url, made.app):
        yield made
    made.world.database.engine.dispose()


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def visit(chromium: Browser, house: House, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Somebody who comes with scripts on, and once with scripts off."""
    with visiting(chromium, house, scripts=request.param) as made:
        yield made


@pytest.fixture
def week(road: Street, tmp_path: Path, empty: bytes) -> Iterator[House]:
    made = furnished(build_house(tmp_path, empty))
    with road.home(OURS, made.app):
        yield made
    made.world.database.engine.dispose()


@pytest.fixture
def editor(chromium: Browser, week: House) -> Iterator[Visit]:
    with visiting(chromium, week, viewport={"width": 1280, "height": 900}) as made:
        yield made.sign_in().go(DESK)


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def either(chromium: Browser, week: House, request: pytest.FixtureRequest) -> Iterator[Visit]:
    with visiting(chromium, week, scripts=request.param) as made:
        yield made.sign_in().go(DESK)
