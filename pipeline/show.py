"""How the route's values look in a terminal and as JSON; it computes nothing and prints nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from pipeline.books import DeliveryState, IssueRow, IssueState, JobRow, Pause, Stance
from pipeline.collect import Visit
from pipeline.compose import pages_of
from pipeline.desk import Deed, Kind
from pipeline.gate import Standing
from pipeline.hours import Hour
from pipeline.issue import Chosen, Draft, Finding, Reason, Story, Term
from pipeline.jobs import Outlook
from pipeline.ledger import Report
from pipeline.newsroom import Newsroom
from pipeline.place import Adopted
from pipeline.publish import Rehearsal
from pipeline.schedule import Planned, Timing
from pipeline.text import shorten
from subscribers.exchange import Imported

QUOTED = 70
_DEEDS = {
    Kind.MOVE: "moved {page} to place {place}",
    Kind.SWAP: "put {other} in place of {page}",
    Kind.ADD: "put {page} into the selection",
    Kind.DROP: "dropped {page}",
    Kind.PIN: "pinned {page} to place {place}",
    Kind.UNPIN: "unpinned {page}",
    Kind.UNDO: "took a change back",
    Kind.APPROVE: "approved",
    Kind.REOPEN: "reopened",
    Kind.HOLD: "held",
    Kind.SKIP: "skipped",
    Kind.SEND: "had it sent",
}
_MOST_ZONES = 2


def visit_line(visit: Visit) -> str:
    """How the visit to one source went, on one line."""
    if visit.trouble:
        return f"  {visit.source}: failed, {visit.trouble}"
    if visit.unchanged:
        return f"  {visit.source}: unchanged"
    unusable = f", {visit.unusable} without title or address" if visit.unusable else ""
    return f"  {visit.source}: {visit.new} new, {visit.known} known{unusable}"


def visits_summary(visits: Sequence[Visit]) -> str:
    """How a round through all sources went."""
    failed = sum(1 for visit in visits if visit.trouble)
    new = sum(visit.new for visit in visits)
    what = f"{new:,} new {'story' if new == 1 else 'stories'} from {len(visits) - failed} of {len(visits)} sources"
    return what + (f"; {failed} failed and will be tried again" if failed else "")


def imported_summary(imported: Imported) -> str:
    """What came of an import, or would come of it."""
    counts = [f"{imported.added:,} added"]
    counts += [f"{imported.unsubscribed:,} kept as unsubscribed"] if imported.unsubscribed else []
    counts += [f"{imported.suppressed:,} suppressed"] if imported.suppressed else []
    counts += [f"{imported.known:,} known already", f"{imported.refused:,} refused"]
    undated = f"; {imported.undated:,} with a date that cannot be right joined today" if imported.undated else ""
    return ", ".join(counts) + undated


def draft_lines(draft: Draft) -> Iterator[str]:
    """A draft with everything that an editor wants to know about it."""
    issue, selection = draft.issue, draft.selection
    if draft.state != "open":
        yield f"{draft.slot.name} is {_words(draft.state)} already, and stays so; this is what a new draft would be."
        yield ""
    yield f"Issue {issue.number} for {draft.slot.day:%A}, {draft.slot.day.day} {draft.slot.day:%B %Y}"
    yield f"Subject    {issue.subject}"
    yield f"Preheader  {issue.preheader}"
    yield f"Out of {selection.told} stories from {selection.sources} sources:"
    for place, (chosen, line) in enumerate(zip(selection.stories, issue.lines, strict=True), 1):
        yield ""
        yield f"{place}. {line.title}{_marks(draft, chosen)}"
        yield f"   {chosen.story.url}"
        yield from _reasons(chosen.score, chosen.reasons)
    if selection.runners_up:
        yield ""
        yield "Runners-up"
        for chosen in selection.runners_up:
            yield f"   {chosen.score:5.2f}  {chosen.story.title} ({chosen.story.source}){_marks(draft, chosen)}"
    if selection.term:
        yield ""
        yield f"The term: {selection.term.term.name}"
        yield from _reasons(selection.term.score, selection.term.reasons)
    yield ""
    yield from findings_lines(draft.findings)


def _marks(draft: Draft, chosen: Chosen) -> str:
    """What editors have done to a story, behind its title."""
    told = pages_of(chosen)
    wording = draft.edits.wording(told)
    edited = [name for name in ("title", "summary", "why") if getattr(wording, name) is not None]
    marks = [*(["pinned"] if draft.edits.places.keys() & told else []), *(["dropped"] if draft.edits.dropped & {*told} else [])]
    marks += [f"{', '.join(edited)} edited"] if edited else []
    return f" [{'; '.join(marks)}]" if marks else ""


def desk_lines(draft: Draft) -> Iterator[str]:
    """A draft as it lies on its desk, with the numbers by which `friday edit` takes stories."""
    issue, selection, edits = draft.issue, draft.selection, draft.edits
    frozen = "" if draft.state == "open" else f"; it is {_words(draft.state)}, so nothing of it can be changed"
    yield f"Issue {issue.number} of {draft.slot.name}{frozen}"
    for name, text in (("subject", issue.subject), ("preheader", issue.preheader), ("note", issue.note)):
        first, *more = text.splitlines() or [""]
        yield f"{name.capitalize():9}  {first}" + ("" if getattr(edits, name) is None else " [edited]")
        yield from (f"{'':9}  {line}" for line in more)
    yield ""
    yield from line_up_lines(draft)
    if selection.runners_up:
        yield ""
        yield "Runners-up"
        for place, chosen in enumerate(selection.runners_up, 1):
            yield f"{f'r{place}':>3}  {chosen.score:5.2f}  {chosen.story.title} ({chosen.story.source}){_marks(draft, chosen)}"
    if selection.term:
        yield ""
        chosen_by_hand = " [chosen]" if edits.term == selection.term.term.slug else ""
        yield f"The term: {_called(selection.term.term)}{chosen_by_hand}"
        if selection.other_terms:
            yield "   then: " + ", ".join(_called(each.term) for each in selection.other_terms)
    yield ""
    yield from findings_lines(draft.findings)


def line_up_lines(draft: Draft) -> Iterator[str]:
    """The selection in its order, numbered from 1 on."""
    if not draft.selection.stories:
        yield "  No story is in the selection."
    for place, (chosen, line) in enumerate(zip(draft.selection.stories, draft.issue.lines, strict=True), 1):
        yield f"{place:>3}  {line.title} ({chosen.story.source}){_marks(draft, chosen)}"


def deed_text(deed: Deed, titles: Mapping[str, str]) -> str:
    """What was done at a desk, as a sentence without its subject; `titles` are those of stories by their pages."""
    about = deed.about
    if deed.kind in (Kind.WORDS, Kind.HEAD):
        field = "“why it matters”" if about["field"] == "why" else f"the {about['field']}"
        what = field + (f" of {_title(about['page'], titles)}" if deed.kind is Kind.WORDS else "")
        if about["text"] is None:
            return f"brought back {what}" if deed.kind is Kind.WORDS else f"left {what} to the machine"
        return f"wrote {what}: {_quoted(about['text'])}" if about["text"] else f"took out {what}"
    if deed.kind is Kind.TERM:
        return f"chose the term {about['slug']}" if about["slug"] else "left the term to the machine"
    if deed.kind is Kind.TEST:
        return f"had a test sent to {about['to']:,} {'address' if about['to'] == 1 else 'addresses'}"
    stories = {name: _title(about[name], titles) for name in ("page", "other") if name in about}
    return _DEEDS[deed.kind].format(**{**about, **stories}) + (f": {about['why']}" if about.get("why") else "")


def _title(page: str, titles: Mapping[str, str]) -> str:
    return _quoted(titles[page]) if page in titles else page


def _quoted(text: str) -> str:
    return f"“{shorten(' '.join(text.split()), QUOTED)}”"


def deeds_lines(deeds: Sequence[Deed], titles: Mapping[str, str], zone: tzinfo) -> Iterator[str]:
    """Who did what when at a desk, the oldest first."""
    by_number = {deed.id: deed for deed in deeds}
    for deed in deeds:
        undone = by_number.get(deed.about["edit"]) if deed.kind is Kind.UNDO else None
        text = f"took back: {deed_text(undone, titles)}" if undone else deed_text(deed, titles)
        when = f"{deed.at.astimezone(zone):%Y-%m-%d %H:%M %Z}"
        yield f"{when}  {deed.by or 'somebody'} {text}" + (" (taken back)" if deed.undone else "")


def slot_lines(planned: Planned, standing: Standing) -> Iterator[str]:
    """A slot with when it opens, what there is to know of that, and how it stands."""
    local, at, row = planned.local, planned.slot.at, standing.row
    state = ("due, " if standing.timing is Timing.DUE else "") + _words(standing.state)
    yield f"{planned.slot.name}  {local:%a %d %b %H:%M %Z}  {at:%a %d %b %H:%M} UTC  {state}"
    yield from (f"{'':12}{note}" for note in planned.notes)
    if row.stance and standing.state == row.stance:
        yield f"{'':12}by {row.by or 'somebody'}" + (f": {row.why}" if row.why else "")


def slot_json(planned: Planned, standing: Standing) -> dict[str, Any]:
    """A slot as scripts read it."""
    return {
        "slot": planned.slot.name,
        "local": planned.local.isoformat(),
        "utc": planned.slot.at.astimezone(UTC).isoformat(),
        "notes": list(planned.notes),
        "timing": standing.timing.value,
        "state": standing.state,
        "by": standing.row.by,
        "why": standing.row.why,
    }


def story_lines(story: Story) -> Iterator[str]:
    """A story of the inbox."""
    yield f"{story.published:%Y-%m-%d}  {story.title} ({story.source})"
    yield f"{'':12}{story.url}"


def story_json(story: Story) -> dict[str, Any]:
    """A story of the inbox as scripts read it."""
    return {
        "url": story.url,
        "title": story.title,
        "source": story.source,
        "published": story.published.isoformat(),
        "summary": story.summary,
    }


def term_lines(term: Term) -> Iterator[str]:
    """A term with all that its file says."""
    yield f"{_called(term)}, {term.topic}"
    yield from ("", term.definition, "", "Why it matters", term.why, "", "In practice", term.practice)
    ends = [f"Also called: {', '.join(term.aliases)}"] if term.aliases else []
    ends += [f"Related: {', '.join(term.related)}"] if term.related else []
    ends += [f"{each.figure}: {each.source}, {each.url}" for each in term.figures]
    yield from ["", *ends] if ends else []


def next_terms_lines(draft: Draft) -> Iterator[str]:
    """The term of a draft and those that come next, with the reasons."""
    first = draft.selection.term
    for each in (*([first] if first else []), *draft.selection.other_terms):
        yield _called(each.term) + (" [chosen]" if draft.edits.term == each.term.slug else "")
        yield from _reasons(each.score, each.reasons)


def _called(term: Term) -> str:
    return f"{term.name} ({term.slug})"


def rehearsal_lines(rehearsal: Rehearsal) -> Iterator[str]:
    """What `publish` would do now."""
    if rehearsal.draft:
        yield from draft_lines(rehearsal.draft)
    if rehearsal.report:
        yield from report_lines(rehearsal.report)
    yield ""
    begun = rehearsal.report is not None and rehearsal.report.state != IssueState.APPROVED
    readers = "1 reader" if rehearsal.readers == 1 else f"{rehearsal.readers:,} readers"
    if rehearsal.objection:
        audience = "" if begun else f" Its audience is {readers}."
        yield f"It would not be sent now: {rehearsal.objection}.{audience} Nothing was written."
        return
    if rehearsal.report and rehearsal.report.state in (IssueState.SENT, IssueState.NEEDS_DECISION):
        yield "Publishing would send nothing. Nothing was written."
        return
    if begun:
        yield "Its audience is enrolled; publishing goes on with that. Nothing was written."
        return
    when = {Timing.EARLY: "before its slot opens", Timing.LATE: "though its grace is over", Timing.DUE: "since it is due"}
    yield f"It would go to {readers} now, {when[rehearsal.timing]}. Nothing was written."


def rehearsal_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """The same as scripts read it; `objection` is null where it would be sent."""
    return {
        "slot": rehearsal.slot.name,
        "timing": rehearsal.timing,
        "readers": rehearsal.readers,
        "objection": rehearsal.objection or None,
        "draft": draft_json(rehearsal.draft) if rehearsal.draft else None,
        "report": report_json(rehearsal.report) if rehearsal.report else None,
    }


def outlook_lines(outlook: Outlook) -> Iterator[str]:
    """What comes next, what came last, and how the jobs of the clock last ran."""
    local, at = outlook.next.local, outlook.next.slot.at
    # Its date is the slot's name even where the clock shows another day then.
    when = f"{local:%H:%M %Z on %A, %d %B %Y} ({at:%Y-%m-%d %H:%M} UTC)"
    notes = "".join(f"; {note}" for note in outlook.next.notes)
    yield f"{'Due' if outlook.due else 'Next'}: the slot {outlook.next.slot.name} {_opens(outlook)} at {when}{notes}."
    last = outlook.last
    yield f"Last: issue {last.number} of {last.slot} is {_words(last.state)}." if last else "Last: there was no issue yet."
    for job in outlook.jobs:
        yield _job_line(job)


def _opens(outlook: Outlook) -> str:
    return "opened" if outlook.due else "opens"


def _job_line(job: JobRow) -> str:
    ran = f"{job.began_at:%Y-%m-%d %H:%M} UTC"
    if job.ended_at is None or job.ended_at < job.began_at:
        return f"  {job.name}: began at {ran} and has not ended"
    if job.trouble:
        return f"  {job.name}: failed at {ran}: {job.trouble}"
    return f"  {job.name}: ran at {ran}" + (f"; {job.said}" if job.said else "")


def adopted_lines(adopted: Adopted) -> Iterator[str]:
    """What adopting a copy did, and what there is to do now."""
    yield "This newsroom is at home here from now on."
    for slot in adopted.missed:
        yield f"{slot} is called missed, since it may have been sent elsewhere: nothing is sent for it by itself."
    for slot in adopted.held:
        yield f"{slot} is held, since it may have been sent early elsewhere: `friday approve {slot}` lets it go if it has not."
    for slot in adopted.paused:
        yield f"{slot} is paused: look what was sent elsewhere; `friday resume {slot}` sends what is pending here."
    if adopted.mails:
        mails = "1 mail was" if adopted.mails == 1 else f"{adopted.mails:,} mails were"
        yield f"{mails} given up: whoever waited for a confirmation may sign up again."


def restored_lines(file: Path, aside: Path | None) -> Iterator[str]:
    """What restoring a backup did, what is lost by it, and what there is to do now."""
    yield f"The database holds what {file} does: it knows of nobody who left, or was suppressed or erased, after that was made."
    if aside:
        yield f"What it held before lies in {aside}/: delete that when you need it no more."
        yield "It is full of addresses, and `friday subscribers erase` does not reach it."
    yield "Nothing is sent before you run `friday adopt`."


def _words(state: str) -> str:
    return state.replace("_", " ")


def findings_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Findings, errors first, or the word that there are none."""
    found = list(findings)
    if not found:
        yield "No findings."
    for finding in found:
        yield f"{finding.level.value}: {finding.check}: {finding.what}" + (f" ({finding.cure})" if finding.cure else "")


