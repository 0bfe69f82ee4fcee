"""From the form to the first issue: sign up, confirm, choose, pause, leave; and what is told to nobody."""

import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
import requests
from sqlmodel import col, select

from pipeline import admit, events, mail
from pipeline import publish as route
from pipeline.books import MailRow, MailState
from pipeline.config import Secrets
from pipeline.errors import AccountRefused, CallRefused, ContentError, DecisionNeeded, NotProcessed, Unclear
from pipeline.issue import Event, Kind, Parcel
from pipeline.providers.outbox import Options, build
from pipeline.web import reader
from pipeline.web.public import public_app
from subscribers import history, roll
from subscribers.consent import Asked, Proof
from subscribers.models import Change, Consent, Label, SignUp, State, Subscriber, Suppression, Why, Wording
from tests.conftest import FRIDAY, ROOT, FakeProvider, World
from tests.serving import serving

ADA = "ada@example.com"
LATER = timedelta(seconds=3)


@pytest.fixture
def world(world: World) -> World:
    """A newsroom whose secret was made."""
    assert world.newsroom.keys
    return world


@pytest.fixture
def site(world: World) -> Iterator[str]:
    with serving(public_app(world.newsroom)) as url:
        yield url


def stamp_in(html: str) -> str:
    found = re.search(r'name="stamp" value="([^"]+)"', html)
    assert found
    return found.group(1)


def fill_in(world: World, site: str, address: str, **more: object) -> requests.Response:
    """Open the form, take a while, and send it."""
    stamp = stamp_in(requests.get(f"{site}/subscribe", timeout=60).text)
    world.clock.at += LATER
    return requests.post(f"{site}/subscribe", {"email": address, "stamp": stamp, **more}, timeout=60)


def mails(world: World) -> list[tuple[str, str]]:
    """Apply what was sent in and send what is due: the kind and the text of each mail that left."""
    before = len(world.provider.parcels)
    admit.admit_all(world.newsroom)
    mail.send_due(world.newsroom)
    return [(parcel.key, parcel.copies[0].address) for parcel in world.provider.parcels[before:]]


def person(world: World, address: str = ADA) -> Subscriber:
    with world.database.read() as session:
        found = roll.by_key(session, address)
        assert found
        return found


def link_of(world: World) -> str:
    """The path of the link that confirms the latest consent."""
    with world.database.read() as session:
        number = session.exec(select(Consent.id).order_by(col(Consent.id).desc())).first()
    assert number
    return f"/c/{world.newsroom.keys.sign('confirm', number)}"


def test_whoever_signs_up_and_confirms_gets_the_next_issue(world: World, site: str) -> None:
    assert "Look into your mailbox" in fill_in(world, site, ADA).text
    (sent,) = mails(world)
    assert sent[1] == ADA
    assert person(world).state == State.PENDING
    page = requests.get(site + link_of(world), timeout=60)
    assert "Was it you?" in page.text
    assert person(world).state == State.PENDING
    confirmed = requests.post(site + link_of(world), timeout=60)
    assert "You are in" in confirmed.text
    assert person(world).state == State.ACTIVE
    (welcome,) = mails(world)
    assert welcome[1] == ADA
    world.tell_a_week()
    route.publish(world.newsroom, world.slot)
    assert world.provider.got[-1:] == [ADA]


