"""config.toml and the newsroom that is built from it: every mistake at once with its path, and secrets that stay secret."""

import os
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from pipeline import config as config_file
from pipeline.config import Secrets
from pipeline.errors import ConfigError, Problem
from pipeline.issue import Story
from pipeline.newsroom import Newsroom, open_newsroom
from pipeline.providers import names
from pipeline.providers.outbox import Outbox
from pipeline.sources import Validators
from tests.conftest import CONFIG, FRIDAY, ROOT, write_feed

KEY = "FRIDAY_PROVIDER_KEY"
SECRET = "key-hunter2-not-to-be-seen"  # noqa: S105 - the canary
GOOD = CONFIG.format(database="sqlite:///friday.db", provider='name = "outbox"')
MAILGUN = CONFIG.format(database="sqlite:///friday.db", provider='name = "mailgun"\ndomain = "mg.example.com"')


def changed(*changes: tuple[str, str], text: str = GOOD) -> str:
    """A config with parts of it replaced; each part must be there."""
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    return text


def opened(folder: Path, text: str = GOOD, environment: Mapping[str, str] | None = None) -> Newsroom:
    (folder / "config.toml").write_text(text, "utf-8")
    return open_newsroom(folder / "config.toml", environment or {})


def problems(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> dict[str, Problem]:
    """The mistakes of a config by where they stand."""
    with pytest.raises(ConfigError) as caught:
        opened(folder, text, environment)
    found = {problem.where: problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


MISTAKES = {
    "newsletter.titel": ('tagline = "Five stories, every Friday."', 'tagline = "Five"\ntitel = "x"'),
    "newsletter.title": ('title = "The Test Five"', r'title = "Two\nlines"'),
    "newsletter.from": ('from = "friday@news.example.com"', 'from = "friday at example"'),
    "newsletter.postal_address": ('postal_address = "1 Test Street, 10115 Berlin"\n', 'stories = "five"\n'),
    "newsletter.stories": ("", ""),
    "newsletter.base_url": ('base_url = "https://', 'base_url = "http://'),
    "brand.accent": ("[schedule]", '[brand]\naccent = "red"\n\n[schedule]'),
    "brand.colour": ("[brand]\n", '[brand]\ncolour = "red"\n'),
    "schedule.timezone": ('timezone = "Europe/Berlin"', 'timezone = "Europe/Berlim"\ngrace_hours = -1\nweekday = "friday"'),
    "schedule.grace_hours": ("", ""),
    "schedule.weekday": ("", ""),
    "colours": ("[newsletter]", "colours = 3\n[newsletter]"),
    "provider.name": ('name = "outbox"', 'name = "pigeons"'),
    "sources[0].kind": ('kind = "feed"\nname = "Wire"', 'kind = "pigeon"\nname = "Wire"'),
    "sources[1].wieght": ('name = "Ledger"', 'name = "Ledger"\nwieght = 2'),
}


def test_every_mistake_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(*MISTAKES.values()))
    assert set(found) == set(MISTAKES)
    assert found["newsletter.titel"] == Problem("newsletter.titel", "unknown key", "did you mean title?")
    assert found["newsletter.title"].what.endswith("must be one line without control characters")
    assert "is not a mail address" in found["newsletter.from"].what
    assert found["newsletter.postal_address"].what == "is missing"
    assert "'five' input should be a valid integer" in found["newsletter.stories"].what
    assert "must begin with https://" in found["newsletter.base_url"].what
    assert found["brand.accent"].what == "'red' is not a colour such as #a3391a"
    assert found["schedule.timezone"].what == "'Europe/Berlim' is not a time zone; did you mean 'Europe/Berlin'?"
    assert "'friday'" in found["schedule.weekday"].what
    assert found["provider.name"] == Problem("provider.name", "'pigeons' is not a provider", f"there is {', '.join(names())}")
    assert found["sources[0].kind"] == Problem("sources[0].kind", "'pigeon' is not a kind of source", "there is feed")
    assert found["sources[1].wieght"].cure == "did you mean weight?"


def test_the_message_has_a_line_for_each_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, changed(*MISTAKES.values()))
    title, *lines = str(caught.value).splitlines()
    assert title == f"{tmp_path}/config.toml has {len(MISTAKES)} mistakes:"
    assert len(lines) == len(MISTAKES)
    assert "newsletter.titel: unknown key (did you mean title?)" in lines
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (('title = "The Test Five"', "title = 5"), "newsletter.title"),
        (('title = "The Test Five"', 'title = "  "'), "newsletter.title"),
        (('title = "The Test Five"', r'title = "A\u2028B"'), "newsletter.title"),
        (("[newsletter]", "[newsletter]\nstories = 0"), "newsletter.stories"),
        (("[newsletter]", "[newsletter]\nstories = 2\nfewest = 3"), "newsletter.fewest"),
        (("[newsletter]", '[newsletter]\naudience = "topic:"'), "newsletter.audience"),
        (("[newsletter]", "[newsletter]\naudience = 5"), "newsletter.audience"),
        (("[newsletter]", '[newsletter]\nlanguage = "German"'), "newsletter.language"),
        (("[newsletter]", '[newsletter]\nreply_to = "nobody"'), "newsletter.reply_to"),
        (('base_url = "https://news.example.com"', 'base_url = "news.example.com"'), "newsletter.base_url"),
        (('base_url = "https://news.example.com"', 'base_url = "https://[bad"'), "newsletter.base_url"),
        (('base_url = "https://news.example.com"', 'base_url = "https://news.example.com/letter"'), "newsletter.base_url"),
        (('base_url = "https://news.example.com"', 'base_url = "https://news.example.com?a=1"'), "newsletter.base_url"),
        (('base_url = "https://news.example.com"', 'base_url = "https://me:secret@news.example.com"'), "newsletter.base_url"),
        (('base_url = "https://news.example.com"', 'base_url = "https://news.example.com:port"'), "newsletter.base_url"),
        (('timezone = "Europe/Berlin"', "timezone = 1"), "schedule.timezone"),
        (('timezone = "Europe/Berlin"', ""), "schedule.timezone"),
        (("[schedule]", "[schedule]\nskip = ['soon']"), "schedule.skip[0]"),
        (("[schedule]", "[schedule]\nat = 'dawn'"), "schedule.at"),
        (("[schedule]", "[picking]\nevent = 'much'\n[schedule]"), "picking.event"),
        (("[schedule]", "[web]\nport = 70000\n[schedule]"), "web.port"),
        (("[schedule]", "[web]\ntrusted_proxies = ['10.0.0.1/8']\n[schedule]"), "web.trusted_proxies[0]"),
        (("[schedule]", "[web]\ntrusted_proxies = [7]\n[schedule]"), "web.trusted_proxies[0]"),
        (("[schedule]", "[languages]\nGerman = 'Deutsch'\n[schedule]"), "languages.German"),
        (("[schedule]", "[languages]\nde = ' '\n[schedule]"), "languages.de"),
        (("[schedule]", "[topics]\n'a b' = 'A and B'\n[schedule]"), "topics.a b"),
        (("[schedule]", "[brand]\nmark = 'ABC'\n[schedule]"), "brand.mark"),
        (("[schedule]", "[brand]\ntemplate = '../weekly'\n[schedule]"), "brand.template"),
        (("[schedule]", "[brand]\ntemplate = 'monthly'\n[schedule]"), "brand.template"),
        (('name = "outbox"', 'name = "outbox"\nbatch_size = 0'), "provider.batch_size"),
        (('name = "outbox"', 'name = "outbox"\ndomain = "x"'), "provider.domain"),
        (('url = "sqlite:///friday.db"', 'url = "nonsense"'), "database.url"),
        (('url = "sqlite:///friday.db"', 'url = "oracel://somewhere/friday"'), "database.url"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_by_its_path_alone(tmp_path: Path, change: tuple[str, str], where: str) -> None:
    assert list(problems(tmp_path, changed(change))) == [where]


def test_whole_tables_may_be_missing_or_of_the_wrong_type(tmp_path: Path) -> None:
    assert set(problems(tmp_path, "")) == {"newsletter", "schedule", "folders.terms", "folders.templates"}
    assert set(problems(tmp_path, "newsletter = 3\nprovider = 4\nsources = 5\n")) == {
        "newsletter", "schedule", "provider", "provider.name", "sources", "folders.terms", "folders.templates",
    }  # fmt: skip


def test_an_extra_slot_within_the_grace_of_another_is_refused(tmp_path: Path) -> None:
    close = "[schedule]\nextra = [2026-11-28]\ngrace_hours = 30"
    assert problems(tmp_path, changed(("[schedule]", close)))["schedule.extra"] == Problem(
        "schedule.extra",
        "the slot of 2026-11-28 opens while that of 2026-11-27 is due, which leaves that one no time",
        "name a day further away, or fewer grace_hours",
    )
    assert opened(tmp_path, changed(("[schedule]", close.replace("30", "6")))).schedule.grace == timedelta(hours=6)


def test_an_unknown_key_like_no_other_is_answered_with_all_that_there_are(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(("[schedule]", "[schedule]\nzzz = 1")))
    assert found["schedule.zzz"].cure == (
        "known are at, collect_every_hours, draft_before_hours, extra, grace_hours, reader_time, remind_before_hours, skip, "
        "timezone, unapproved, weekday"
    )


@pytest.mark.parametrize(
    ("table", "key", "meant"), [("picking", "evnt", "event"), ("web", "prot", "port"), ("folders", "term", "terms")]
)
def test_a_misspelled_key_is_answered_with_the_one_that_was_meant_in_every_table(
    tmp_path: Path, table: str, key: str, meant: str
) -> None:
    text = (
        changed(("[folders]", "[folders]\nterm = 1"))
        if table == "folders"
        else changed(("[schedule]", f"[{table}]\n{key} = 1\n[schedule]"))
    )
    assert problems(tmp_path, text)[f"{table}.{key}"] == Problem(f"{table}.{key}", "unknown key", f"did you mean {meant}?")


@pytest.mark.parametrize("places", ["", "host = 'imap.example.com'\nmaildir = 'box'\n"])
def test_a_mailbox_in_no_place_or_in_two_is_told_beside_the_other_mistakes(tmp_path: Path, places: str) -> None:
    box = f"[mailbox]\naddress = 'bounces@news.example.com'\n{places}[schedule]\nzzz = 1"
    found = problems(tmp_path, changed(("[schedule]", box)))
    assert set(found) == {"mailbox", "schedule.zzz"}
    assert found["mailbox"] == Problem("mailbox", "is read from a maildir or from a host: name one of them")


def test_points_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for line in ("alike = 2", "alike = 0", "per_source = 0", "runners_up = -1"):
        (problem,) = problems(tmp_path, changed(("[schedule]", f"[picking]\n{line}\n[schedule]"))).values()
        assert problem.where.startswith("picking")
        assert line.split(" ")[0] in str(problem)


def test_a_template_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(("[schedule]", "[brand]\ntemplate = 'monthly'\n[schedule]")))
    assert found["brand.template"] == Problem("brand.template", "'monthly' is not a template", "there is weekly")