def _reasons(score: float, reasons: Iterable[Reason]) -> Iterator[str]:
    yield f"   {score:.2f} points: " + "; ".join(f"{reason.points:+.2f} {reason.text}" for reason in reasons)


def draft_json(draft: Draft) -> dict[str, Any]:
    """A draft as scripts read it."""
    term = draft.selection.term
    return {
        "slot": draft.slot.name,
        "state": draft.state,
        "number": draft.issue.number,
        "subject": draft.issue.subject,
        "preheader": draft.issue.preheader,
        "told": draft.selection.told,
        "sources": draft.selection.sources,
        "stories": [_chosen_json(chosen) for chosen in draft.selection.stories],
        "runners_up": [_chosen_json(chosen) for chosen in draft.selection.runners_up],
        "term": {
            "slug": term.term.slug,
            "name": term.term.name,
            "score": term.score,
            "reasons": [_reason_json(reason) for reason in term.reasons],
        }
        if term
        else None,
        "findings": [
            {"level": each.level.value, "check": each.check, "what": each.what, "cure": each.cure} for each in draft.findings
        ],
        "digest": draft.rendered.digest,
        "edits": {
            "revision": draft.edits.revision,
            "pinned": sorted(draft.edits.places, key=draft.edits.places.__getitem__),
            "dropped": sorted(draft.edits.dropped),
        },
    }


