"""The route, from a slot to a sent issue.

    draft(newsroom, slot)            the left half: it reads and thinks, and writes nothing
        inbox.window                 the stories of the seven days that end at the slot
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
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count

from pipeline import inbox, ledger, place
from pipeline.books import IssueRow, IssueState, Pause
from pipeline.compose import compose
from pipeline.deliver import Delivery
from pipeline.errors import ContentError, DecisionNeeded, Problem, UsageError
from pipeline.feature import feature
from pipeline.issue import Draft, Finding, RenderedIssue, Slot, Story
from pipeline.ledger import Decision, Report
from pipeline.newsroom import Newsroom, is_running
from pipeline.pick import pick
from pipeline.proof import proof
from pipeline.render import render
from pipeline.schedule import Timing, instant
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
        stories = inbox.window(session, slot)
        past = ledger.past_stories(session, before=slot)
        featured = ledger.featured_terms(session, before=slot)
        number = ledger.number_of(session, slot)
        frozen = ledger.find(session, slot.name)
    selection = pick(stories, past, newsroom.config.picking, own.stories, newsroom.trust)
    selection = feature(selection, glossary, featured, slot.day)
    issue = compose(number, slot, selection, glossary, newsroom.masthead)
    rendered = render(issue, newsroom.templates)
    findings = proof(issue, rendered, own.stories, own.fewest)
    return Draft(slot, selection, issue, rendered, findings, frozen.state if frozen else "open")


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


def approve(newsroom: Newsroom, slot: Slot) -> Report:
    """Freeze a slot's issue early. What is approved is what is sent, to the byte; twice is as once.

    Raises:
        ContentError: a finding blocks it.
    """
    issue = _frozen(newsroom, slot) or _freeze(newsroom, slot)
    return _report(newsroom, issue)


def reopen(newsroom: Newsroom, slot: Slot) -> None:
    """Void an approval.

    Raises:
        UsageError: nothing is approved.
        DecisionNeeded: readers are enrolled already.
    """
    with newsroom.database.write() as session:
        ledger.reopen(session, slot.name)


def publish(
    newsroom: Newsroom,
    slot: Slot,
    *,
    anyway: bool = False,
    agree: Callable[[RenderedIssue, int], bool] = lambda _issue, _readers: True,
    progress: Callable[[int, int], None] = lambda _settled, _copies: None,
) -> Report:
    """Run the whole route for a slot. Whoever got a copy before gets none again.

    Args:
        newsroom: what the route reaches for.
        slot: which issue.
        anyway: begin though the slot has not opened yet, or its grace is over. Once the audience is
            enrolled that decision has been taken, and the issue is finished whenever this is called.
        agree: asked with the issue and the number of its readers before they are enrolled.
        progress: told how many copies of the issue are settled, and of how many.

    Raises:
        ContentError: a finding blocks it; nothing was written.
        DecisionNeeded: not due, or `agree` said no, and nothing was enrolled; a person has paused the issue; or this is a
            copy of the newsroom.
        ProviderError: the provider stands in the way; the issue is paused and nothing is lost.
    """
    place.require(newsroom)
    issue = _frozen(newsroom, slot)
    if issue is None or issue.state == IssueState.APPROVED:
        _see_that_it_is_due(newsroom, slot, anyway=anyway)
        drafted = None if issue else _checked(draft(newsroom, slot))
        rendered = issue.rendered if issue else drafted.rendered if drafted else None
        readers = count_readers(newsroom)
        if not readers:
            raise DecisionNeeded(_nobody(newsroom))
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
    """What `publish` would do now, and nothing done: a draft, or the report of what is frozen already."""

    slot: Slot
    timing: Timing
    readers: int
    draft: Draft | None
    report: Report | None


def rehearse(newsroom: Newsroom, slot: Slot) -> Rehearsal:
    """Look at everything that `publish` would look at, and write nothing.

    Raises:
        ContentError: a term or a template is broken.
    """
    issue = _frozen(newsroom, slot)
    return Rehearsal(
        slot,
        newsroom.schedule.timing(slot, newsroom.now()),
        count_readers(newsroom),
        None if issue else draft(newsroom, slot),
        _report(newsroom, issue) if issue else None,
    )


def publish_due(newsroom: Newsroom) -> Report | None:
    """What the clock rings for: publish the slot that is due, unless that is done or waits for a person.

    An issue that was paused for what may pass by itself is tried again when it is time, and one that is spread
    over days goes on with each of them, however long its slot is over. A machine that was off must look at the
    week before it picks from it.

    Raises:
        FridayError: as `publish` does.
    """
    with newsroom.database.read() as session:
        spread = ledger.to_go_on_with(session, newsroom.now(), spreads=newsroom.ramp is not None)
    if spread:
        # Not by the schedule, which may have another weekday by now.
        day = date.fromisoformat(spread.slot)
        return publish(newsroom, Slot(day, instant(day, newsroom.schedule.at, newsroom.schedule.zone)))
    slot = newsroom.schedule.due(newsroom.now())
    if slot is None:
        return None
    issue = _frozen(newsroom, slot)
    if issue and issue.state not in (IssueState.APPROVED, IssueState.SENDING):
        waits = issue.state != IssueState.PAUSED or issue.resume_at is None or newsroom.now() < issue.resume_at
        if waits:
            return None
    if issue is None:
        _see_that_the_week_was_looked_at(newsroom)
    return publish(newsroom, slot)


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


def _freeze(newsroom: Newsroom, slot: Slot) -> IssueRow:
    drafted = _checked(draft(newsroom, slot))
    with newsroom.database.write() as session:
        return ledger.freeze(session, drafted, newsroom.now())


def _enrol(newsroom: Newsroom, slot: Slot, drafted: Draft | None) -> IssueRow:
    with newsroom.database.write() as session:
        # Whoever froze the slot meanwhile has decided what is sent.
        issue = ledger.find(session, slot.name) or (ledger.freeze(session, drafted, newsroom.now()) if drafted else None)
        if issue is None:
            raise DecisionNeeded(f"the approval of {slot.name} was voided meanwhile: look at it again")
        ledger.enrol(session, issue, newsroom.now(), newsroom.audience)
        session.refresh(issue)
        return issue


def _go_on(newsroom: Newsroom, issue: IssueRow) -> IssueRow:
    """Let an issue go on that was paused for what passes.

    Raises:
        DecisionNeeded: a person has paused it, perhaps since it was looked at.
    """
    with newsroom.database.write() as session:
        found = session.get_one(IssueRow, issue.id, with_for_update=True)
        if found.paused_by == Pause.PERSON:
            raise DecisionNeeded(f"{found.slot} was paused by a person; `friday resume {found.slot}` lets it go on")
        ledger.resume(session, found)
        return found


def _see_that_the_week_was_looked_at(newsroom: Newsroom) -> None:
    with newsroom.database.read() as session:
        last = inbox.last_success(session)
    often = timedelta(hours=newsroom.config.timetable.collect_every_hours)
    if newsroom.sources and (last is None or newsroom.now() - last > often + SLACK):
        raise DecisionNeeded("waiting, since no source could be read lately; `friday publish` sends what there is")


def _see_that_it_is_due(newsroom: Newsroom, slot: Slot, *, anyway: bool) -> None:
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
