"""The route, from a slot to a sent issue.

    draft(newsroom, slot)            the left half: it reads and thinks, and writes nothing
        inbox.window                 the stories of the seven days that end at the slot
        desk.edits                   what editors have pinned, dropped and written
        pick.pick                    group, score, choose, say why             <- pick._reasons: a story's points
        feature.feature              the term that fits and has waited longest
        compose.compose              number, subject, preheader, lines
        render.render                Jinja2 and premailer, once for everybody  <- templates/issue/weekly
        proof.proof                  findings; an error blocks the next step

    publish(newsroom, slot)          the whole route; call it as often as you like
        ledger.freeze                the bytes with their hash, once: the first write
        ledger.enrol                 the audience, once
        deliver.Delivery             claim -> provider.send -> settle, batch by batch  <- providers/
        ledger.report                who got it, who did not, and why

Left of `freeze` nothing is written; right of it nothing is chosen. A crash, a late start, a second process
and a nervous operator are all handled by one sentence: call `publish(slot)` again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import count
from zoneinfo import ZoneInfo, available_timezones

from sqlmodel import Session

from pipeline import desk, inbox, ledger, place
from pipeline.books import IssueRow, IssueState, Pause, SlotRow, Stance
from pipeline.compose import compose
from pipeline.deliver import Delivery
from pipeline.desk import Kind
from pipeline.errors import ContentError, DecisionNeeded, Problem, UsageError, Waits
from pipeline.feature import feature
from pipeline.issue import Draft, Finding, RenderedIssue, Slot, Story
from pipeline.ledger import Decision, Report
from pipeline.newsroom import Newsroom, is_running
from pipeline.pick import pick
from pipeline.proof import proof
from pipeline.render import render
from pipeline.schedule import Timing
from pipeline.text import canonical_url
from subscribers import roll

# Collecting itself may take a while, and rings a little late.
SLACK = timedelta(hours=1)
# Providers keep their logs for a few days at least.
LOG_WINDOW = timedelta(days=3)


def draft(newsroom: Newsroom, slot: Slot) -> Draft:
    """Everything that can be known about a slot's issue before it is frozen. Writes nothing.

    Raises:
        ContentError: a term or a template is broken.
    """
    glossary = newsroom.glossary
    own = newsroom.config.newsletter
    with newsroom.database.read() as session:
        edits = desk.edits(session, slot.name)
        stories = inbox.window(session, slot)
        known = {canonical_url(story.url) for story in stories}
        stories += inbox.told_on(session, (edits.places.keys() | edits.dropped) - known).values()
        past = ledger.past_stories(session, before=slot)
        featured = ledger.featured_terms(session, before=slot)
        number = ledger.number_of(session, slot)
        frozen = ledger.find(session, slot.name)
    selection = pick(stories, past, newsroom.config.picking, own.stories, newsroom.trust, edits)
    selection = feature(selection, glossary, featured, slot.day, edits.term)
    issue = compose(number, slot, selection, glossary, newsroom.masthead, edits)
    rendered = render(issue, newsroom.templates)
    findings = proof(issue, rendered, own.stories, own.fewest)
    return Draft(slot, selection, issue, rendered, findings, frozen.state if frozen else "open", edits)


def check(newsroom: Newsroom) -> int:
    """See that terms and templates can be read and printed; how many terms there are. Needs no database.

    Raises:
        ContentError: every mistake in the terms, else the first in the templates.
    """
    glossary = newsroom.glossary
    slot = newsroom.schedule.current(newsroom.now())
    story = Story("https://example.org/", "A story", "A source", slot.at, "What it says.", "Why it matters.", 3)
    selection = feature(pick([story], [], newsroom.config.picking, 1), glossary, {}, slot.day)
    render(compose(1, slot, selection, glossary, newsroom.masthead), newsroom.templates)
    return len(glossary)


@dataclass(frozen=True, slots=True)
class Look:
    """The very bytes of a slot, whether they are frozen, and the findings on a draft."""

    rendered: RenderedIssue
    frozen: bool
    findings: tuple[Finding, ...] = ()


def look(newsroom: Newsroom, slot: Slot) -> Look:
    """What would be sent for a slot: the frozen bytes if there are any, else those of its draft.

    Raises:
        ContentError: a term or a template is broken.
    """
    issue = _frozen(newsroom, slot)
    if issue:
        return Look(issue.rendered, frozen=True)
    drafted = draft(newsroom, slot)
    return Look(drafted.rendered, frozen=False, findings=drafted.findings)


def is_blocked(newsroom: Newsroom, slot: Slot) -> bool:
    """Whether something must be mended before a slot's draft can go out."""
    try:
        return bool(draft(newsroom, slot).errors)
    except ContentError:
        return True


