"""Programs that open every link of a mail change nothing: no scanner takes anybody off the roll, or puts anybody on it."""

import re
from dataclasses import replace
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import lxml.html
import pytest
import requests
from sqlmodel import SQLModel

from pipeline import admit, mail
from pipeline import publish as route
from pipeline.config import Secrets
from pipeline.providers.outbox import Options, build
from pipeline.web.public import public_app
from subscribers import roll
from subscribers.consent import Asked, Proof
from tests.conftest import World
from tests.serving import serving

OURS = "https://news.example.com"


def everything(world: World) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with world.database.read() as session:
        return {
            name: sorted((tuple(row) for row in session.execute(table.select())), key=repr)
            for name, table in SQLModel.metadata.tables.items()
        }


def hrefs_of(html: str) -> list[str]:
    return [href for each in lxml.html.fromstring(html).iter() if (href := each.get("href"))]


def links_of(path: Path) -> set[str]:
    """Every address in a mail that leads to us, wherever it stands: headers, text, HTML."""
    whole = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    assert isinstance(whole, EmailMessage)
    text, html = whole.get_body(("plain",)), whole.get_body(("html",))
    assert text
    assert html
    hrefs = hrefs_of(html.get_content())
    written = re.findall(r"https?://[^\s<>\"]+", " ".join([str(whole["List-Unsubscribe"] or ""), text.get_content()]))
    return {each for each in (*hrefs, *written) if each.startswith(OURS)}


@pytest.mark.parametrize("agent", ["", "Mozilla/5.0 (compatible; SafeLinks)"])
def test_opening_every_link_of_every_mail_leaves_every_table_as_it_was(world: World, agent: str) -> None:
    folder = world.folder / "outbox"
    world.newsroom = replace(world.newsroom, provider=build(Options(name="outbox", path=folder), Secrets({}), world.folder))
    world.tell_a_week()
    world.subscribe("ada", "ben")
    for address in ("cleo@example.com", "ada@example.com", "dora@example.com"):
        admit.keep(world.newsroom, Asked(roll.normalise(address), "page", admit.wording(world.newsroom), Proof()))
    admit.admit_all(world.newsroom)
    mail.send_due(world.newsroom)
    admit.confirm(world.newsroom, world.newsroom.keys.sign("confirm", 2), Proof())
    mail.send_due(world.newsroom)
    route.publish(world.newsroom, world.slot)
    links = set().union(*map(links_of, folder.rglob("*.eml")))
    kinds = {re.sub(r"/[^/]*$", "", each.removeprefix(OURS)) for each in links}
    assert {"/u", "/p", "/c", "/issues"} <= kinds
    with serving(public_app(world.newsroom)) as site:
        before = everything(world)
        seen = set(links)
        while links:
            link = links.pop()
            for method in ("GET", "HEAD"):
                answer = requests.request(method, link.replace(OURS, site), headers={"User-Agent": agent}, timeout=60)
                assert answer.status_code == 200, link
            page = requests.get(link.replace(OURS, site), timeout=60)
            if page.headers["Content-Type"].startswith("text/html"):
                further = {OURS + each for each in hrefs_of(page.text) if each.startswith("/")}
                links |= further - seen
                seen |= further
        assert everything(world) == before
    assert len(seen) > len(kinds)