def _chosen_json(chosen: Chosen) -> dict[str, Any]:
    story = chosen.story
    return {
        "url": story.url,
        "title": story.title,
        "source": story.source,
        "published": story.published.isoformat(),
        "score": chosen.score,
        "reasons": [_reason_json(reason) for reason in chosen.reasons],
        "also": [{"url": each.url, "title": each.title, "source": each.source} for each in chosen.also],
    }


def _reason_json(reason: Reason) -> dict[str, Any]:
    return {"points": reason.points, "text": reason.text}


def report_lines(report: Report) -> Iterator[str]:
    """How an issue stands, with every unknown copy by name."""
    yield f"Issue {report.number} of {report.slot} is {_words(report.state)}: {report.subject}"
    if report.state == IssueState.APPROVED:
        yield "Its bytes are frozen; its readers are enrolled when it is published."
        return
    parts = [f"{number:,} {state}" for state, number in report.counts.items() if number]
    yield f"{report.enrolled:,} enrolled = " + (" + ".join(parts) if parts else "nobody")
    if report.excluded:
        yield f"{report.excluded:,} suppressed and not enrolled"
    if report.fates:
        yield "Told of them since: " + ", ".join(f"{number:,} {_words(fate)}" for fate, number in report.fates.items())
    yield from map(_hour, report.hours)
    if report.paused_by == Pause.PERSON:
        yield f"Paused by a person; `friday resume {report.slot}` lets it go on."
    elif report.trouble:
        yield f"Paused: {report.trouble}"
    if report.paused_by == Pause.TROUBLE:
        yield f"Mend that and run `friday publish {report.slot}` again; nobody gets a second copy."
    if report.unknown:
        yield ""
        yield f"Nobody can tell whether these {len(report.unknown):,} left. They are not sent again unless you say so:"
        for each in report.unknown:
            yield f"   {each.address}  since {each.since:%Y-%m-%d %H:%M} UTC  {each.reason}"
        yield f"Decide by `friday resolve {report.slot} --accepted`, `--resend` or `--skip`, or one by one with `--reader`."