def approve(newsroom: Newsroom, slot: Slot, by: str = "", seen: str = "") -> Report:
    """Freeze a slot's issue early. What is approved is what is sent, to the byte; twice is as once.

    A slot that is held is let go by that.

    Args:
        newsroom: what the route reaches for.
        slot: which issue.
        by: who approves it.
        seen: the digest of what was looked at; nothing else is approved then.

    Raises:
        ContentError: a finding blocks it.
        DecisionNeeded: it is not what was looked at any more, or the slot is skipped.
    """
    issue = _frozen(newsroom, slot)
    drafted = None if issue else draft(newsroom, slot)
    if seen and seen != (issue.digest if issue else drafted and drafted.rendered.digest):
        raise DecisionNeeded(f"the draft of {slot.name} has changed since you looked at it: look again")
    drafted = _checked(drafted) if drafted else None
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        if row.stance == Stance.SKIPPED:
            raise DecisionNeeded(_objection(row))
        issue = _frozen_in(session, slot, drafted, newsroom.now())
        if seen and seen != issue.digest:
            raise DecisionNeeded(f"{slot.name} was approved meanwhile as it is now: look again")
        if issue.state == IssueState.APPROVED:
            desk.write(session, slot.name, Kind.APPROVE, {"digest": issue.digest}, by, newsroom.now())
        if row.stance == Stance.HELD:
            late = newsroom.schedule.timing(slot, newsroom.now()) is Timing.LATE
            desk.take_stance(row, Stance.MISSED if late else Stance.NONE, by, newsroom.now())
    return _report(newsroom, issue)


def _frozen_in(session: Session, slot: Slot, drafted: Draft | None, now: datetime) -> IssueRow:
    """The issue of a slot whose row is locked, frozen now if it was not.

    Raises:
        DecisionNeeded: the desk or the approval was changed since the draft was made.
    """
    issue = ledger.find(session, slot.name)
    if issue:
        # Whoever froze the slot meanwhile has decided what is sent.
        return issue
    if drafted is None:
        raise DecisionNeeded(f"the approval of {slot.name} was voided meanwhile: look at it again")
    if desk.revision(session, slot.name) != drafted.edits.revision:
        raise DecisionNeeded(f"the draft of {slot.name} was changed meanwhile: look at it again")
    return ledger.freeze(session, drafted, now)


def reopen(newsroom: Newsroom, slot: Slot, by: str = "") -> None:
    """Void an approval, and whatever else was said of a slot: it is as open as it was.

    An issue that was held, or that would go out at once as it is, is held until it is approved again.

    Raises:
        UsageError: nothing is approved, held or skipped.
        DecisionNeeded: readers are enrolled already.
    """
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        issue = ledger.find(session, slot.name)
        if row.stance == Stance.NONE or issue:
            ledger.reopen(session, slot.name)
        due = newsroom.schedule.timing(slot, newsroom.now()) is Timing.DUE
        if issue and (due or row.stance == Stance.HELD):
            desk.take_stance(row, Stance.HELD, by, newsroom.now(), "reopened to be changed")
        else:
            desk.take_stance(row, Stance.NONE, by, newsroom.now())
        desk.write(session, slot.name, Kind.REOPEN, {}, by, newsroom.now())


def _objection(row: SlotRow) -> str:
    """Why a slot is not published, though its time has come."""
    who, again = row.by or "a person", f"`friday reopen {row.slot}` opens it again"
    if row.stance == Stance.SKIPPED:
        return f"{row.slot} is skipped, by {who}; {again}"
    return f"{row.slot} is held, by {who}; `friday approve {row.slot}` lets it go, and {again}"


