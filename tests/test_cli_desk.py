"""Desk and gate from the terminal: what each verb does, what it says of it, and how it ends where it cannot."""

import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

import pipeline.newsroom
from pipeline import publish as route
from pipeline import show
from pipeline.cli import app, common, main
from pipeline.desk import Deed, Kind
from pipeline.errors import AccountRefused, FridayError
from pipeline.issue import Draft, Parcel, Story
from tests.conftest import FRIDAY, WEEK, World

EVE = FRIDAY - timedelta(hours=20)
SLOT = "2026-11-27"
PAGE = "wire.example/20261127/{}"
TITLES = [title for title, _ in WEEK]


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """A terminal in the newsroom of a world, on the evening before its slot."""

    world: World

    def friday(self, *words: str, stdin: str | bytes = "") -> Run:
        """Run one command in this process: its exit code, stdout, and stderr with what `main` would say there."""
        run = CliRunner().invoke(app, words, input=stdin)
        if isinstance(run.exception, FridayError):
            return Run(run.exception.exit_code, run.stdout, f"{run.stderr}{run.exception}")
        if run.exception and not isinstance(run.exception, SystemExit):
            raise run.exception
        return Run(run.exit_code, run.stdout, run.stderr)

    def edit(self, *words: str, stdin: str | bytes = "") -> Run:
        """Change the draft, which must go well."""
        run = self.friday("edit", *words, stdin=stdin)
        assert (run.code, run.err) == (0, ""), run
        return run

    def draft(self) -> Draft:
        return route.draft(self.world.newsroom, self.world.slot)

    def selected(self) -> list[str]:
        return [line.title for line in self.draft().issue.lines]

    def others(self) -> list[str]:
        return [chosen.story.title for chosen in self.draft().selection.runners_up]