def test_a_folder_without_templates_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = problems(tmp_path, changed((f'templates = "{ROOT}/templates"', 'templates = "empty"')))
    assert found["brand.template"].cure == f"{tmp_path}/empty/issue has none"


def test_folders_that_are_not_there_are_each_named(tmp_path: Path) -> None:
    lost = (f'terms = "{ROOT}/terms"', 'terms = "words"'), (f'templates = "{ROOT}/templates"', 'templates = "looks"')
    found = problems(tmp_path, changed(*lost))
    assert {where: problem.what for where, problem in found.items()} == {
        "folders.terms": f"there is no folder {tmp_path}/words",
        "folders.templates": f"there is no folder {tmp_path}/looks",
    }


def test_a_missing_template_is_told_beside_the_other_mistakes(tmp_path: Path) -> None:
    text = changed(("[schedule]", "[brand]\ntemplate = 'monthly'\naccent = 'red'\n[schedule]"), ('"outbox"', '"pigeons"'))
    assert set(problems(tmp_path, text)) == {"brand.template", "brand.accent", "provider.name"}


def test_a_batch_larger_than_a_provider_takes_is_refused(tmp_path: Path) -> None:
    text = changed(("domain", "batch_size = 1001\ndomain"), text=MAILGUN)
    found = problems(tmp_path, text, {KEY: SECRET})
    assert list(found) == ["provider.batch_size"]
    assert re.search(r"1001 .*1,?000", found["provider.batch_size"].what)
    assert opened(tmp_path, text.replace("1001", "1000"), {KEY: SECRET}).provider.limits.copies == 1000