def _hour(hour: Hour) -> str:
    """How far the readers of one hour have come, on one line."""
    first, more = hour.zones[:_MOST_ZONES], len(hour.zones) - _MOST_ZONES
    zones = ", ".join(zone or "no zone of their own" for zone in first) + (f" and {more} more" if more > 0 else "")
    readers = sum(hour.counts.values())
    settled = readers - hour.counts.get(DeliveryState.PENDING, 0) - hour.counts.get(DeliveryState.SENDING, 0)
    return f"   {hour.due_at:%a %H:%M} UTC  {settled:,} of {readers:,} settled  {zones}".rstrip()


def report_json(report: Report) -> dict[str, Any]:
    """How an issue stands as scripts read it."""
    return {
        "slot": report.slot,
        "number": report.number,
        "state": report.state,
        "subject": report.subject,
        "enrolled": report.enrolled,
        "excluded": report.excluded,
        "counts": report.counts,
        "unknown": [
            {"address": each.address, "ref": each.ref, "since": each.since.isoformat(), "reason": each.reason}
            for each in report.unknown
        ],
        "trouble": report.trouble,
        "paused_by": report.paused_by,
        "fates": report.fates,
        "hours": [
            {"due_at": each.due_at.isoformat(), "zones": list(each.zones), "counts": each.counts} for each in report.hours
        ],
    }


