"""The command `friday` as people and scripts hold it: verbs, exit codes, what is printed where, and what is left alone."""

import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipeline import publish as route
from pipeline.cli.common import Progress
from pipeline.cli.route import stopping_at_signals
from pipeline.collect import collect
from pipeline.errors import UsageError
from pipeline.issue import Story
from pipeline.newsroom import open_newsroom
from pipeline.schedule import WEEKDAYS
from subscribers import roll
from subscribers.models import Why
from tests.conftest import CONFIG, ROOT, WEEK, write_feed
from tests.fake_http import OK, Call, FakeHttp, Reply, fake_http

pytestmark = pytest.mark.slow

TERM = """---
term: GPU
topic: Chips
---

A chip for many sums at once.

## Why it matters

It sets the pace.

## In practice

People rent it.
"""
HEAVY = {"sqlmodel", "sqlalchemy", "requests", "jinja2", "premailer", "feedparser", "fastapi", "alembic", "pydantic", "lxml"}


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Office:
    """A newsletter in a folder of its own, half way between two of its slots."""

    folder: Path
    last: str
    next: str

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    def friday(self, *words: str, **environment: str) -> Run:
        """Run one command."""
        (run,) = self.at_once(words, **environment)
        return run

    def at_once(self, *commands: tuple[str, ...], **environment: str) -> list[Run]:
        """Run commands that do not depend on each other, each in a process of its own."""
        started = [start(["-m", "pipeline", "--config", str(self.config), *words], environment) for words in commands]
        return [finish(each) for each in started]

    def edit(self, before: str, after: str) -> None:
        """Change the config."""
        text = self.config.read_text("utf-8")
        assert before in text
        self.config.write_text(text.replace(before, after), "utf-8")

    def files(self) -> dict[str, bytes]:
        """Every file with its bytes."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def copy(self, folder: Path) -> "Office":
        shutil.copytree(self.folder, folder)
        return Office(folder, self.last, self.next)

    def mails(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*.eml"))


def start(words: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FRIDAY_")}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**ours, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Run:
    out, err = process.communicate(timeout=300)
    return Run(process.returncode, out, err)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """An office with stories in the inbox and people on the roll, made once and only ever copied."""
    folder = tmp_path_factory.mktemp("office")
    now = datetime.now(UTC)
    # The slot is always three days ahead, so that no time of day makes it due while the tests run.
    day = now.astimezone(ZoneInfo("Europe/Berlin")).date() + timedelta(days=3)
    config = CONFIG.format(database="sqlite:///friday.db", provider='name = "outbox"')
    config = config.replace("[schedule]", f'[schedule]\nweekday = "{WEEKDAYS[day.weekday()]}"')
    (folder / "config.toml").write_text(config.replace(f'terms = "{ROOT}/terms"', 'terms = "terms"'), "utf-8")
    (folder / "terms").mkdir()
    (folder / "terms/gpu.md").write_text(TERM, "utf-8")
    stories = [
        Story(f"https://wire.example/{place}", title, "Wire", now - timedelta(hours=1 + place), summary)
        for place, (title, summary) in enumerate(WEEK)
    ]
    write_feed(folder / "wire.json", *stories)
    write_feed(folder / "ledger.json")
    newsroom = open_newsroom(folder / "config.toml", {})
    newsroom.database.migrate()
    collect(newsroom)
    with newsroom.database.write() as session:
        for name in ("ada", "ben", "cleo", "dora"):
            roll.add(session, f"{name}@example.com", now)
        for name in ("cleo", "zoe"):
            roll.suppress(session, f"{name}@example.com", Why.COMPLAINT, now)
        roll.unsubscribe(session, "dora@example.com", now)
    newsroom.database.engine.dispose()
    return Office(folder, (day - timedelta(days=7)).isoformat(), day.isoformat())


@pytest.fixture
def office(furnished: Office, tmp_path: Path) -> Office:
    """A copy of the furnished office."""
    return furnished.copy(tmp_path / "office")


def test_help_answers_at_once() -> None:
    process = start(["-m", "pipeline", "--help"], {})
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out, process.stderr as err:
        text = out.read()
        assert err.read() == ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert "A newsletter that writes its own Friday." in text
    for verb in ("check", "collect", "draft", "preview", "approve", "reopen", "publish", "report", "resolve", "subscribers"):
        assert verb in text
    assert usage.ru_utime + usage.ru_stime < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["friday", "--help"]
from pipeline.cli import main
try:
    main()
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""
    run = finish(start(["-c", code], {}))
    loaded = {name.partition(".")[0] for name in run.err.split()}
    assert "typer" in loaded
    assert loaded & HEAVY == set()


@dataclass(frozen=True)
class Scene:
    """A command that was run once in an office of its own, and what the office held before."""

    office: Office
    before: dict[str, bytes]
    run: Run

    @property
    def left_alone(self) -> bool:
        return self.office.files() == self.before


def mistaken_config(office: Office) -> None:
    office.edit('title = "The Test Five"', 'titel = "The Test Five"')
    office.edit("Europe/Berlin", "Europe/Berlim")
    office.edit('name = "outbox"', 'name = "mailgun"\ndomain = "mg.example.com"')
    office.edit('kind = "feed"\nname = "Ledger"', 'kind = "pigeon"\nname = "Ledger"')
    no_database(office)


def broken_term(office: Office) -> None:
    (office.folder / "terms/gpu.md").write_text(TERM.replace("topic: Chips", "topic: Chips\ntopik: Chips"), "utf-8")


def broken_template(office: Office) -> None:
    shutil.copytree(ROOT / "templates", office.folder / "templates")
    office.edit(f'templates = "{ROOT}/templates"', 'templates = "templates"')
    path = office.folder / "templates/issue/weekly/issue.txt"
    path.write_text("first line\n{{ masthead.title }}\n{{ masthead.titel }}\n", "utf-8")


def no_database(office: Office) -> None:
    (office.folder / "friday.db").unlink()


def lost_source(office: Office) -> None:
    (office.folder / "ledger.json").unlink()


def as_it_is(_office: Office) -> None:
    """Change nothing."""


SCENES: dict[str, tuple[Callable[[Office], None], str]] = {
    "check": (as_it_is, "check"),
    "mistaken config": (mistaken_config, "publish --anyway"),
    "broken term": (broken_term, "check"),
    "broken template": (broken_template, "publish {next} --anyway"),
    "early": (as_it_is, "publish {next}"),
    "late": (as_it_is, "publish {last}"),
    "wrong day": (as_it_is, "draft {no_slot}"),
    "wrong verb": (as_it_is, "pubish"),
    "draft": (as_it_is, "draft --json"),
    "dry run": (as_it_is, "publish --dry-run"),
    "dry run for a script": (as_it_is, "publish --dry-run --anyway --json"),
    "draft without a database": (no_database, "draft"),
    "dry run without a database": (no_database, "publish --dry-run"),
    "lost source": (lost_source, "collect"),
}


@pytest.fixture(scope="module")
def scenes(furnished: Office, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """Each case that takes one command, two at a time, since starting Python is what takes the time."""
    no_slot = (date.fromisoformat(furnished.next) + timedelta(days=1)).isoformat()

    def play(name: str) -> Scene:
        change, command = SCENES[name]
        office = furnished.copy(tmp_path_factory.mktemp("scene") / "office")
        change(office)
        before = office.files()
        words = command.format(next=office.next, last=office.last, no_slot=no_slot).split()
        return Scene(office, before, office.friday(*words))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCENES, pool.map(play, SCENES), strict=True))


def test_check_finds_no_mistake_where_there_is_none(scenes: dict[str, Scene]) -> None:
    scene = scenes["check"]
    assert (scene.run.code, scene.run.err) == (0, "")
    assert scene.run.out.startswith(f"{scene.office.config}: no mistakes")
    assert scene.left_alone


def test_mistakes_in_the_config_exit_2_with_all_of_them_and_write_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["mistaken config"]
    assert (scene.run.code, scene.run.out) == (2, "")
    for mistake in (
        "newsletter.titel: unknown key (did you mean title?)",
        "newsletter.title: is missing",
        "schedule.timezone: 'Europe/Berlim' is not a time zone; did you mean 'Europe/Berlin'?",
        "sources[1].kind: 'pigeon' is not a kind of source (there is feed)",
        "FRIDAY_PROVIDER_KEY: is not set, and mailgun needs it",
    ):
        assert mistake in scene.run.err
    assert "Traceback" not in scene.run.err
    assert scene.left_alone


def test_a_broken_term_exits_3_with_file_and_line_and_writes_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["broken term"]
    assert (scene.run.code, scene.run.out) == (3, "")
    assert f"{scene.office.folder}/terms/gpu.md:4: unknown key 'topik'" in scene.run.err
    assert "Traceback" not in scene.run.err
    assert scene.left_alone


def test_a_broken_template_exits_3_with_file_and_line_and_writes_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["broken template"]
    assert (scene.run.code, scene.run.out) == (3, "")
    assert f"{scene.office.folder}/templates/issue/weekly/issue.txt:3: " in scene.run.err
    assert "titel" in scene.run.err
    assert "Traceback" not in scene.run.err
    assert scene.left_alone


def test_a_slot_that_is_not_due_yet_exits_5_and_sends_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["early"]
    assert (scene.run.code, scene.run.out) == (5, "")
    assert re.search(rf"{scene.office.next} opens at 09:00 on \w+, .*; --anyway sends it now", scene.run.err)
    assert scene.left_alone


def test_a_slot_whose_grace_is_over_exits_5_and_sends_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["late"]
    assert (scene.run.code, scene.run.out) == (5, "")
    assert re.search(rf"{scene.office.last} opened at 09:00 on .* grace of 6 hours is over; --anyway", scene.run.err)
    assert scene.left_alone


def test_a_day_without_a_slot_exits_2_and_names_the_nearest(scenes: dict[str, Scene]) -> None:
    scene = scenes["wrong day"]
    assert (scene.run.code, scene.run.out) == (2, "")
    assert scene.office.next in scene.run.err
    assert scene.left_alone


def test_a_verb_that_there_is_not_exits_2(scenes: dict[str, Scene]) -> None:
    scene = scenes["wrong verb"]
    assert (scene.run.code, scene.run.out) == (2, "")
    assert "publish" in scene.run.err


def test_a_draft_tells_scripts_what_would_go_out_and_leaves_every_file_as_it_is(scenes: dict[str, Scene]) -> None:
    scene = scenes["draft"]
    assert (scene.run.code, scene.run.err) == (0, "")
    draft = scene.run.json
    assert draft["slot"] == scene.office.next
    assert draft["number"] == 1
    assert (draft["told"], draft["sources"]) == (7, 1)
    assert len(draft["stories"]) == 5
    assert len(draft["runners_up"]) == 2
    titles = {title for title, _ in WEEK}
    for story in [*draft["stories"], *draft["runners_up"]]:
        assert story["title"] in titles
        assert story["url"].startswith("https://wire.example/")
        assert story["source"] == "Wire"
        assert datetime.fromisoformat(story["published"]).tzinfo
        assert story["reasons"]
        assert sum(reason["points"] for reason in story["reasons"]) == pytest.approx(story["score"], abs=0.02)
        assert all(reason["text"] for reason in story["reasons"])
    assert draft["term"]["slug"] == "gpu"
    assert draft["term"]["reasons"]
    assert all(set(finding) == {"level", "check", "what", "cure"} for finding in draft["findings"])
    assert not [finding for finding in draft["findings"] if finding["level"] == "error"]
    assert scene.left_alone


def test_a_dry_run_tells_how_many_would_get_it_and_writes_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["dry run"]
    assert scene.run.code == 0
    said = scene.run.out.splitlines()[-1]
    assert said.startswith(f"It would not be sent now: {scene.office.next} opens at ")
    assert said.endswith("; --anyway sends it now. Its audience is 2 readers. Nothing was written.")
    assert scene.left_alone


def test_a_dry_run_is_for_scripts_too(scenes: dict[str, Scene]) -> None:
    scene = scenes["dry run for a script"]
    told = scene.run.json
    assert (scene.run.code, scene.left_alone) == (0, True)
    assert (told["slot"], told["readers"], told["timing"], told["objection"], told["report"]) == (
        scene.office.next, 2, "early", None, None,
    )  # fmt: skip
    assert told["draft"]["slot"] == scene.office.next


@pytest.mark.parametrize("what", ["draft", "dry run"])
def test_what_only_reads_says_what_to_do_where_there_is_no_database_and_makes_none(scenes: dict[str, Scene], what: str) -> None:
    scene = scenes[f"{what} without a database"]
    assert (scene.run.code, scene.run.out) == (2, "")
    assert "run `friday collect` first" in scene.run.err
    assert scene.left_alone


def test_collecting_tells_of_each_source_on_stderr_and_sums_up_on_stdout(scenes: dict[str, Scene]) -> None:
    run = scenes["lost source"].run
    assert run.code == 0
    assert run.out == "0 new stories from 1 of 2 sources; 1 failed and will be tried again\n"
    assert sorted(run.err.splitlines()) == [
        "  Ledger: failed, cannot be read: No such file or directory",
        "  Wire: 0 new, 7 known",
    ]


def test_publishing_sends_once_and_the_report_adds_up(office: Office) -> None:
    sent = office.friday("publish", office.next, "--anyway", "--json")
    assert sent.code == 0
    assert "2 copies handled" in sent.err
    report = sent.json
    assert (report["slot"], report["number"], report["state"]) == (office.next, 1, "sent")
    assert (report["enrolled"], report["excluded"], report["unknown"]) == (2, 1, [])
    assert set(report["counts"]) == {"pending", "sending", "accepted", "rejected", "skipped", "unknown"}
    assert sum(report["counts"].values()) == report["enrolled"]
    assert report["counts"]["accepted"] == len(office.mails()) == 2
    mails = office.mails()
    again, told = office.at_once(("publish", office.next, "--json"), ("report", office.next, "--json"))
    assert (again.code, told.code) == (0, 0)
    assert again.json == told.json == report
    assert office.mails() == mails


def test_an_approval_freezes_the_issue_until_it_is_reopened(office: Office) -> None:
    # Named by the environment this time, as a service is.
    environment = {"FRIDAY_CONFIG": str(office.config)}
    approved = finish(start(["-m", "pipeline", "approve"], environment))
    assert approved.code == 0
    assert f"Issue 1 of {office.next} is approved" in approved.out
    assert office.friday("reopen") == Run(0, f"{office.next} is open again; nothing is frozen.\n", "")
    newsroom = open_newsroom(office.config, {})
    with pytest.raises(UsageError, match=f"nothing is frozen for {office.next} yet"):
        route.report(newsroom, newsroom.schedule.named(office.next))
    newsroom.database.engine.dispose()
    assert office.mails() == []


def test_the_roll_is_kept_from_the_command_line(office: Office) -> None:
    path = office.folder / "people.csv"
    path.write_text("email,name\nfay@example.com,Fay\ndora@example.com,\nnobody\n", "utf-8")
    new, barred, gone, suppressed, imported = office.at_once(
        ("subscribers", "add", "Eve@example.com", "--name", "Eve"),
        ("subscribers", "add", "zoe@example.com"),
        ("subscribers", "unsubscribe", "BEN@example.com"),
        ("subscribers", "suppress", "ada@example.com", "--note", "wrote to us"),
        ("subscribers", "import", str(path)),
    )
    assert new == Run(0, "Added.\n", "")
    assert (barred.code, barred.out) == (2, "")
    assert "this address is suppressed since" in barred.err
    assert gone == Run(0, "Unsubscribed.\n", "")
    assert suppressed == Run(0, "Suppressed.\n", "")
    assert (imported.code, imported.out) == (0, "1 added, 1 known already, 1 refused.\n")
    assert imported.err.startswith(f"{path}:4: not a mail address: ")
    everybody = office.friday("subscribers", "list", "--json").json
    assert [(row["address"], row["name"], row["state"], row["suppressed"]) for row in everybody] == [
        ("ada@example.com", "", "active", "manual"),
        ("ben@example.com", "", "unsubscribed", None),
        ("cleo@example.com", "", "active", "complaint"),
        ("dora@example.com", "", "unsubscribed", None),
        ("Eve@example.com", "Eve", "active", None),
        ("fay@example.com", "Fay", "active", None),
    ]


def test_a_segment_is_counted_before_it_is_used_and_lists_its_people(office: Office) -> None:
    counted, told, everybody, listed, wrong = office.at_once(
        ("subscribers", "count", "domain:example.com and not topic:policy"),
        ("subscribers", "count", 'domain:example.com or tag:"vip"', "--json"),
        ("subscribers", "count"),
        ("subscribers", "list", "--segment", "domain:example.com and tag:*", "--json"),
        ("subscribers", "count", "tag:vip and topicc:x"),
    )
    assert counted == Run(0, "2 subscribers in domain:example.com and not topic:policy would be mailed now.\n", "")
    assert told.json == {"segment": "domain:example.com or tag:vip", "mailable": 2}
    assert everybody == Run(0, "2 subscribers on the roll would be mailed now.\n", "")
    assert listed.json == []
    assert wrong == Run(2, "", "column 13: `topicc` is not a field; did you mean topic?\n")


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a provider on loopback that refuses every account."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = b""
                # The form ends with its boundary, and an answer before that would break the connection.
                while not asked.endswith(b"--\r\n"):
                    asked += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\nConnection: close\r\n\r\nForbidden")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_provider_that_refuses_exits_4_and_the_issue_waits_with_nothing_lost(office: Office, refusing: str) -> None:
    office.edit('name = "outbox"', f'name = "mailgun"\ndomain = "mg.example.com"\nbase_url = "{refusing}"')
    run = office.friday("publish", office.next, "--anyway", FRIDAY_PROVIDER_KEY="hunter2")
    assert (run.code, run.out) == (4, "")
    assert "Mailgun refuses the account: 401" in run.err
    assert "Traceback" not in run.err
    assert "hunter2" not in run.err
    newsroom = open_newsroom(office.config, {"FRIDAY_PROVIDER_KEY": "hunter2"})
    report = route.report(newsroom, newsroom.schedule.named(office.next))
    newsroom.database.engine.dispose()
    assert (report.state, report.counts["pending"], report.enrolled) == ("paused", 2, 2)
    assert "Mailgun refuses the account" in report.trouble


def test_a_database_that_cannot_be_used_is_the_operators_to_mend(office: Office) -> None:
    (office.folder / "friday.db").write_text("this is no database", "utf-8")
    run = office.friday("report")
    assert run.code == 2
    assert run.err == "database.url: the database cannot be used: file is not a database\n"


def test_a_port_that_is_taken_is_named(office: Office) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        runs = office.at_once(("serve", "--port", port), ("preview", "--port", port, "--no-browser"))
    for run in runs:
        assert (run.code, run.out) == (2, "")
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use; name another by --port" in run.err


def test_a_terminal_without_the_letters_is_no_reason_to_fail(office: Office) -> None:
    write_feed(office.folder / "wire.json", Story("https://wire.example/x", "Ünïcode “quotes” 日本", "Wire", datetime.now(UTC)))
    assert office.friday("collect").code == 0
    assert office.friday("draft", PYTHONIOENCODING="ascii").code == 0


def test_what_is_written_is_for_nobody_elses_eyes(office: Office) -> None:
    (office.folder / "friday.db").unlink()
    office.friday("collect")
    assert office.friday("subscribers", "add", "ada@example.com").code == 0
    assert office.friday("publish", office.next, "--anyway").code == 0
    private = [office.folder / "friday.db", *(office.folder / "outbox").rglob("*.eml")]
    assert len(private) == 2
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_nothing_unknown_is_nothing_to_resolve(office: Office) -> None:
    assert office.friday("publish", office.next, "--anyway").code == 0
    assert office.friday("resolve", office.next, "--accepted").code == 2


def test_a_slot_that_is_sent_says_so_wherever_it_is_looked_at(office: Office) -> None:
    assert office.friday("publish", office.next, "--anyway").code == 0
    draft, as_json, dry, again = office.at_once(
        ("draft", office.next),
        ("draft", office.next, "--json"),
        ("publish", office.next, "--dry-run"),
        ("publish", office.next),
    )
    assert draft.out.startswith(f"{office.next} is sent already, and stays so; this is what a new draft would be.")
    assert (as_json.json["state"], as_json.json["number"]) == ("sent", 1)
    assert "Publishing would send nothing." in dry.out
    assert (again.code, again.err) == (0, "Nothing was left to send.\n")


@pytest.mark.parametrize("broken", ["terms/gpu.md", "looks/issue/weekly/issue.html"])
def test_broken_content_in_a_new_folder_is_told_and_nothing_is_written(office: Office, broken: str) -> None:
    shutil.copytree(ROOT / "templates", office.folder / "looks")
    office.edit(f'templates = "{ROOT}/templates"', 'templates = "looks"')
    (office.folder / "friday.db").unlink()
    (office.folder / broken).write_text("{{ nothing like it", "utf-8")
    before = office.files()
    for run in office.at_once(("publish", office.next, "--anyway"), ("approve", office.next), ("draft", office.next)):
        assert run.code == 3
        assert f"{office.folder / broken}:1: " in run.err
    assert office.files() == before


def test_publishing_from_a_new_folder_makes_no_database(office: Office) -> None:
    (office.folder / "friday.db").unlink()
    before = office.files()
    run = office.friday("publish", office.next, "--anyway")
    assert (run.code, office.files()) == (2, before)
    assert "run `friday collect` first" in run.err


@dataclass
class Post:
    """An office that sends by a fake of Mailgun, in two calls, and the process that publishes."""

    office: Office
    fake: FakeHttp
    process: "subprocess.Popen[str] | None" = None

    @property
    def sending(self) -> "subprocess.Popen[str]":
        assert self.process is not None
        return self.process

    def publish(self, at_first: Callable[[], None] = lambda: None, answer: Reply = OK) -> Run:
        """Publish, and do something while the first call is under way."""
        begun, done, trouble = threading.Event(), threading.Event(), list[BaseException]()

        def reply(number: int, _call: Call) -> Reply:
            assert begun.wait(60)
            if number > 1:
                return OK
            try:
                at_first()
            except BaseException as error:
                # The thread that answers would keep it to itself.
                trouble.append(error)
                raise
            finally:
                done.set()
            return answer

        self.fake.reply = reply
        words = ["-m", "pipeline", "--config", str(self.office.config), "publish", self.office.next, "--anyway"]
        self.process = start(words, {"FRIDAY_PROVIDER_KEY": "secret"})
        begun.set()
        # Until then its stderr is read line by line.
        assert done.wait(300)
        run = finish(self.process)
        if trouble:
            raise trouble[0]
        return run

    def friday(self, *words: str) -> Run:
        return self.office.friday(*words, FRIDAY_PROVIDER_KEY="secret")

    def counts(self) -> dict[str, int]:
        """The copies in each state that there are copies in."""
        found: dict[str, int] = self.friday("report", self.office.next, "--json").json["counts"]
        return {state: count for state, count in found.items() if count}

    def say(self, number: int) -> None:
        """Send the process a signal, and wait until it says that it has heard it."""
        self.sending.send_signal(number)
        assert self.sending.stderr is not None
        assert self.sending.stderr.readline() == "Stopping; what is in flight comes home first.\n"


@pytest.fixture
def post(office: Office) -> Iterator[Post]:
    with fake_http() as fake:
        options = f'name = "mailgun"\ndomain = "mg.example.com"\nbase_url = "{fake.url}"\nbatch_size = 2'
        office.edit('name = "outbox"', options)
        newsroom = open_newsroom(office.config, {"FRIDAY_PROVIDER_KEY": "secret"})
        with newsroom.database.write() as session:
            for address in READERS[2:]:
                roll.add(session, address, datetime.now(UTC))
        newsroom.database.engine.dispose()
        yield Post(office, fake)


READERS = [f"{name}@example.com" for name in ("ada", "ben", "eve", "finn")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_publish_exits_5_with_what_was_in_flight_settled_and_the_next_one_goes_on(
    post: Post, number: int
) -> None:
    run = post.publish(lambda: post.say(number))
    assert (run.code, run.out) == (5, "")
    assert f"stopped; `friday publish {post.office.next}` goes on where it stopped" in run.err
    assert "2 copies handled" in run.err
    assert "Traceback" not in run.err
    assert post.counts() == {"accepted": 2, "pending": 2}
    assert post.friday("publish", post.office.next).code == 0
    assert (post.fake.readers, post.counts()) == (READERS, {"accepted": 4})


def test_a_second_ctrl_c_exits_5_and_still_lets_what_is_in_flight_come_home(post: Post) -> None:
    def twice() -> None:
        post.say(signal.SIGINT)
        post.sending.send_signal(signal.SIGINT)

    run = post.publish(twice)
    assert (run.code, run.out) == (5, "")
    assert f"`friday publish {post.office.next}` goes on where it stopped" in run.err
    assert "Traceback" not in run.err
    assert post.counts() == {"accepted": 2, "pending": 2}


def test_a_signal_does_not_wait_until_a_provider_is_ready_again(post: Post) -> None:
    def once_it_waits() -> None:
        newsroom = open_newsroom(post.office.config, {"FRIDAY_PROVIDER_KEY": "secret"})
        slot = newsroom.schedule.named(post.office.next)
        while not post.fake.calls or route.report(newsroom, slot).counts["sending"]:
            time.sleep(0.05)
        newsroom.database.engine.dispose()
        post.sending.send_signal(signal.SIGTERM)

    began = time.monotonic()
    waiter = threading.Thread(target=once_it_waits)
    run = post.publish(waiter.start, Reply(429, '{"message": "slow down"}', {"Retry-After": "55"}))
    waiter.join()
    assert run.code == 5
    assert "goes on where it stopped" in run.err
    assert time.monotonic() - began < 50
    assert post.counts() == {"pending": 4}


def test_pause_stops_a_publish_of_another_process_and_resume_lets_it_go_on(post: Post) -> None:
    slot, paused = post.office.next, list[Run]()
    run = post.publish(lambda: paused.append(post.friday("pause", slot)))
    assert [(each.code, each.out) for each in paused] == [(0, f"{slot} is paused; `friday resume {slot}` lets it go on.\n")]
    assert (run.code, run.out) == (5, "")
    assert "paused by a person" in run.err
    assert post.counts() == {"accepted": 2, "pending": 2}
    again = post.friday("publish", slot, "--anyway")
    assert (again.code, again.out) == (5, "")
    assert f"{slot} was paused by a person; `friday resume {slot}` lets it go on" in again.err
    resumed = post.friday("resume", slot)
    assert resumed.code == 0
    assert resumed.out.startswith(f"{slot} is no longer paused; `friday publish {slot}` sends the rest")
    assert post.friday("publish", slot).code == 0
    assert (post.fake.readers, post.counts()) == (READERS, {"accepted": 4})


def test_what_is_not_being_sent_can_be_neither_paused_nor_resumed(office: Office) -> None:
    nothing = office.at_once(("pause", office.next), ("resume", office.next))
    assert [run.code for run in nothing] == [2, 2]
    assert all("nothing is frozen" in run.err for run in nothing)
    assert office.friday("publish", office.next, "--anyway").code == 0
    sent = office.at_once(("pause", office.next), ("resume", office.next), ("publish", office.next))
    assert [run.code for run in sent] == [2, 2, 0]
    assert "is not being sent: it is sent" in sent[0].err
    assert "is not paused: it is sent" in sent[1].err
    assert sent[2].err == "Nothing was left to send.\n"


def test_a_disk_that_is_full_before_anything_is_sent_is_the_operators_to_mend(office: Office) -> None:
    words = [sys.executable, "-m", "pipeline", "--config", str(office.config), "subscribers", "add", "eve@example.com"]
    full = subprocess.run(  # a limit on files is as good as a full disk
        ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (full.returncode, full.stdout) == (2, "")
    assert full.stderr.startswith("database.url: the database cannot be used: ")
    assert "eve" not in full.stderr
    assert office.friday("subscribers", "add", "eve@example.com").out == "Added.\n"


def test_a_disk_that_is_full_in_the_middle_of_sending_exits_5_and_nobody_is_lost_or_gets_two(post: Post) -> None:
    def fill_up() -> None:
        resource.prlimit(post.sending.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        post.say(signal.SIGTERM)

    run = post.publish(fill_up)
    assert (run.code, run.out) == (5, "")
    assert "the ledger cannot be written: " in run.err
    assert f"mend that, and `friday publish {post.office.next}` goes on where it stopped" in run.err
    assert "Traceback" not in run.err
    assert post.friday("publish", post.office.next).code == 5
    assert (post.fake.readers, post.counts()) == (READERS, {"accepted": 2, "unknown": 2})


def test_at_a_terminal_a_bar_shows_how_far_the_copies_are(office: Office) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "pipeline", "--config", str(office.config), "publish", office.next, "--anyway"]
    process = subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = bytearray()
    # Linux says so with an error when the last writer of a terminal has gone.
    with suppress(OSError):
        while some := os.read(ours, 65_536):
            shown += some
    os.close(ours)
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, b"accepted" in out) == (0, True)
    text = shown.decode()
    assert f"Sending {office.next}" in text
    assert "2/2" in text
    assert "2 copies handled" in text


class Bar:
    """As much of the progress as the signals look at."""

    def __init__(self, *, began: bool) -> None:
        self.began = began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_anything_is_sent_a_signal_ends_it_at_once_and_afterwards_it_is_a_request(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, stopping = signal.getsignal(number), threading.Event()
    with pytest.raises(KeyboardInterrupt), stopping_at_signals(stopping, Bar(began=False)):  # type: ignore[arg-type]  # see there
        os.kill(os.getpid(), number)
    assert not stopping.is_set()
    with stopping_at_signals(stopping, Bar(began=True)):  # type: ignore[arg-type]  # see there
        for _ in range(2):
            os.kill(os.getpid(), number)
            assert stopping.wait(60)
    assert capsys.readouterr().err == "Stopping; what is in flight comes home first.\n"
    assert signal.getsignal(number) is before


def test_the_progress_counts_what_was_handled_now_and_not_what_was_before(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Sending", "copies") as progress:
        assert not progress.began
        progress(50, 100)
        assert (progress.began, progress.done) == (True, 0)
        progress(1_075, 2_000)
    assert capsys.readouterr().err == "Sending: 1,025 copies handled\n"
    with Progress("Sending", "copies") as progress:
        progress(100, 100)
    assert capsys.readouterr().err == ""
