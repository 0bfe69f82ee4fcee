"""The demo is the route on sample data: it finds the week's big stories, sends each reader one mail, and never ages."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from pipeline.demo import run_demo, set_up
from pipeline.errors import UsageError
from pipeline.sources import Validators

BIG = ("Quillfern", "Ondalune", "Cassovar", "Dovrelane", "Tollomere", "Brackvane", "court")


def test_the_demo_picks_the_big_stories_and_sends_every_reader_one_mail(tmp_path: Path) -> None:
    said: list[str] = []
    _, slot = run_demo(tmp_path / "demo", said.append)
    told = "\n".join(said)
    mails = [message_from_bytes(path.read_bytes(), policy=default) for path in (tmp_path / "demo/outbox" / slot.name).iterdir()]
    assert len({str(mail["To"]) for mail in mails}) == len(mails) == 12
    assert "12 enrolled = 12 accepted" in told
    assert "sends nothing: 12 accepted" in told
    picked = [line for line in said if line[:3] in ("1. ", "2. ", "3. ", "4. ", "5. ")]
    assert len(picked) == 5
    assert all(any(name in line for name in BIG) for line in picked)
    assert "No findings." in told


def test_a_second_demo_starts_anew(tmp_path: Path) -> None:
    run_demo(tmp_path / "demo", lambda _: None)
    said: list[str] = []
    run_demo(tmp_path / "demo", said.append)
    assert any("52 new stories" in line for line in said)


def test_every_story_of_the_sample_lies_before_its_slot(tmp_path: Path) -> None:
    newsroom, slot = set_up(tmp_path / "demo")
    assert slot.at <= datetime.now(UTC)
    for source in newsroom.sources:
        told = source.collect(Validators(), slot.at)
        assert told.unusable == 0
        assert all(story.published < slot.at for story in told.stories)


def test_the_demo_removes_nothing_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than a demo"):
        run_demo(tmp_path, lambda _: None)
    assert (tmp_path / "precious.txt").read_text() == "mine"
