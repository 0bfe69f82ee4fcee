"""The front door: what a sign-up form sends in is kept, answered by mail, and confirmed by the person."""

import calendar
import logging
from datetime import timedelta
from pathlib import Path

from jinja2 import TemplateError
from sqlmodel import Session

from pipeline import mail
from pipeline.errors import ContentError
from pipeline.newsroom import Newsroom
from pipeline.render import environment, template_problem
from subscribers import consent, links
from subscribers.consent import Answer, Asked, Confirmed, Proof
from subscribers.models import Subscriber

AT_A_TIME = 100
# Whatever is entered in forms, an address gets no more mails than these for it.
DAY, MONTH = timedelta(hours=24), timedelta(days=30)
MOST_A_DAY, MOST_A_MONTH = 1, 3
ANSWERS = tuple(each.value for each in Answer)

log = logging.getLogger(__name__)


def wording(newsroom: Newsroom) -> str:
    """What a person agrees to by signing up: the text beside every form, which is kept as evidence.

    Raises:
        ContentError: its template is missing or broken.
    """
    folder = newsroom.config.templates / "web"
    weekday = calendar.day_name[newsroom.schedule.weekday]
    return " ".join(_fill(folder, "wording.txt", {"masthead": newsroom.masthead, "weekday": weekday}).split())


def _fill(folder: Path, name: str, values: dict[str, object]) -> str:
    try:
        return environment(folder, autoescape=name.endswith(".html")).get_template(name).render(values)
    except (TemplateError, OSError, UnicodeDecodeError) as error:
        raise ContentError([template_problem(folder, name, error)]) from error


def snippet(newsroom: Newsroom) -> str:
    """The sign-up form for other sites: one piece of HTML without scripts. It needs one click more, on a page of ours.

    Raises:
        ContentError: a template is missing or broken.
    """
    folder = newsroom.config.templates / "web"
    values = {"masthead": newsroom.masthead, "topics": newsroom.config.topics, "wording": wording(newsroom)}
    return _fill(folder, "snippet.html", values)


def keep(newsroom: Newsroom, asked: Asked) -> None:
    """Keep a sign-up. It is applied later, so that nothing can be told of the address from how long this takes."""
    with newsroom.database.write() as session:
        consent.keep(session, asked, newsroom.now())


def admit_all(newsroom: Newsroom) -> int:
    """Apply the sign-ups that wait, each by itself, and queue their mails; how many."""
    applied = 0
    while True:
        with newsroom.database.read() as session:
            waiting = consent.waiting(session, AT_A_TIME)
        for sign_up in waiting:
            with newsroom.database.write() as session:
                admitted = consent.admit(session, sign_up, newsroom.keys, newsroom.now())
                if admitted and admitted.answer and _may_be_written_to(newsroom, session, admitted.subscriber_id):
                    about = {"consent": str(admitted.consent_id)} if admitted.answer is Answer.CONFIRM else {}
                    mail.queue(session, admitted.answer.value, admitted.subscriber_id, newsroom.now(), about)
            applied += 1
        if len(waiting) < AT_A_TIME:
            return applied


def _may_be_written_to(newsroom: Newsroom, session: Session, subscriber_id: int) -> bool:
    now = newsroom.now()
    today = mail.queued_since(session, subscriber_id, ANSWERS, now - DAY)
    return today < MOST_A_DAY and mail.queued_since(session, subscriber_id, ANSWERS, now - MONTH) < MOST_A_MONTH


def look(newsroom: Newsroom, token: str) -> Confirmed:
    """What following a link that confirms would come to. Changes nothing."""
    number = newsroom.keys.read(links.CONFIRM, token)
    if not isinstance(number, int):
        return Confirmed.UNKNOWN
    with newsroom.database.read() as session:
        found = consent.find(session, number)
        return consent.stands(session, *found, newsroom.keys, newsroom.now()) if found else Confirmed.UNKNOWN


def confirm(newsroom: Newsroom, token: str, proof: Proof) -> tuple[Confirmed, Subscriber | None]:
    """Follow a link that confirms; whoever becomes a reader by it is welcomed by mail. A second time changes nothing."""
    number = newsroom.keys.read(links.CONFIRM, token)
    if not isinstance(number, int):
        return Confirmed.UNKNOWN, None
    with newsroom.database.write() as session:
        outcome, subscriber = consent.confirm(session, number, proof, newsroom.keys, newsroom.now())
        if outcome is Confirmed.WELCOME and subscriber and subscriber.id:
            mail.queue(session, "welcome", subscriber.id, newsroom.now())
    return outcome, subscriber


def forget_unconfirmed(newsroom: Newsroom) -> int:
    """Delete who asked a month ago and never confirmed; how many."""
    with newsroom.database.write() as session:
        gone = consent.forget_unconfirmed(session, newsroom.now())
    if gone:
        log.info("%s who never confirmed are forgotten", gone)
    return gone