def test_that_is_told_beside_a_missing_secret(tmp_path: Path) -> None:
    text = changed(("domain", "batch_size = 1001\ndomain"), text=MAILGUN)
    assert set(problems(tmp_path, text)) == {"provider.batch_size", KEY}


def test_a_missing_secret_is_named_with_both_ways_to_give_it(tmp_path: Path) -> None:
    for environment in ({}, {KEY: ""}, {KEY: "  \n"}):
        assert problems(tmp_path, MAILGUN, environment) == {
            KEY: Problem(KEY, "is not set, and mailgun needs it", f"export it, or name a file in {KEY}_FILE")
        }


def test_it_is_told_beside_the_mistakes_of_the_file(tmp_path: Path) -> None:
    text = changed(("domain", "domian"), ('title = "The Test Five"', "title = 5"), text=MAILGUN)
    assert set(problems(tmp_path, text)) == {"newsletter.title", "provider.domian", "provider.domain", KEY}


def test_a_secret_comes_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    assert Secrets({KEY: f" {SECRET}\n"}).get(KEY) == SECRET
    assert Secrets({f"{KEY}_FILE": str(tmp_path / "key")}).get(KEY) == SECRET
    assert Secrets({f"{KEY}_FILE": str(tmp_path / "key"), KEY: "another"}).get(KEY) == SECRET
    assert Secrets({}).get(KEY) is None


