"""What the tests of the desk in a browser share: a week before its slot, and how one writes and presses there."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from pipeline import edit, gate
from pipeline import publish as route
from pipeline.issue import Draft
from pipeline.web.public import public_app
from tests.browser.street import House, Visit
from tests.conftest import FRIDAY
from tests.test_door import ED
from tests.test_staff import CHEAP

TESTER = "tester@example.com"
DESK = "/newsroom/desk/2026-11-27"
IS_SAVED = """([selector, text]) => {
  const field = document.querySelector(selector);
  return field.form.elements[`was_${field.name}`].value === text;
}"""


def furnished(house: House) -> House:
    """A house with a week of stories, a reader, and somebody to send tests to, a day before its slot."""
    world = house.world
    own = world.newsroom.config.newsletter.model_copy(update={"test_addresses": (TESTER,)})
    world.newsroom = replace(world.newsroom, config=replace(world.newsroom.config, newsletter=own))
    world.clock.at = FRIDAY - timedelta(hours=20)
    world.tell_a_week(7)
    world.subscribe("ada")
    return House(world, public_app(world.newsroom, CHEAP), house.url)


def draft(week: House) -> Draft:
    return route.draft(week.world.newsroom, week.world.slot)


def titles(week: House) -> list[str]:
    return [line.title for line in draft(week).issue.lines]


def state(week: House) -> str:
    return gate.standing(week.world.newsroom, week.world.slot).state


def write(visit: Visit, field: str, text: str) -> None:
    """Write into a field of the desk, and wait until it is saved, by itself or by the button."""
    visit.page.locator(field).fill(text)
    if visit.scripts:
        visit.page.wait_for_function(IS_SAVED, arg=[field, text])
        return
    with visit.page.expect_navigation():
        visit.page.locator("form", has=visit.page.locator(field)).get_by_role("button", name="Save").click()


def press(visit: Visit, selector: str) -> None:
    with visit.page.expect_navigation():
        visit.page.locator(selector).click()


def explain(visit: Visit, summary: str, button: str) -> None:
    """Open what asks once more, and press the button in it."""
    visit.page.locator("summary", has_text=re.compile(f"^{summary}$")).click()
    visit.press(button)


def until(what: Callable[[], object]) -> None:
    ends = time.monotonic() + 90
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.1)


def edit_elsewhere(week: House) -> edit.Desk:
    return edit.Desk(week.world.newsroom, week.world.slot, ED)