def publish(
    newsroom: Newsroom,
    slot: Slot,
    *,
    anyway: bool = False,
    only_approved: bool = False,
    agree: Callable[[RenderedIssue, int], bool] = lambda _issue, _readers: True,
    progress: Callable[[int, int], None] = lambda _settled, _copies: None,
) -> Report:
    """Run the whole route for a slot. Whoever got a copy before gets none again.

    Args:
        newsroom: what the route reaches for.
        slot: which issue.
        anyway: begin though the slot has not opened yet, or its grace is over. Once the audience is
            enrolled that decision has been taken, and the issue is finished whenever this is called.
            Where readers have hours of their own, no copy leaves before its reader's hour, whoever calls.
        only_approved: begin only with what is approved, and draft nothing.
        agree: asked with the issue and the number of its readers before they are enrolled.
        progress: told how many copies of the issue are settled, and of how many.

    Raises:
        ContentError: a finding blocks it; nothing was written.
        DecisionNeeded: not due, or `agree` said no, and nothing was enrolled; a person has paused the issue; the rest of
            its readers have their hour later; or this is a copy of the newsroom.
        ProviderError: the provider stands in the way; the issue is paused and nothing is lost.
    """
    place.require(newsroom)
    issue = _frozen(newsroom, slot)
    if issue is None and only_approved:
        raise DecisionNeeded(f"the approval of {slot.name} was voided meanwhile; nothing was sent")
    if issue is None or issue.state == IssueState.APPROVED:
        _see_that_it_may_begin(newsroom, slot, anyway=anyway)
        drafted = None if issue else _checked(draft(newsroom, slot))
        rendered = issue.rendered if issue else drafted.rendered if drafted else None
        readers = count_readers(newsroom)
        if not readers:
            raise Waits(_nobody(newsroom))
        if rendered is None or not agree(rendered, readers):
            raise DecisionNeeded("not sent; nothing was written")
        issue = _enrol(newsroom, slot, drafted)
    if issue.state == IssueState.PAUSED:
        issue = _go_on(newsroom, issue)
    delivery = _delivery(newsroom, issue, progress)
    if issue.state == IssueState.NEEDS_DECISION:
        _settle_unknown(delivery)
    elif issue.state in (IssueState.SENDING, IssueState.PAUSED):
        delivery.run()
    return _report(newsroom, issue)


def pause(newsroom: Newsroom, slot: Slot) -> None:
    """Stop an issue's sending, wherever it runs, until a person resumes it; what is in flight comes home.

    Raises:
        UsageError: nothing is being sent for the slot.
    """
    issue = _known(newsroom, slot)
    with newsroom.database.write() as session:
        # One that would go on by itself, after an outage or tomorrow, waits for a person from now on.
        ledger.resume(session, issue)
        if not ledger.pause(session, issue, Pause.PERSON, "paused by a person"):
            raise UsageError(f"{slot.name} is not being sent: it is {issue.state.replace('_', ' ')}")


def resume(newsroom: Newsroom, slot: Slot) -> None:
    """Let a paused issue go on; whoever publishes next sends the rest.

    Raises:
        UsageError: the slot's issue is not paused.
    """
    issue = _known(newsroom, slot)
    with newsroom.database.write() as session:
        if not ledger.resume(session, issue):
            raise UsageError(f"{slot.name} is not paused: it is {issue.state.replace('_', ' ')}")


def look_up_unknown(newsroom: Newsroom) -> int:
    """Ask the provider's log about the copies of late issues that nobody can tell of; how many it decided.

    Raises:
        ProviderError: the log cannot be read now.
    """
    with newsroom.database.read() as session:
        issues = ledger.undecided(session, newsroom.now() - LOG_WINDOW)
    return sum(_settle_unknown(_delivery(newsroom, issue)) for issue in issues)


# A process may have several runs at a time, and each knows its own batches.
_RUNS = count(1)


def _settle_unknown(delivery: Delivery) -> int:
    decided = delivery.decide_unknown()
    if decided.again:
        delivery.run()
    return decided.by_log