def standing_text(newsroom: Newsroom, stands: Standing, readers: int, *, wrong: bool = False, moved: bool = False) -> str:
    """Where a slot stands and what comes next, in a sentence or two.

    Args:
        newsroom: whose slot.
        stands: how it stands.
        readers: how many would get its issue.
        wrong: an error blocks its draft.
        moved: this is a copy of the newsroom, which sends nothing.
    """
    if moved and not (stands.issue and stands.issue.closed_at):
        state = "not approved" if stands.state == "open" else stands.state.replace("_", " ")
        return f"{state.capitalize()}. This is a copy of the newsroom: nothing goes out from here."
    schedule, day = newsroom.schedule, stands.slot.day
    opens = spoken(stands.slot.at.astimezone(schedule.zone))
    when = f"{day:%A}, {day.day} {day:%B}, at {schedule.at:%H:%M} where each reader is" if schedule.reader_time else opens
    people = "1 reader" if readers == 1 else f"{readers:,} readers"
    who, why = stands.row.by or "somebody", f": {stands.row.why}" if stands.row.why else ""
    ready = "Its issue is approved. " if stands.issue else ""
    soon = "each at their own hour" if newsroom.schedule.reader_time else "within seconds"
    approved = {
        Timing.EARLY: f"Approved. It goes out by itself on {when}, to {people}.",
        Timing.DUE: f"Approved. Its slot has opened: it goes out to {people}, {soon}.",
        Timing.LATE: f"Approved. Its slot opened on {opens} and its grace is over: send it now, or skip it.",
    }
    missed = "send it now" if stands.issue else "approve it and send it"
    sentences = {
        "open": "" if stands.issue else _unapproved_text(newsroom, stands, when, opens, people, wrong=wrong),
        Stance.HELD: f"Held by {who}{why}. {ready}Nothing goes out before somebody lets it go.",
        Stance.SKIPPED: f"Skipped by {who}{why}. There is no issue for this slot.",
        Stance.MISSED: f"Missed{why}. Nothing goes out late by itself: {missed}, or skip it.",
        Stance.ORDERED: f"{who} has asked to send it now: it goes out to {people}, {soon}.",
        IssueState.APPROVED: approved[stands.timing],
        IssueState.SENDING: "On its way.",
        IssueState.PAUSED: _paused_text(stands.issue) if stands.issue else "",
        IssueState.SENT: "Every reader is accounted for.",
        IssueState.NEEDS_DECISION: f"Nobody can tell of some copies; `friday report {stands.slot.name}` tells of which.",
    }
    return sentences[stands.state]