def test_a_newsroom_opens_with_a_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    newsroom = opened(tmp_path, MAILGUN, {f"{KEY}_FILE": str(tmp_path / "key")})
    assert b64decode(cast("Any", newsroom.provider).authorization.split()[1]).decode() == f"api:{SECRET}"


def test_an_empty_secret_file_is_a_missing_secret(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    assert set(problems(tmp_path, MAILGUN, {f"{KEY}_FILE": str(tmp_path / "key")})) == {KEY}


def test_a_secret_file_that_cannot_be_read_is_named_beside_the_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9\xe9")
    text = changed(('title = "The Test Five"', "title = 5"), text=MAILGUN)
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "latin"):
        found = problems(tmp_path, text, {f"{KEY}_FILE": str(path)})
        assert set(found) == {"newsletter.title", f"{KEY}_FILE"}
        assert found[f"{KEY}_FILE"].what.startswith(f"{path} cannot be read")


def test_a_secret_stands_in_no_repr(tmp_path: Path) -> None:
    newsroom = opened(tmp_path, MAILGUN, {KEY: SECRET})
    for value in (newsroom, newsroom.config, newsroom.config.secrets, newsroom.provider):
        assert SECRET not in repr(value)
        assert SECRET not in str(value)


def test_nor_in_the_message_of_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, changed(("mg.example.com", "no domain"), text=MAILGUN), {KEY: SECRET})
    assert SECRET not in str(caught.value)


def test_the_password_of_a_database_stands_in_no_repr(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://friday:{SECRET}@db.example.com/friday"
    newsroom = opened(tmp_path, changed(("sqlite:///friday.db", url)))
    assert newsroom.database.url == url
    for value in (newsroom, newsroom.config, newsroom.database):
        assert SECRET not in repr(value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[newsletter\n", "is not TOML: "),
        (b"title = 'a'\ntitle = 'b'\n", "is not TOML: "),
        (b"title = '\xe9'\n", "cannot be read: "),
    ],
)
def test_a_file_that_is_not_toml_is_named_with_the_place(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        open_newsroom(tmp_path / "config.toml", {})
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "config.toml")
    assert problem.what.startswith(what)
    assert re.search(r"line \d|position \d", problem.what)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_newsroom(tmp_path / "none.toml", {})
    assert caught.value.problems == (Problem(f"{tmp_path}/none.toml", "there is no such file", "name one by --config"),)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_newsroom(tmp_path, {})


def test_the_file_is_the_one_named_else_that_of_the_environment_else_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"FRIDAY_CONFIG": "/etc/friday.toml"}
    assert config_file.find(Path("/named.toml"), environment) == Path("/named.toml")
    assert config_file.find(None, environment) == Path("/etc/friday.toml")
    assert config_file.find(None, {"FRIDAY_CONFIG": "sub/friday.toml"}) == tmp_path / "sub/friday.toml"
    assert config_file.find(None, {}) == tmp_path / "config.toml"
    monkeypatch.setenv("FRIDAY_CONFIG", "/from/the/process.toml")
    assert config_file.find(None) == Path("/from/the/process.toml")


def test_a_newsroom_opens_by_the_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(GOOD, "utf-8")
    assert open_newsroom(None, {"FRIDAY_CONFIG": f"{tmp_path}/config.toml"}).masthead.title == "The Test Five"


def test_relative_paths_are_relative_to_the_file_and_not_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (here / "looks").symlink_to(ROOT / "templates")
    (here / "words").symlink_to(ROOT / "terms")
    monkeypatch.chdir(elsewhere)
    folders = (f'terms = "{ROOT}/terms"', 'terms = "words"'), (f'templates = "{ROOT}/templates"', 'templates = "looks"')
    newsroom = opened(here, changed(*folders, ('name = "outbox"', 'name = "outbox"\npath = "out"')))
    assert newsroom.database.url == f"sqlite:///{here}/friday.db"
    assert newsroom.config.terms == here / "words"
    assert newsroom.templates == here / "looks/issue/weekly"
    write_feed(here / "wire.json", Story("https://wire.example/a", "A", "Wire", FRIDAY))
    wire, _ = newsroom.sources
    assert [story.title for story in wire.collect(Validators(), FRIDAY).stories] == ["A"]
    assert isinstance(newsroom.provider, Outbox)
    assert newsroom.provider.path == here / "out"
    relative = open_newsroom(Path("../here/config.toml"), {})
    assert Path(relative.database.url.removeprefix("sqlite:///")).resolve() == here / "friday.db"