def _delivery(
    newsroom: Newsroom, issue: IssueRow, progress: Callable[[int, int], None] = lambda _settled, _copies: None
) -> Delivery:
    return Delivery(
        newsroom.database,
        newsroom.provider,
        issue,
        f"{newsroom.runner}/{next(_RUNS)}",
        is_running,
        newsroom.now,
        newsroom.wait,
        newsroom.stopping,
        progress,
        newsroom.ramp,
        newsroom.resend_unknown,
    )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What `publish` would do now, and nothing done: a draft, or the report of what is frozen already.

    `objection` is why it would refuse, empty where it would not.
    """

    slot: Slot
    timing: Timing
    readers: int
    draft: Draft | None
    report: Report | None
    objection: str = ""


def rehearse(newsroom: Newsroom, slot: Slot, *, anyway: bool = False) -> Rehearsal:
    """Look at everything that `publish` would look at, and write nothing.

    Raises:
        ContentError: a term or a template is broken.
    """
    with newsroom.database.read() as session:
        issue = ledger.find(session, slot.name)
    drafted, readers, objection = None if issue else draft(newsroom, slot), count_readers(newsroom), ""
    begins = issue is None or issue.state == IssueState.APPROVED
    try:
        place.require(newsroom)
        if begins:
            _see_that_it_may_begin(newsroom, slot, anyway=anyway)
        elif issue:
            _see_that_no_person_has_paused_it(issue)
    except DecisionNeeded as error:
        objection = str(error)
    if drafted and drafted.errors:
        objection = objection or "; ".join(finding.what for finding in drafted.errors)
    if begins and not readers:
        objection = objection or _nobody(newsroom)
    report = _report(newsroom, issue) if issue else None
    return Rehearsal(slot, newsroom.schedule.timing(slot, newsroom.now()), readers, drafted, report, objection)


def publish_due(newsroom: Newsroom) -> Report | None:
    """What the clock rings for: publish the slot that is due, unless that is done or waits for a person.

    What was begun goes on first. A machine that was off must look at the week before it picks from it.

    Raises:
        FridayError: as `publish` does.
    """
    begun = _to_go_on_with(newsroom)
    if begun:
        return publish(newsroom, begun)
    with newsroom.database.read() as session:
        ordered = next(iter(desk.ordered(session, newsroom.now())), None)
    if ordered:
        return publish(newsroom, _slot_of(newsroom, ordered), anyway=True, only_approved=True)
    slot = newsroom.schedule.due(newsroom.now())
    if slot is None:
        return None
    with newsroom.database.read() as session:
        issue, stance = ledger.find(session, slot.name), desk.slot(session, slot.name).stance
    only_approved = newsroom.config.timetable.unapproved != "send"
    if stance not in (Stance.NONE, Stance.ORDERED) or (issue is None and only_approved):
        return None
    if issue and issue.state != IssueState.APPROVED:
        return None
    if issue is None:
        _see_that_the_week_was_looked_at(newsroom)
    return publish(newsroom, slot, only_approved=only_approved)


def named(newsroom: Newsroom, name: str) -> Slot:
    """The slot of an ISO 8601 date: one of the schedule, or one that has left it and of which something is known.

    Raises:
        UsageError: the text is no date, or that day has no slot.
    """
    try:
        return newsroom.schedule.named(name)
    except UsageError:
        with newsroom.database.read() as session:
            known = ledger.find(session, name) or session.get(SlotRow, name)
        if not known:
            raise
    return _slot_of(newsroom, name)


def _slot_of(newsroom: Newsroom, name: str) -> Slot:
    """A slot by its name, though the schedule may have another weekday by now."""
    day = date.fromisoformat(name)
    return Slot(day, newsroom.schedule.opening(day))


def _to_go_on_with(newsroom: Newsroom) -> Slot | None:
    """The slot of the oldest issue that goes on by itself now.

    An issue that was interrupted, or paused for what may pass by itself or until the next readers' hour, does so from
    the opening of its slot until the closing; one that a ramp spreads over days however long its slot is over.
    """
    now = newsroom.now()
    with newsroom.database.read() as session:
        issues = ledger.to_go_on_with(session, now)
    for issue in issues:
        if goes_on(newsroom, issue, now):
            return _slot_of(newsroom, issue.slot)
    return None


def goes_on(newsroom: Newsroom, issue: IssueRow, at: datetime) -> bool:
    """Whether the clock would go on with an issue at an instant, if nobody has ordered it."""
    # Not by the slots of the schedule, which may have another weekday by now; nor need it have readers' hours still.
    by_hours = newsroom.schedule.reader_time or issue.paused_by == Pause.ZONES
    schedule, day = replace(newsroom.schedule, reader_time=by_hours), date.fromisoformat(issue.slot)
    slot = Slot(day, schedule.opening(day))
    spreads = newsroom.ramp is not None and issue.paused_by != Pause.TROUBLE
    return issue.paused_by == Pause.RAMP or spreads or slot.at <= at <= schedule.closing(slot)


def report(newsroom: Newsroom, slot: Slot) -> Report:
    """How a slot's issue stands.

    Raises:
        UsageError: nothing is frozen for the slot.
    """
    return _report(newsroom, _known(newsroom, slot))


def resolve(newsroom: Newsroom, slot: Slot, decision: Decision, address: str | None = None) -> int:
    """Decide about the unknown copies of an issue, all of them or one reader's; how many there were.

    Raises:
        UsageError: nothing is frozen for the slot, or it is no address.
    """
    issue = _known(newsroom, slot)
    key = roll.normalise(address).key if address else None
    with newsroom.database.write() as session:
        return ledger.resolve(session, issue, decision, key, newsroom.now())


def count_readers(newsroom: Newsroom) -> int:
    """How many would get an issue that were enrolled now."""
    with newsroom.database.read() as session:
        return roll.count_mailable(session, newsroom.now(), newsroom.audience)


def _nobody(newsroom: Newsroom) -> str:
    with newsroom.database.read() as session:
        others = roll.count_mailable(session, newsroom.now())
    if not others:
        return "nobody would get it: there is no active subscriber; see `friday subscribers import`"
    return f"nobody would get it: none of {others:,} mailable subscribers is in newsletter.audience"


def _frozen(newsroom: Newsroom, slot: Slot) -> IssueRow | None:
    with newsroom.database.read() as session:
        return ledger.find(session, slot.name)


def _known(newsroom: Newsroom, slot: Slot) -> IssueRow:
    issue = _frozen(newsroom, slot)
    if issue is None:
        raise UsageError(f"nothing is frozen for {slot.name} yet: see `friday draft {slot.name}`")
    return issue


def _report(newsroom: Newsroom, issue: IssueRow) -> Report:
    with newsroom.database.read() as session:
        return ledger.report(session, session.get_one(IssueRow, issue.id))


def _checked(drafted: Draft) -> Draft:
    if drafted.errors:
        raise ContentError([Problem(each.check, each.what, each.cure) for each in drafted.errors])
    return drafted


def _enrol(newsroom: Newsroom, slot: Slot, drafted: Draft | None) -> IssueRow:
    with newsroom.database.write() as session:
        row = desk.lock(session, slot.name)
        if row.stance in (Stance.HELD, Stance.SKIPPED):
            raise DecisionNeeded(_objection(row))
        issue = _frozen_in(session, slot, drafted, newsroom.now())
        # What was ordered is gone on with after a crash or a pause, whatever the time is.
        if row.stance != Stance.ORDERED:
            desk.take_stance(row, Stance.NONE, row.by, newsroom.now())
        ledger.enrol(session, issue, newsroom.now(), newsroom.audience, _hours(newsroom, slot))
        session.refresh(issue)
        return issue


def _hours(newsroom: Newsroom, slot: Slot) -> Callable[[str], datetime] | None:
    """What tells when it is time in a zone, if readers have hours of their own; no zone is as good as the newsletter's."""
    if not newsroom.schedule.reader_time:
        return None
    known = available_timezones()
    return lambda zone: newsroom.schedule.hour(slot.day, ZoneInfo(zone) if zone in known else None)