def _paused_text(issue: IssueRow) -> str:
    if issue.paused_by == Pause.PERSON:
        return f"Paused by a person; `friday resume {issue.slot}` lets it go on."
    return f"Paused: {issue.trouble}."


def spoken(at: datetime) -> str:
    """An instant as a sentence names it: `Friday, 27 November, at 09:00 CET`."""
    return f"{at:%A}, {at.day} {at:%B}, at {at:%H:%M} {at:%Z}"


def _unapproved_text(newsroom: Newsroom, stands: Standing, when: str, opens: str, people: str, *, wrong: bool) -> str:
    then = f"on {opens}" if newsroom.schedule.reader_time else "then"
    unapproved = newsroom.config.timetable.unapproved
    if wrong and stands.timing is not Timing.LATE:
        opened = "opened" if stands.timing is Timing.DUE else "opens"
        return f"Not approved. Its slot {opened} on {opens}, and it cannot go out before what is wrong with it is mended."
    if stands.timing is Timing.LATE:
        return f"Not approved. Its slot opened on {opens} and its grace is over: approve it, then send it, or skip it."
    if stands.timing is Timing.DUE:
        held = "it waits for you" if unapproved == "hold" else "it is about to go out, unless something must be mended first"
        return f"Not approved. Its slot has opened, and {held}."
    if unapproved == "send":
        return f"Not approved yet. If nobody does anything, it goes out on {when} to {people}, as it is {then}."
    by_then = f"by {opens}" if newsroom.schedule.reader_time else "by then"
    otherwise = "it waits" if unapproved == "hold" else "there is no issue"
    return f"Not approved yet. It goes out to {people} on {when} if somebody has approved it {by_then}; else {otherwise}."