@pytest.mark.parametrize("name", ["News #1", "What now?", "100%20 percent", "a b"])
def test_the_database_lies_beside_the_config_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert opened(tmp_path / name, GOOD).database.path == tmp_path / name / "friday.db"


@pytest.mark.parametrize("url", ["sqlite:////var/lib/friday.db", "postgresql+psycopg://db.example.com/friday"])
def test_an_absolute_database_stays_where_it_is(tmp_path: Path, url: str) -> None:
    assert opened(tmp_path, changed(("sqlite:///friday.db", url))).database.url == url


def test_nothing_is_written_by_reading(tmp_path: Path) -> None:
    newsroom = opened(tmp_path)
    assert newsroom.database.revision is None
    assert newsroom.masthead.title == "The Test Five"
    assert os.listdir(tmp_path) == ["config.toml"]  # noqa: PTH208 - hidden files too, as they are
    assert (tmp_path / "config.toml").read_text("utf-8") == GOOD


def test_a_config_cannot_be_changed_once_it_is_read(tmp_path: Path) -> None:
    newsroom = opened(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        newsroom.config.newsletter.title = "Another"


def test_what_is_left_out_has_its_documented_value(tmp_path: Path) -> None:
    newsroom = opened(tmp_path)
    assert newsroom.masthead.sender_name == "The Test Five"
    assert newsroom.masthead.reply_to == "friday@news.example.com"
    assert newsroom.masthead.signup_url == "https://news.example.com/"
    assert newsroom.masthead.language == "en"
    assert newsroom.config.newsletter.stories == 5
    assert (newsroom.schedule.weekday, newsroom.schedule.at) == (4, time(9))
    assert newsroom.schedule.grace == timedelta(hours=6)
    assert isinstance(newsroom.provider, Outbox)


def test_what_is_written_counts(tmp_path: Path) -> None:
    schedule = "[schedule]\nweekday = 'mon'\nat = 07:30:00\nskip = [2026-12-28]\ngrace_hours = 1.5"
    picking = "[picking]\nper_source = 3\n\n" + schedule
    text = changed(("[schedule]", picking), ('name = "Ledger"', 'name = "Ledger"\nweight = 2.5'))
    newsroom = opened(tmp_path, text)
    assert (newsroom.schedule.weekday, newsroom.schedule.at) == (0, time(7, 30))
    assert newsroom.schedule.skipped == {date(2026, 12, 28)}
    assert newsroom.schedule.grace == timedelta(hours=1.5)
    assert newsroom.config.picking.per_source == 3
    assert {source.name: source.weight for source in newsroom.sources} == {"Wire": 1.0, "Ledger": 2.5}


@pytest.mark.parametrize(
    "url", ["http://localhost:8010", "http://127.0.0.1:8010", "http://[::1]:8010/", "https://news.example.org/"]
)
def test_plain_http_is_for_this_machine_only_and_the_last_slash_goes(tmp_path: Path, url: str) -> None:
    assert opened(tmp_path, changed(("https://news.example.com", url))).masthead.base_url == url.rstrip("/")


@pytest.mark.parametrize("file", [ROOT / "config.toml", ROOT / "pipeline/sample/config.toml"], ids=["the root's", "the demo's"])
def test_the_configs_that_we_ship_have_no_mistakes(file: Path, tmp_path: Path) -> None:
    for folder in ("terms", "templates"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "config.toml").write_text(file.read_text("utf-8"), "utf-8")
    assert open_newsroom(tmp_path / "config.toml", {}).sources


def test_an_audience_that_is_no_segment_is_told_with_its_column(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(("[newsletter]", '[newsletter]\naudience = "tag:vip and topicc:x"'))).values()
    assert problem.what == "column 13: `topicc` is not a field; did you mean topic?"
    assert problem.cure == "`friday subscribers count` tries a segment"


def test_everybody_is_the_audience_where_none_is_named(tmp_path: Path) -> None:
    assert opened(tmp_path, changed()).audience is None
    assert opened(tmp_path, changed(("[newsletter]", '[newsletter]\naudience = " "'))).audience is None
    assert opened(tmp_path, changed(("[newsletter]", '[newsletter]\naudience = "tag:vip"'))).audience is not None