def at(world: World, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    world.clock.at = EVE
    own = world.newsroom.config.newsletter.model_copy(update={"test_addresses": ("me@example.com", "you@example.com")})
    world.newsroom = replace(world.newsroom, config=replace(world.newsroom.config, newsletter=own))
    monkeypatch.setattr(pipeline.newsroom, "open_newsroom", lambda _path: world.newsroom)
    monkeypatch.setenv("LOGNAME", "ann")
    world.tell_a_week(7)
    return Terminal(world)


@pytest.fixture
def terminal(local_world: World, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return at(local_world, monkeypatch)


@pytest.fixture
def either(world: World, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return at(world, monkeypatch)


def test_a_week_is_edited_approved_and_told_of_on_either_database(either: Terminal) -> None:
    before, others = either.selected(), either.others()
    moved = either.edit("move", "3", "1").out.splitlines()
    assert moved[0] == f"Moved “{before[2]}” to place 1."
    assert moved[1] == f"  1  {before[2]} (Wire) [pinned]"
    either.edit("swap", "2", "r1")
    either.edit("drop", "4")
    either.edit("line", "1", "--title", "Another title")
    selected = either.selected()
    assert selected[:3] == ["Another title", others[0], before[1]]
    assert before[2] not in selected
    assert len(selected) == 5
    assert either.friday("approve").out.startswith(f"Issue 1 of {SLOT} is approved: Another title\n")
    log = either.friday("edit", "log", "--slot", SLOT).out.splitlines()
    assert [
        line.partition("terminal (ann) ")[2].partition(" ")[0] for line in log
    ] == "moved put dropped wrote approved".split()
    assert log[0].startswith("2026-11-26 13:00 CET  terminal (ann) moved “")
    assert WEEK[0][0] in either.friday("stories", "list", "QUILLfern", "wire").out
    assert either.friday("test", "--to", "me@example.com").out == f"A test of {SLOT} was sent to 1 address.\n"


def test_the_desk_shows_the_numbers_by_which_stories_are_named_and_what_was_done_to_them(terminal: Terminal) -> None:
    stories, others = terminal.selected(), terminal.others()
    lines = terminal.friday("edit", "show").out.splitlines()
    assert lines[0] == f"Issue 1 of {SLOT}"
    for place, title in enumerate(stories, 1):
        assert f"{place:>3}  {title} (Wire)" in lines
    for place, title in enumerate(others, 1):
        assert any(line.startswith(f" r{place}  ") and title in line for line in lines)
    term = terminal.draft().selection.term
    assert term
    assert f"The term: {term.term.name} ({term.term.slug})" in lines
    terminal.edit("pin", "2")
    terminal.edit("line", "2", "--why", "It matters.", "--summary", "")
    terminal.edit("drop", "r1")
    terminal.edit("term", "gpu")
    terminal.edit("subject", "Five things")
    lines = terminal.friday("edit", "show").out.splitlines()
    assert f"  2  {stories[1]} (Wire) [pinned; summary, why edited]" in lines
    assert any(line.endswith(f"{others[0]} (Wire) [dropped]") for line in lines)
    assert "Subject    Five things [edited]" in lines
    assert any(line.startswith("The term: ") and line.endswith("(gpu) [chosen]") for line in lines)
    drafted = terminal.friday("draft").out
    assert f"2. {stories[1]} [pinned; summary, why edited]" in drafted
    told = terminal.friday("draft", "--json").json["edits"]
    assert (told["revision"], told["dropped"]) == (terminal.draft().edits.revision, [_page_of(terminal, others[0])])
    assert told["pinned"] == [_page_of(terminal, 2)]


def _page_of(terminal: Terminal, which: int | str) -> str:
    title = terminal.selected()[which - 1] if isinstance(which, int) else which
    return PAGE.format(TITLES.index(title))


@pytest.mark.parametrize("name", ["2", "the address", "the address as somebody copied it"])
def test_a_story_is_named_by_number_or_address(terminal: Terminal, name: str) -> None:
    page, title = _page_of(terminal, 2), terminal.selected()[1]
    names = {"the address": f"https://{page}", "the address as somebody copied it": f"http://www.{page}/?utm_source=x#top"}
    terminal.edit("move", names.get(name, name), "5")
    assert terminal.selected()[4] == title


def test_a_runner_up_is_used_and_a_pin_is_taken_off(terminal: Terminal) -> None:
    stories, others = terminal.selected(), terminal.others()
    terminal.edit("use", "R2")
    assert terminal.selected() == [*stories[:4], others[1]]
    said = terminal.edit("unpin", "5").out.splitlines()
    assert said[0] == f"Unpinned “{others[1]}”."
    assert PAGE.format(TITLES.index(others[1])) not in terminal.draft().edits.places
    again = terminal.friday("edit", "unpin", "r1")
    assert (again.code, again.err) == (2, "that story is not pinned")


def test_the_words_of_a_story_are_written_and_brought_back(terminal: Terminal) -> None:
    own = terminal.draft().issue.lines[0]
    terminal.edit("line", "1", "--title", "New", "--summary", "Said anew.", "--why", "Because.")
    line = terminal.draft().issue.lines[0]
    assert (line.title, line.summary, line.why) == ("New", "Said anew.", "Because.")
    said = terminal.edit("line", "1", "--reset", "title", "--reset", "summary", "--why", "").out
    assert terminal.draft().issue.lines[0] == replace(own, why="")
    assert f"Took out “why it matters” of “{own.title}”." in said
    assert f"Brought back the title of “{own.title}”." in said


def test_subject_preheader_note_and_term_are_written_and_left_to_the_machine(terminal: Terminal) -> None:
    before = terminal.draft().issue
    assert terminal.edit("subject", "Mine").out == "Wrote the subject: “Mine”.\n"
    terminal.edit("preheader", "")
    terminal.edit("note", "-", stdin="First *line*.\n\nSecond.\n")
    assert terminal.edit("term", "gpu").out.startswith("Chose the term gpu.\nnote: preheader: ")
    issue = terminal.draft().issue
    assert (issue.subject, issue.preheader, issue.note) == ("Mine", "", "First *line*.\n\nSecond.")
    assert issue.term
    assert issue.term.name == terminal.world.newsroom.glossary["gpu"].name
    for field in ("subject", "preheader", "note", "term"):
        assert terminal.edit(field, "--reset").out.startswith(f"Left the {field} to the machine.\n")
    assert terminal.draft().issue == before


def test_the_last_change_is_taken_back_and_the_log_says_so(terminal: Terminal) -> None:
    before = terminal.selected()
    terminal.edit("drop", "1")
    said = terminal.edit("undo").out.splitlines()
    assert said[0] == f"Taken back: dropped “{before[0]}”."
    assert terminal.selected() == before
    log = terminal.friday("edit", "log").out.splitlines()
    assert log[0].endswith(f"terminal (ann) dropped “{before[0]}” (taken back)")
    assert log[1].endswith(f"terminal (ann) took back: dropped “{before[0]}”")
    nothing = terminal.friday("edit", "undo")
    assert nothing.code == 2
    assert f"nothing was changed at the desk of {SLOT}" in nothing.err


def test_a_page_that_was_collected_is_added_by_its_address_with_another_title(terminal: Terminal) -> None:
    other = terminal.others()[1]
    said = terminal.friday("stories", "add", f"https://{_page_of(terminal, other)}", "--title", "Called anew")
    assert said.code == 0
    assert terminal.selected()[4] == "Called anew"
    assert f"Wrote the title of “{other}”: “Called anew”." in said.out


def test_stories_are_found_by_words_and_days_and_pinned_and_dropped_by_address(terminal: Terminal) -> None:
    found = terminal.friday("stories", "list", "court", "--json")
    assert [(each["title"], each["source"]) for each in found.json] == [(TITLES[1], "Wire")]
    assert found.err == "1 story of 7 days\n"
    everything = terminal.friday("stories", "list")
    assert everything.out.count("https://wire.example/") == 7
    terminal.world.clock.at += timedelta(hours=16)
    old = terminal.friday("stories", "list", "--days", "1", "--json").json
    assert {each["title"] for each in old} == set(TITLES[:5])
    terminal.world.clock.at = EVE
    assert terminal.friday("stories", "list", "court", "nowhere", "--json").json == []
    url = found.json[0]["url"]
    assert terminal.friday("stories", "drop", url).code == 0
    assert TITLES[1] not in terminal.selected()
    assert terminal.friday("stories", "pin", url).code == 0
    assert TITLES[1] in terminal.selected()


def test_no_more_than_a_hundred_stories_are_listed_and_that_is_said(terminal: Terminal) -> None:
    many = [Story(f"https://wire.example/many/{n}", f"Story number {n}", "Wire", EVE - timedelta(hours=1)) for n in range(101)]
    terminal.world.tell("Wire", *many)
    found = terminal.friday("stories", "list", "number", "--json")
    assert len(found.json) == 100
    assert found.err.startswith("more than 100 stories of 7 days; these are the newest 100")


def test_terms_are_listed_shown_and_ranked(terminal: Terminal) -> None:
    listed = terminal.friday("terms", "list", "--json").json
    glossary = terminal.world.newsroom.glossary
    assert [each["slug"] for each in listed] == list(glossary)
    assert f"gpu  {glossary['gpu'].name} ({glossary['gpu'].topic})" in terminal.friday("terms", "list").out.splitlines()
    shown = terminal.friday("terms", "show", "gpu").out
    for text in (glossary["gpu"].name, glossary["gpu"].definition, glossary["gpu"].why, glossary["gpu"].practice):
        assert text in shown
    unknown = terminal.friday("terms", "show", "gpuu")
    assert (unknown.code, unknown.err) == (2, "there is no term 'gpuu'; did you mean gpu?")
    selection = terminal.draft().selection
    assert selection.term
    ranked = [selection.term, *selection.other_terms]
    said = terminal.friday("terms", "next").out.splitlines()
    assert said[::2] == [f"{each.term.name} ({each.term.slug})" for each in ranked]
    assert all(" points: " in line for line in said[1::2])


def test_the_next_eight_slots_are_shown_with_both_times_and_how_they_stand(terminal: Terminal) -> None:
    terminal.friday("hold", SLOT, "--why", "waits for\x1b[31m legal")
    terminal.friday("skip", "2026-12-25")
    lines = terminal.friday("slots").out.splitlines()
    assert lines[:2] == [
        f"{SLOT}  Fri 27 Nov 09:00 CET  Fri 27 Nov 08:00 UTC  held",
        "            by terminal (ann): waits for[31m legal",
    ]
    rows = terminal.friday("slots", "--json").json
    assert [row["slot"] for row in rows[:2]] == [SLOT, "2026-12-04"]
    assert (len(rows), [row["state"] for row in rows]) == (
        8,
        ["held", "open", "open", "open", "skipped", "open", "open", "open"],
    )
    assert rows[0] == {
        "slot": SLOT, "local": "2026-11-27T09:00:00+01:00", "utc": "2026-11-27T08:00:00+00:00", "notes": [],
        "timing": "early", "state": "held", "by": "terminal (ann)", "why": "waits for[31m legal",
    }  # fmt: skip


def test_a_slot_that_is_due_stands_before_the_next_eight_and_notes_below_theirs(terminal: Terminal) -> None:
    terminal.world.clock.at = FRIDAY + timedelta(hours=1)
    lines = terminal.friday("slots").out.splitlines()
    assert len(lines) == 9
    assert lines[0].endswith("due, open")
    terminal.world.clock.at = datetime(2027, 3, 20, tzinfo=UTC)
    changed = terminal.friday("slots").out.splitlines()
    assert changed[1].startswith("2027-04-02")
    assert changed[2].strip().startswith("the clocks have changed since the week before")


def test_holding_skipping_and_reopening_say_who_and_are_in_the_log(terminal: Terminal) -> None:
    assert terminal.friday("hold", "--why", "late news").out == f"{SLOT} is held; `friday approve {SLOT}` lets it go.\n"
    assert terminal.friday("skip").out == f"{SLOT} is skipped; `friday reopen {SLOT}` opens it again.\n"
    assert "is skipped, by terminal (ann)" in terminal.friday("approve").err
    assert terminal.friday("hold").code == 2
    assert terminal.friday("reopen").code == 0
    log = terminal.friday("edit", "log").out
    assert [line.partition("(ann) ")[2] for line in log.splitlines()] == ["held: late news", "skipped", "reopened"]


def test_what_was_sent_can_be_neither_held_nor_skipped(terminal: Terminal) -> None:
    terminal.world.subscribe("ada")
    assert terminal.friday("publish", "--anyway").code == 0
    for verb in ("hold", "skip"):
        run = terminal.friday(verb)
        assert (run.code, run.out) == (2, "")
        assert "its readers are enrolled" in run.err


def test_a_test_leaves_at_once_for_addresses_on_the_list_only(terminal: Terminal) -> None:
    sent = terminal.friday("test", SLOT, "--to", "Me@example.com", "--to", "you@example.com")
    assert (sent.code, sent.out) == (0, f"A test of {SLOT} was sent to 2 addresses.\n")
    assert sorted(terminal.world.provider.got) == ["me@example.com", "you@example.com"]
    for words, says in (
        (("--to", "eve@example.com"), "newsletter.test_addresses"),
        (("--to", "nobody"), "not a mail address"),
        ((), "--to"),
        (("2026-11-28", "--to", "me@example.com"), SLOT),
    ):
        run = terminal.friday("test", *words)
        assert (run.code, run.out) == (2, ""), words
        assert says in run.err
    assert len(terminal.world.provider.got) == 2
    assert terminal.friday("edit", "log").out.splitlines()[-1].endswith("had a test sent to 2 addresses")


def test_a_test_that_the_provider_does_not_take_exits_4(terminal: Terminal) -> None:
    def lost(_parcel: Parcel) -> None:
        raise pipeline.errors.NotProcessed("the provider is down")

    terminal.world.provider.before = lost
    run = terminal.friday("test", "--to", "me@example.com")
    assert (run.code, run.out) == (4, "")
    assert run.err == f"1 of 1 tests of {SLOT} did not leave: queued: the provider is down"

    def refused(_parcel: Parcel) -> None:
        raise AccountRefused("the key is wrong")

    terminal.world.provider.before = refused
    assert terminal.friday("test", "--to", "me@example.com").code == 4


BAD = {
    "move 9 1": "there is no story 9 for 2026-11-27: the selection has 1 to 5, the runners-up are r1 to r2",
    "move 0 1": "there is no story 0",
    "move 1 6": "there is no place 6: the selection has 1 to 5",
    "move 1 0": "PLACE",
    "move 1 first": "PLACE",
    "move r1 1": "that story is not in the selection any more",
    "move 1": "PLACE",
    "swap 1 r3": "there is no runner-up r3 for 2026-11-27",
    "swap 1 2": "in the selection already",
    "swap r1 r2": "not in the selection",
    "use 1": "in the selection already",
    "use best": "'best' names no story: write its number or its address; the selection has 1 to 5",
    "use https://elsewhere.example/": "no story of that address was collected: elsewhere.example",
    "drop 99999": "names no story",
    "drop https://elsewhere.example/a": "no story of that address was collected",
    "pin r0": "there is no runner-up r0",
    "pin https://elsewhere.example/a": "no story of that address was collected",
    "unpin 1": "not pinned",
    "add nonsense": "that is no address of a page",
    "line 1": "say what to change",
    "line 9 --title x": "there is no story 9",
    "line 1 --reset url": "a story has no 'url' to reset: it has title, summary, why",
    "line 1 --why x --reset why": "say either --why or --reset why",
    "line 1 --title=": "a story needs a title",
    f"line 1 --title x --why {'y' * 501}": "the why has 501 characters, and 500 is the most",
    "subject": "say either a text or --reset",
    "subject x --reset": "say either a text or --reset",
    "subject ": "an issue needs a subject",
    f"preheader {'x' * 201}": "201 characters",
    f"note {'x' * 2001}": "2,001 characters",
    "term": "say either a term or --reset",
    "term no-such": "there is no term 'no-such'",
    "undo": "nothing was changed at the desk",
    "show --slot soon": "'soon' is not a slot",
    "log --slot 2026-11-28": "2026-11-28 is a Saturday",
    "move 1 2 --slot 2026-11-28": "2026-11-28 is a Saturday",
    "shuffle": "shuffle",
}


def test_what_cannot_be_done_exits_2_says_what_there_is_and_changes_nothing(terminal: Terminal) -> None:
    for words, says in BAD.items():
        run = terminal.friday("edit", *words.split(" "))
        assert (run.code, run.out) == (2, ""), (words, run)
        assert says in run.err, words
    assert terminal.draft().edits.revision == 0


def test_a_note_that_is_not_utf_8_is_refused(terminal: Terminal) -> None:
    run = terminal.friday("edit", "note", "-", stdin=b"caf\xe9")
    assert (run.code, run.err) == (2, "what came on stdin is not UTF-8: save it as UTF-8")


def test_half_a_character_in_a_word_is_no_bug(either: Terminal) -> None:
    assert either.friday("hold", "--why", "half \udce9").code == 0
    assert either.friday("edit", "use", "https://elsewhere.example/\udce9").code == 2
    assert either.friday("stories", "list", "\udce9").code == 0
    assert either.friday("edit", "subject", "caf\udce9").code == 0
    assert either.draft().issue.subject == "caf"


def test_an_empty_week_says_that_there_is_nothing_to_name(terminal: Terminal) -> None:
    run = terminal.friday("edit", "move", "1", "2", "--slot", "2027-01-08")
    assert (run.code, run.out) == (2, "")
    assert run.err == "there is no story 1 for 2027-01-08: the selection is empty, and there are no runners-up"
    assert "  No story is in the selection." in terminal.friday("edit", "show", "--slot", "2027-01-08").out


EVERY_CHANGE = (
    "move 2 1", "swap 1 r1", "use r1", "drop 1", "pin 1", f"add https://{PAGE.format(6)}", "line 1 --title x", "subject x",
    "preheader x", "note x", "term gpu", "undo",
)  # fmt: skip


def test_an_approved_issue_takes_no_edit_before_it_is_reopened(terminal: Terminal) -> None:
    terminal.edit("pin", "1")
    assert terminal.friday("approve").code == 0
    revision = terminal.draft().edits.revision
    for words in EVERY_CHANGE:
        run = terminal.friday("edit", *words.split())
        assert (run.code, run.out) == (5, ""), words
        assert run.err == f"{SLOT} is approved, so nothing of it can be changed: `friday reopen {SLOT}` opens it again"
    shown = terminal.friday("edit", "show").out
    assert shown.startswith(f"Issue 1 of {SLOT}; it is approved, so nothing of it can be changed\n")
    assert terminal.draft().edits.revision == revision
    assert terminal.friday("reopen").code == 0
    terminal.edit("undo")


def test_what_another_changed_between_the_look_and_the_writing_is_not_written_over(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = route.draft
    slot = terminal.world.slot

    def overtaken(*words: Any) -> Draft:
        drafted = look(*words)
        monkeypatch.setattr(route, "draft", look)
        with terminal.world.database.write() as session:
            pipeline.desk.write(session, slot.name, Kind.HEAD, {"field": "subject", "text": "Theirs"}, "ben", EVE)
        return drafted

    monkeypatch.setattr(route, "draft", overtaken)
    run = terminal.friday("edit", "subject", "Mine")
    assert (run.code, run.out) == (5, "")
    assert run.err == (
        "ben has changed the subject meanwhile, at 12:00 UTC, and nothing was written over it: "
        "look at `friday edit show`, and say it again if you still mean it"
    )
    assert terminal.draft().issue.subject == "Theirs"


def test_whoever_has_no_name_is_known_by_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert common.me() == "terminal (4711)"


def test_the_command_itself_exits_with_2_and_5(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.umask", lambda _mask: 0)
    terminal.friday("approve")
    for words, code in ((["edit", "drop", "1"], 5), (["edit", "drop", "9"], 2)):
        monkeypatch.setattr(sys, "argv", ["friday", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code


DEEDS: list[tuple[Kind, dict[str, Any], str]] = [
    (Kind.MOVE, {"page": "a", "place": 2, "pages": ["b", "a"]}, "moved “Alpha” to place 2"),
    (Kind.SWAP, {"page": "a", "other": "b", "pages": ["b"]}, "put “Beta {0}” in place of “Alpha”"),
    (Kind.ADD, {"page": "a", "pages": ["a"]}, "put “Alpha” into the selection"),
    (Kind.DROP, {"page": "c.example/x", "pages": []}, "dropped c.example/x"),
    (Kind.PIN, {"page": "a", "place": 3}, "pinned “Alpha” to place 3"),
    (Kind.UNPIN, {"page": "a"}, "unpinned “Alpha”"),
    (Kind.WORDS, {"page": "a", "field": "why", "text": "So.", "place": 1}, "wrote “why it matters” of “Alpha”: “So.”"),
    (Kind.WORDS, {"page": "a", "field": "summary", "text": "", "place": 1}, "took out the summary of “Alpha”"),
    (Kind.WORDS, {"page": "a", "field": "title", "text": None, "place": 1}, "brought back the title of “Alpha”"),
    (Kind.HEAD, {"field": "note", "text": "One.\n\nTwo."}, "wrote the note: “One. Two.”"),
    (Kind.HEAD, {"field": "preheader", "text": ""}, "took out the preheader"),
    (Kind.HEAD, {"field": "subject", "text": None}, "left the subject to the machine"),
    (Kind.TERM, {"slug": "gpu"}, "chose the term gpu"),
    (Kind.TERM, {"slug": None}, "left the term to the machine"),
    (Kind.UNDO, {"edit": 1}, "took a change back"),
    (Kind.APPROVE, {"digest": "0"}, "approved"),
    (Kind.REOPEN, {}, "reopened"),
    (Kind.HOLD, {"why": "late {news}"}, "held: late {news}"),
    (Kind.HOLD, {"why": ""}, "held"),
    (Kind.SKIP, {"why": "holiday"}, "skipped: holiday"),
    (Kind.SEND, {}, "had it sent"),
    (Kind.TEST, {"to": 1}, "had a test sent to 1 address"),
    (Kind.TEST, {"to": 3}, "had a test sent to 3 addresses"),
]


@pytest.mark.parametrize(("kind", "about", "text"), DEEDS)
def test_each_deed_is_a_sentence(kind: Kind, about: dict[str, Any], text: str) -> None:
    assert show.deed_text(Deed(7, kind, about, "ann", EVE), {"a": "Alpha", "b": "Beta {0}"}) == text


def test_every_kind_of_deed_has_a_sentence() -> None:
    assert {kind for kind, _, _ in DEEDS} == set(Kind)


def test_a_deed_without_a_name_or_a_known_undoing_is_told_all_the_same() -> None:
    deeds = [Deed(2, Kind.UNDO, {"edit": 1}, "", EVE)]
    assert list(show.deeds_lines(deeds, {}, ZoneInfo("Europe/Berlin"))) == ["2026-11-26 13:00 CET  somebody took a change back"]
