"""How the route's values look in a terminal and as JSON; it computes nothing and prints nothing."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.books import IssueState, JobRow, Pause
from pipeline.collect import Visit
from pipeline.issue import Chosen, Draft, Finding, Reason
from pipeline.jobs import Outlook
from pipeline.ledger import Report
from pipeline.place import Adopted
from pipeline.publish import Rehearsal
from pipeline.schedule import Timing
from subscribers.exchange import Imported


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
    for place, chosen in enumerate(selection.stories, 1):
        yield ""
        yield f"{place}. {chosen.story.title}"
        yield f"   {chosen.story.url}"
        yield from _reasons(chosen.score, chosen.reasons)
    if selection.runners_up:
        yield ""
        yield "Runners-up"
        for chosen in selection.runners_up:
            yield f"   {chosen.score:5.2f}  {chosen.story.title} ({chosen.story.source})"
    if selection.term:
        yield ""
        yield f"The term: {selection.term.term.name}"
        yield from _reasons(selection.term.score, selection.term.reasons)
    yield ""
    yield from findings_lines(draft.findings)


def rehearsal_lines(rehearsal: Rehearsal) -> Iterator[str]:
    """What `publish` would do now."""
    if rehearsal.draft:
        yield from draft_lines(rehearsal.draft)
    if rehearsal.report:
        yield from report_lines(rehearsal.report)
    yield ""
    if rehearsal.report and rehearsal.report.state in (IssueState.SENT, IssueState.NEEDS_DECISION):
        yield "Publishing would send nothing. Nothing was written."
        return
    if rehearsal.report and rehearsal.report.state != IssueState.APPROVED:
        yield "Its audience is enrolled; publishing goes on with that. Nothing was written."
        return
    when = {Timing.EARLY: "It has not opened yet (--anyway).", Timing.LATE: "Its grace is over (--anyway)."}
    blocked = " Its errors would stop it." if rehearsal.draft and rehearsal.draft.errors else ""
    readers = "1 reader" if rehearsal.readers == 1 else f"{rehearsal.readers:,} readers"
    yield f"It would go to {readers}. {when.get(rehearsal.timing, 'It is due.')}{blocked} Nothing was written."


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
    for slot in adopted.paused:
        yield f"{slot} is paused: look what was sent elsewhere; `friday resume {slot}` sends what is pending here."
    if adopted.mails:
        mails = "1 mail was" if adopted.mails == 1 else f"{adopted.mails:,} mails were"
        yield f"{mails} given up: whoever waited for a confirmation may sign up again."


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
    }