def _go_on(newsroom: Newsroom, issue: IssueRow) -> IssueRow:
    """Let an issue go on that was paused for what passes.

    Raises:
        DecisionNeeded: a person has paused it, perhaps since it was looked at.
    """
    with newsroom.database.write() as session:
        found = session.get_one(IssueRow, issue.id, with_for_update=True)
        _see_that_no_person_has_paused_it(found)
        ledger.resume(session, found)
        return found


def _see_that_no_person_has_paused_it(issue: IssueRow) -> None:
    if issue.paused_by == Pause.PERSON:
        raise DecisionNeeded(f"{issue.slot} was paused by a person; `friday resume {issue.slot}` lets it go on")


def _see_that_the_week_was_looked_at(newsroom: Newsroom) -> None:
    often = timedelta(hours=newsroom.config.timetable.collect_every_hours)
    with newsroom.database.read() as session:
        last = inbox.last_success(session)
        tried = inbox.last_visit(session)
    over = newsroom.now() - often - SLACK
    if newsroom.sources and (last is None or last < over):
        # A clock that was away looks through the sources at once, and then knows more.
        refusal = Waits if tried and tried >= over else DecisionNeeded
        raise refusal("waiting, since no source could be read lately; `friday publish` sends what there is")


def _see_that_it_may_begin(newsroom: Newsroom, slot: Slot, *, anyway: bool) -> None:
    with newsroom.database.read() as session:
        row = desk.slot(session, slot.name)
    if row.stance in (Stance.HELD, Stance.SKIPPED):
        raise DecisionNeeded(_objection(row))
    timing = newsroom.schedule.timing(slot, newsroom.now())
    if anyway or timing is Timing.DUE:
        return
    when = slot.at.astimezone(newsroom.schedule.zone)
    if timing is Timing.EARLY:
        raise DecisionNeeded(f"{slot.name} opens at {when:%H:%M on %A, %d %B} ({when:%Z}); --anyway sends it now")
    hours = newsroom.schedule.grace.total_seconds() / 3600
    raise DecisionNeeded(
        f"{slot.name} opened at {when:%H:%M on %A, %d %B} and its grace of {hours:g} hours is over; --anyway sends it late"
    )