def test_until_somebody_confirms_no_issue_is_sent_there(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    world.subscribe("ben")
    world.tell_a_week()
    route.publish(world.newsroom, world.slot)
    assert world.provider.got == [ADA, "ben@example.com"]
    assert world.provider.parcels[0].copies[0].ref != world.provider.parcels[1].copies[0].ref


def test_the_evidence_of_consent_is_kept(world: World, site: str) -> None:
    stamp = stamp_in(requests.get(f"{site}/subscribe", timeout=60).text)
    world.clock.at += LATER
    asked_at = world.clock.at
    heads = {"User-Agent": "Browser/1"}
    requests.post(f"{site}/subscribe", {"email": ADA, "stamp": stamp}, headers=heads, timeout=60)
    mails(world)
    world.clock.at += timedelta(hours=1)
    requests.post(site + link_of(world), headers={"User-Agent": "Browser/2"}, timeout=60)
    with world.database.read() as session:
        (consent,) = session.exec(select(Consent)).all()
        wording = session.get_one(Wording, consent.wording)
        happened = [(each.what, each.by) for each in history.of(session, person(world).id or 0)]
    assert (consent.asked_at, consent.asked_network, consent.asked_agent, consent.form) == (
        asked_at, "127.0.0.0/24", "Browser/1", "page",
    )  # fmt: skip
    assert (consent.confirmed_at, consent.confirmed_network, consent.confirmed_agent) == (
        world.clock.at, "127.0.0.0/24", "Browser/2",
    )  # fmt: skip
    assert wording.text == admit.wording(world.newsroom)
    assert "every Friday" in wording.text
    assert wording.text in requests.get(f"{site}/subscribe", timeout=60).text
    assert happened == [("asked", "the reader"), ("confirmed", "the reader")]


def test_a_second_click_changes_nothing_and_a_scanner_loses_nothing(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    link = site + link_of(world)
    for _ in range(3):
        requests.get(link, timeout=60)
        requests.head(link, timeout=60)
    assert person(world).state == State.PENDING
    first = requests.post(link, timeout=60)
    joined = person(world).joined
    world.clock.at += timedelta(hours=1)
    second = requests.post(link, timeout=60)
    assert (first.status_code, second.status_code) == (200, 200)
    assert person(world).joined == joined
    assert len(mails(world)) == 1


def test_a_link_that_is_too_old_asks_to_sign_up_again(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    world.clock.at += timedelta(days=7, seconds=1)
    for answer in (requests.get(site + link_of(world), timeout=60), requests.post(site + link_of(world), timeout=60)):
        assert answer.status_code == 410
        assert stamp_in(answer.text)
    assert person(world).state == State.PENDING


def test_a_link_from_before_somebody_left_brings_nobody_back(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    link = site + link_of(world)
    requests.post(link, timeout=60)
    requests.post(f"{site}/u/{person(world).token}", timeout=60)
    assert requests.post(link, timeout=60).status_code == 410
    assert person(world).state == State.UNSUBSCRIBED


def test_whoever_left_may_come_back_by_a_sign_up_of_their_own(world: World, site: str) -> None:
    world.subscribe("ada")
    requests.post(f"{site}/u/{person(world).token}", timeout=60)
    fill_in(world, site, ADA)
    assert person(world).state == State.UNSUBSCRIBED
    mails(world)
    assert person(world).state == State.UNSUBSCRIBED
    requests.post(site + link_of(world), timeout=60)
    assert person(world).state == State.ACTIVE
    with world.database.read() as session:
        assert [each.what for each in history.of(session, person(world).id or 0)] == ["left", "asked", "came back"]


@pytest.mark.parametrize("why", [Why.BOUNCE, Why.COMPLAINT, Why.MANUAL])
def test_a_suppressed_address_is_not_written_to(world: World, site: str, why: Why) -> None:
    with world.database.write() as session:
        roll.suppress(session, ADA, why, world.clock())
    assert fill_in(world, site, ADA).status_code == 200
    assert mails(world) == []
    with world.database.read() as session:
        assert roll.by_key(session, ADA) is None
        assert session.exec(select(SignUp)).all() == []


def test_whoever_is_suppressed_after_asking_cannot_confirm(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    with world.database.write() as session:
        roll.suppress(session, ADA, Why.COMPLAINT, world.clock())
    for answer in (requests.get(site + link_of(world), timeout=60), requests.post(site + link_of(world), timeout=60)):
        assert answer.status_code == 403
    assert person(world).state == State.PENDING


def test_a_confirmation_that_bounces_suppresses_its_address(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    ref = world.provider.parcels[0].copies[0].ref
    with world.database.write() as session:
        events.apply(session, Event(Kind.HARD_BOUNCE, ref=ref), world.clock())
    with world.database.read() as session:
        assert session.get_one(Suppression, ADA).why == Why.BOUNCE


STATES = ("new", "pending", "active", "unsubscribed", "suppressed")


def each_state(world: World) -> dict[str, str]:
    """An address in each state."""
    with world.database.write() as session:
        for name in STATES[1:4]:
            roll.add(session, f"{name}@example.com", world.clock())
        for row in session.exec(select(Subscriber)):
            row.state = row.key.partition("@")[0]
        roll.suppress(session, "suppressed@example.com", Why.COMPLAINT, world.clock())
    return {name: f"{name}@example.com" for name in STATES}


def test_the_answer_is_the_same_to_the_byte_whoever_is_on_the_roll(world: World, site: str) -> None:
    answers = [fill_in(world, site, address) for address in each_state(world).values()]
    assert {(each.status_code, each.content) for each in answers} == {(200, answers[0].content)}
    assert {tuple(sorted(set(each.headers) - {"date"})) for each in answers} == {
        tuple(sorted(set(answers[0].headers) - {"date"}))
    }


def medians_of(browser: requests.Session, url: str, stamp: str, addresses: Sequence[str]) -> list[float]:
    """How long a sign-up takes for each address, in 200 tries by turns."""
    taken: dict[str, list[float]] = {address: [] for address in addresses}
    for turn in range(200):
        for place in range(len(addresses)):
            address = addresses[(turn + place) % len(addresses)]
            began = time.perf_counter()
            answer = browser.post(f"{url}/subscribe", {"email": address, "stamp": stamp}, timeout=60)
            taken[address].append(time.perf_counter() - began)
            assert answer.status_code == 200
    return [statistics.median(each) for each in taken.values()]


@pytest.mark.slow
def test_the_answer_takes_as_long_whoever_is_on_the_roll(local_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What depends on the address does so each time; what a busy machine does to one of five does not."""
    monkeypatch.setattr(reader, "PER_NETWORK", 10_000)
    local_world.newsroom = replace(
        local_world.newsroom,
        config=replace(
            local_world.newsroom.config,
            web=local_world.newsroom.config.web.model_copy(update={"sign_ups_per_hour": 10_000}),
        ),
    )
    addresses = list(each_state(local_world).values())
    with serving(public_app(local_world.newsroom)) as url, requests.Session() as browser:
        stamp = stamp_in(browser.get(f"{url}/subscribe", timeout=60).text)
        local_world.clock.at += LATER
        spread = []
        for _ in range(3):
            medians = medians_of(browser, url, stamp, addresses)
            spread.append(max(medians) / min(medians))
            if spread[-1] < 1.1:
                break
    assert min(spread) < 1.1, spread


def test_an_active_reader_is_told_so_by_mail_and_by_nothing_else(world: World, site: str) -> None:
    world.subscribe("ada")
    fill_in(world, site, ADA)
    assert len(mails(world)) == 1
    with world.database.read() as session:
        assert [each.kind for each in session.exec(select(MailRow))] == ["known"]
        assert session.exec(select(Consent)).all() == []


def test_an_address_gets_one_such_mail_a_day_and_three_in_a_month(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PER_NETWORK", 1_000)
    sent = []
    with serving(public_app(world.newsroom)) as site:
        for _ in range(57):
            assert fill_in(world, site, ADA).status_code == 200
            sent.append(len(mails(world)))
            world.clock.at += timedelta(hours=13)
    assert sent[:5] == [1, 0, 1, 0, 1]
    month = int(30 * 24 / 13)
    assert (sum(sent[:month]), sum(sent)) == (3, 4)


def test_so_many_sign_ups_come_from_one_network_and_no_more(world: World, site: str) -> None:
    answers = [fill_in(world, site, f"reader{number}@example.com").status_code for number in range(7)]
    assert answers == [200] * 5 + [429] * 2


def test_whoever_fills_in_what_nobody_sees_is_answered_and_not_kept(world: World, site: str) -> None:
    answer = fill_in(world, site, ADA, website="https://spam.example")
    assert answer.content == fill_in(world, site, "ben@example.com").content
    assert [address for _, address in mails(world)] == ["ben@example.com"]


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(hours=25)])
def test_a_form_that_was_filled_in_at_once_or_lay_open_for_days_is_asked_for_once_more(
    world: World, site: str, wait: timedelta
) -> None:
    stamp = stamp_in(requests.get(f"{site}/subscribe", timeout=60).text)
    world.clock.at += wait
    again = requests.post(f"{site}/subscribe", {"email": ADA, "stamp": stamp}, timeout=60)
    assert "One more click" in again.text
    assert f'value="{ADA}"' in again.text
    assert mails(world) == []
    world.clock.at += LATER
    requests.post(f"{site}/subscribe", {"email": ADA, "stamp": stamp_in(again.text)}, timeout=60)
    assert len(mails(world)) == 1


def test_a_form_of_another_site_needs_one_click_more(site: str) -> None:
    page = requests.post(f"{site}/subscribe", {"email": ADA, "form": "snippet"}, timeout=60)
    assert "One more click" in page.text


@pytest.mark.parametrize("typed", ["", "ada", "ada@", "ada@example.com\r\nBcc: x@example.com", "a" * 400, "<script>"])
def test_what_is_no_address_is_said_and_asked_for_again(world: World, site: str, typed: str) -> None:
    answer = fill_in(world, site, typed)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert "<script>" not in answer.text
    assert mails(world) == []


def test_a_program_signs_up_by_json_with_the_stamp_that_it_is_given(world: World, site: str) -> None:
    first = requests.post(f"{site}/subscribe", json={"email": ADA}, timeout=60)
    assert first.status_code == 422
    world.clock.at += LATER
    second = requests.post(f"{site}/subscribe", json={"email": ADA, "stamp": first.json()["stamp"]}, timeout=60)
    assert second.json()["ok"] is True
    assert len(mails(world)) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"email": 3}', b'{"email": ["a"]}'])
def test_whatever_is_no_object_of_json_is_refused(site: str, body: bytes) -> None:
    answer = requests.post(f"{site}/subscribe", body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code in (400, 413, 422)


def test_whoever_never_confirms_is_forgotten_after_a_month(world: World, site: str) -> None:
    fill_in(world, site, ADA)
    mails(world)
    world.subscribe("ben")
    world.clock.at += timedelta(days=29)
    assert admit.forget_unconfirmed(world.newsroom) == 0
    world.clock.at += timedelta(days=2)
    assert admit.forget_unconfirmed(world.newsroom) == 1
    with world.database.read() as session:
        assert [each.key for each in session.exec(select(Subscriber))] == ["ben@example.com"]
        for table in (Consent, Change, MailRow, Label):
            assert session.exec(select(table)).all() == []


def queued(world: World) -> MailRow:
    """A confirmation that is due."""
    fill_in_without_a_form(world)
    admit.admit_all(world.newsroom)
    return only_mail(world)


def fill_in_without_a_form(world: World) -> None:
    asked = Asked(roll.normalise(ADA), "page", admit.wording(world.newsroom), Proof())
    admit.keep(world.newsroom, asked)


def only_mail(world: World) -> MailRow:
    with world.database.read() as session:
        return session.exec(select(MailRow)).one()


def fail_with(*errors: Exception) -> FakeProvider:
    """A provider that takes what comes after so many failures; a failure may come after it took it."""
    left = list(errors)

    def before(_parcel: Parcel) -> None:
        if left:
            raise left.pop(0)

    return FakeProvider(before=before)


def send(world: World, provider: FakeProvider) -> MailRow:
    mail.send_due(world.with_provider(provider))
    return only_mail(world)


def test_a_mail_that_was_surely_not_taken_is_tried_again_later_and_later(world: World) -> None:
    queued(world)
    provider = fail_with(*[NotProcessed("busy")] * 3)
    waits = []
    for _ in range(3):
        row = send(world, provider)
        waits.append(row.due_at - world.clock.at)
        assert send(world, provider).attempts == row.attempts
        world.clock.at = row.due_at
    assert send(world, provider).state == MailState.SENT
    assert waits == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]


def test_a_provider_that_says_when_is_asked_again_then(world: World) -> None:
    queued(world)
    row = send(world, fail_with(NotProcessed("busy", timedelta(seconds=40))))
    assert row.due_at - world.clock.at == timedelta(seconds=40)


def test_a_mail_is_given_up_in_the_end(world: World) -> None:
    queued(world)
    provider = fail_with(*[NotProcessed("busy")] * 20)
    for _ in range(20):
        world.clock.at = max(world.clock.at, send(world, provider).due_at)
    row = only_mail(world)
    assert (row.state, row.attempts, row.trouble) == (MailState.FAILED, 12, "given up after 12 times: busy")


def test_a_mail_that_nobody_can_tell_of_is_not_sent_twice(world: World) -> None:
    queued(world)
    provider = fail_with(Unclear("the line broke"))
    assert send(world, provider).state == MailState.UNKNOWN
    world.clock.at += timedelta(days=1)
    assert send(world, provider).state == MailState.UNKNOWN
    assert provider.parcels == []


def test_under_a_key_it_is_asked_for_again_with_the_same_bytes(world: World) -> None:
    queued(world)
    lost = [Unclear("the line broke")]

    def after(_parcel: Parcel) -> None:
        if lost:
            raise lost.pop()

    provider = FakeProvider(key_lifetime=timedelta(days=1), after=after)
    world.clock.at = send(world, provider).due_at
    assert send(world, provider).state == MailState.SENT
    first, second = provider.parcels
    assert first == second


@pytest.mark.parametrize("honours_keys", [True, False])
def test_what_a_sender_left_behind_is_decided_by_the_next(world: World, *, honours_keys: bool) -> None:
    queued(world)

    def die(_parcel: Parcel) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(world, FakeProvider(after=die))
    provider = FakeProvider(key_lifetime=timedelta(days=1) if honours_keys else None)
    assert send(world, provider).state == MailState.SENDING
    world.clock.at += mail.GIVEN_UP_AFTER
    row = send(world, provider)
    assert row.state == (MailState.QUEUED if honours_keys else MailState.UNKNOWN)
    world.clock.at += timedelta(hours=1)
    assert send(world, provider).state == (MailState.SENT if honours_keys else MailState.UNKNOWN)
    assert len(provider.parcels) == honours_keys


def test_a_refused_account_holds_up_the_mails_and_loses_none(world: World) -> None:
    queued(world)
    provider = fail_with(AccountRefused("the key is wrong"))
    with pytest.raises(AccountRefused):
        send(world, provider)
    assert only_mail(world).state == MailState.QUEUED
    world.clock.at += mail.ACCOUNT_MENDED_IN
    assert send(world, provider).state == MailState.SENT


def test_a_mail_that_is_refused_is_written_down_without_its_address(world: World) -> None:
    queued(world)
    row = send(world, fail_with(CallRefused(f"{ADA} is not allowed")))
    assert row.state == MailState.FAILED
    assert ADA not in row.trouble


def test_whoever_leaves_or_confirms_before_a_mail_goes_gets_none(world: World) -> None:
    queued(world)
    with world.database.write() as session:
        session.exec(select(Subscriber)).one().state = State.ACTIVE
    assert send(world, provider := FakeProvider()).state == MailState.FAILED
    assert provider.parcels == []


def test_a_broken_template_is_told_and_its_mails_wait(world: World) -> None:
    queued(world)
    folder = world.folder / "templates"
    shutil.copytree(ROOT / "templates", folder)
    (folder / "mail" / "confirm.txt").write_text("Hello {{ nobody }}", "utf-8")
    config = replace(world.newsroom.config, templates=folder)
    with pytest.raises(ContentError, match=r"confirm.txt:1"):
        mail.send_due(replace(world.newsroom, config=config))
    assert only_mail(world).state == MailState.QUEUED
    (folder / "mail" / "confirm.txt").write_text("Hello", "utf-8")
    world.clock.at += mail.ACCOUNT_MENDED_IN
    with pytest.raises(ContentError, match="Subject"):
        mail.send_due(replace(world.newsroom, config=config))


def test_a_mail_says_that_a_machine_wrote_it_and_is_no_newsletter(world: World) -> None:
    queued(world)
    folder = world.folder / "outbox"
    mail.send_due(replace(world.newsroom, provider=build(Options(name="outbox", path=folder), Secrets({}), world.folder)))
    (path,) = folder.rglob("*.eml")
    written = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    assert isinstance(written, EmailMessage)
    assert written["Auto-Submitted"] == "auto-generated"
    assert written["Subject"] == "Confirm your sign-up to The Test Five"
    assert written["To"] == ADA
    assert not [name for name in written if name.startswith("List-")]
    text, html = (written.get_body((kind,)) for kind in ("plain", "html"))
    assert text
    assert html
    links = re.findall(r"https://news.example.com/c/[\w.-]+", text.get_content())
    assert len(links) == 1
    assert links[0] in html.get_content()
    assert ADA not in text.get_content() + html.get_content()
    assert links[0] == f"https://news.example.com{link_of(world)}"


def choose(world: World, site: str, **wishes: object) -> requests.Response:
    return requests.post(f"{site}/p/{person(world).token}", wishes, timeout=60)


def test_a_reader_chooses_topics_a_pause_and_a_time_zone(world: World) -> None:
    config = replace(world.newsroom.config, topics={"policy": "Policy and law", "chips": "Chips"})
    newsroom = replace(world.newsroom, config=config)
    world.subscribe("ada")
    with serving(public_app(newsroom)) as site:
        page = requests.get(f"{site}/p/{person(world).token}", timeout=60).text
        assert "Policy and law" in page
        assert ADA not in page
        saved = choose(world, site, topics=["policy", "unheard-of"], zone="Asia/Tokyo", pause="2")
        assert "Saved." in saved.text
        assert "No issue is sent to you before" in saved.text
        ada = person(world)
        assert (ada.zone, ada.paused_until) == ("Asia/Tokyo", world.clock.at + timedelta(weeks=2))
        choose(world, site, topics=["chips"], zone="Asia/Tokyo", pause="")
        assert person(world).paused_until == ada.paused_until
        choose(world, site, zone="Asia/Tokyo", pause="0")
        assert person(world).paused_until is None
    with world.database.read() as session:
        assert session.exec(select(Label)).all() == []
        happened = [(each.what, each.detail) for each in history.of(session, ada.id or 0)]
    assert happened == [
        ("edited", {"topics": "policy"}), ("edited", {"zone": "Asia/Tokyo"}), ("paused", {"until": "2026-12-11"}),
        ("edited", {"topics": "chips"}), ("edited", {"topics": ""}), ("goes on", {}),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"zone": "Mars/Olympus"}, {"language": "tlh"}, {"pause": "-1"}, {"pause": "x"}])
def test_a_wish_that_is_not_on_offer_is_refused_and_nothing_changes(world: World, site: str, wrong: dict[str, str]) -> None:
    world.subscribe("ada")
    answer = choose(world, site, **wrong)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert (person(world).zone, person(world).paused_until) == ("", None)


@pytest.mark.parametrize("page", ["p", "u", "c"])
@pytest.mark.parametrize("token", ["x", "A" * 22, "%00", "A" * 199])
def test_a_token_that_there_is_not_says_nothing(site: str, page: str, token: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        assert requests.request(method, f"{site}/{page}/{token}", timeout=60).status_code == 404


@pytest.mark.parametrize("files", [None, {"List-Unsubscribe": (None, "One-Click")}])
def test_one_click_takes_forms_of_both_kinds_without_cookie_or_redirect(
    world: World, site: str, files: dict[str, tuple[None, str]] | None
) -> None:
    world.subscribe("ada")
    data = None if files else {"List-Unsubscribe": "One-Click"}
    answer = requests.post(f"{site}/u/{person(world).token}", data=data, files=files, timeout=60, allow_redirects=False)
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert person(world).state == State.UNSUBSCRIBED


@pytest.mark.parametrize("change", [{"reader_time": True}, {"extra": (FRIDAY.date() - timedelta(days=2),)}])
def test_who_signs_up_is_promised_the_day_of_the_week_and_told_of_the_next_issue_by_its_day(
    local_world: World, change: dict[str, Any]
) -> None:
    local_world.clock.at = FRIDAY - timedelta(days=1)
    timetable = local_world.newsroom.config.timetable.model_copy(update=change)
    newsroom = replace(local_world.newsroom, config=replace(local_world.newsroom.config, timetable=timetable))
    assert "every Friday" in admit.wording(newsroom)
    with local_world.database.write() as session:
        roll.add(session, ADA, local_world.clock())
        found = roll.by_key(session, ADA)
        assert found
    assert "Friday, 27 November 2026" in mail.rendered_for(newsroom, "welcome", found, {}).text
    local_world.tell_a_week()
    with suppress(DecisionNeeded):
        route.publish(newsroom, newsroom.schedule.current(newsroom.now()), anyway=True)
    # Whoever comes after the enrolment gets the next one.
    assert "Friday, 4 December 2026" in mail.rendered_for(newsroom, "welcome", found, {}).text
