"""A document that is escaped once says about each reader what it would have said if it were made for them alone."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.issue import Copy
from pipeline.render import Message, address
from pipeline.stencil import Stencil
from pipeline.text import wire_address
from tests.test_providers import COPIES, ISSUE


def shape(copy: Copy, message: Message) -> dict[str, object]:
    return {"to": copy.address, "ref": [copy.ref, copy.ref], "message": [message.html, message.text], "head": message.headers}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LOCAL = st.text(st.sampled_from("aZ0.+'\"\\/&<>%é漢😀{}"), min_size=1, max_size=20)


@settings(deadline=None, database=None)
@given(TEXT, st.lists(st.tuples(LOCAL, TEXT, TEXT), max_size=4))
def test_each_reader_gets_what_a_document_of_their_own_would_hold(around: str, readers: list[tuple[str, str, str]]) -> None:
    issue = replace(ISSUE, html=f"{around}{ISSUE.html}{around}", text=f"{around}{ISSUE.text}", mailbox="box@example.com")
    copies = [
        Copy(f"{place:032x}", f"{local}@exämple.com", f"https://news.example.com/{leave}", f"mailto:{mail}")
        for place, (local, leave, mail) in enumerate(readers)
    ]
    due = [shape(copy._replace(address=wire_address(copy.address)), address(issue, copy)) for copy in copies]
    assert json.loads(Stencil(issue, shape).array(copies)) == due


def test_no_stand_in_is_left_and_nobody_is_shown_to_another() -> None:
    found = json.loads(Stencil(ISSUE, shape).array(COPIES))
    assert "TOKEN" not in json.dumps(found)
    for copy, own in zip(COPIES, found, strict=True):
        assert not any(other.ref in json.dumps(own) for other in COPIES if other is not copy)


def test_without_a_mailbox_there_is_one_way_out() -> None:
    (first, *_) = json.loads(Stencil(ISSUE, shape).array(COPIES))
    assert first["head"]["List-Unsubscribe"] == f"<{COPIES[0].unsubscribe_url}>"
