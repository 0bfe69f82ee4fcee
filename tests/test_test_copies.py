"""A test is the very issue, to those who may have one, and is counted nowhere."""

import re
from dataclasses import replace
from typing import Any

import pytest
import requests
from sqlalchemy import Engine
from sqlmodel import SQLModel, select

from pipeline import gate
from pipeline import publish as route
from pipeline.books import DeliveryRow, IssueState, MailRow
from pipeline.desk import Kind
from pipeline.errors import UsageError
from pipeline.render import address
from pipeline.web.public import public_app
from tests.house import ED, House, a_later_story
from tests.serving import serving


def test_a_test_is_the_very_issue_and_says_that_it_is_one(house: House) -> None:
    shown = route.look(house.newsroom, house.slot).rendered
    sent_to = gate.send_test(house.newsroom, house.slot, ["second.look@EXAMPLE.net", ED, ED], ED)
    assert sent_to == ("Second.Look@example.net", ED)
    assert house.told == [("test", "Second.Look@example.net"), ("test", ED)]
    house.desk().head("subject", "Changed after the test was asked for")
    house.read_mails()
    for issue, copy in house.postman.letters:
        assert issue == replace(shown, subject=f"[TEST] {shown.subject}", slot="2026-11-27-test", mailbox="")
        assert (issue.html, issue.text, issue.stand_ins) == (shown.html, shown.text, shown.stand_ins)
        assert copy.unsubscribe_url == "https://news.example.com/u/test"
        assert copy.unsubscribe_url in address(issue, copy).text
    assert [copy.address for _, copy in house.postman.letters] == list(sent_to)
    deeds = gate.standing(house.newsroom, house.slot).deeds
    assert [(each.kind, each.about) for each in deeds if each.kind is Kind.TEST] == [(Kind.TEST, {"to": 2})]


def test_a_test_of_what_is_approved_shows_the_frozen_bytes_and_leaves_the_issue_as_it_is(house: House) -> None:
    route.approve(house.newsroom, house.slot, ED)
    approved = route.look(house.newsroom, house.slot).rendered
    a_later_story(house)
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    assert house.postman.letters[0][0].html == approved.html
    assert (house.state, route.look(house.newsroom, house.slot).rendered) == (IssueState.APPROVED, approved)


def test_a_test_is_counted_nowhere(house: House) -> None:
    house.world.subscribe("ed.of.the.readers")
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    with house.newsroom.database.read() as session:
        assert session.exec(select(DeliveryRow)).all() == []
    house.ring()
    report = route.report(house.newsroom, house.slot)
    assert (report.enrolled, report.counts["accepted"], report.number) == (4, 4, 1)


def test_the_bytes_of_a_test_lie_in_its_row_until_it_is_sent(house: House) -> None:
    gate.send_test(house.newsroom, house.slot, [ED], ED)
    house.read_mails()
    with house.newsroom.database.read() as session:
        assert session.exec(select(MailRow.about)).one() == {"slot": house.slot.name}


@pytest.mark.parametrize("addresses", [["ada@example.com"], [ED, "ada@example.com"], [f"x{ED}"]])
def test_a_test_goes_to_nobody_who_is_not_on_the_list(house: House, addresses: list[str]) -> None:
    with pytest.raises(UsageError, match=r"tests go only to the addresses of newsletter\.test_addresses") as caught:
        gate.send_test(house.newsroom, house.slot, addresses, ED)
    assert "ada@example.com" not in str(caught.value)
    assert house.told == []
    house.configured({"test_addresses": (), "editors": (), "owner": None})
    with pytest.raises(UsageError, match=r'test_addresses = \["you@example\.org"\]'):
        gate.send_test(house.newsroom, house.slot, [ED], ED)
    assert gate.send_test(house.newsroom, house.slot, [ED], ED, own=ED) == (ED,)


def test_a_test_wants_an_address(house: House) -> None:
    with pytest.raises(UsageError, match="name an address"):
        gate.send_test(house.newsroom, house.slot, [], ED)
    with pytest.raises(UsageError):
        gate.send_test(house.newsroom, house.slot, ["nobody"], ED)
    assert house.told == []


def everything(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
            for table in SQLModel.metadata.sorted_tables
        }


def test_the_link_by_which_readers_leave_changes_nothing_in_a_test(house: House) -> None:
    before = everything(house.newsroom.database.engine)
    with serving(public_app(house.newsroom)) as url:
        looked = requests.get(f"{url}/u/test", timeout=60)
        clicked = requests.post(f"{url}/u/test", {"List-Unsubscribe": "One-Click"}, timeout=60)
    for answer in (looked, clicked):
        assert answer.status_code == 200
        assert "In a test copy it changes nothing." in answer.text
        assert not re.search("<form|<button", answer.text)
    assert everything(house.newsroom.database.engine) == before
