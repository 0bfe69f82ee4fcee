"""Proves that rendered HTML mails are valid, accessible and fit the screen."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lxml.html
from playwright.sync_api import Browser, Page, Route, sync_playwright

HERE = Path(__file__).resolve().parent
VNU = HERE / "node_modules/vnu-jar/build/dist/vnu.jar"
AXE = HERE / "node_modules/axe-core/axe.min.js"
WIDEST = HERE / "widest.js"
BAD = HERE / "bad.html"

MAX_HTML = 80 * 1024
MAX_STYLE = 16 * 1024
LINKING = ("href", "src")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
STATIC = ["vnu", "html bytes", "style bytes", "links", "alt"]
IN_VIEW = ["axe", "scroll", "requests"]
MUST_BITE = ["vnu", "links", "alt", *IN_VIEW]

# What the HTML checker may say of a mail: a pattern for the whole message, and why.
UNKNOWN = r"CSS: '{0}': Property '{0}' doesn't exist\."
OBSOLETE = r"The '(?:{})' attribute on the '(?:{})' element is obsolete\. .*"
ALLOWED = {
    OBSOLETE.format("cellpadding|cellspacing|border", "table"): "Outlook pads and borders layout tables unless these are 0",
    OBSOLETE.format("width|height", "table|td|th"): "Outlook ignores sizes in CSS",
    OBSOLETE.format("bgcolor", "body|table|tr|td|th"): "the colour stays where a client drops background from CSS",
    OBSOLETE.format("align|valign", "table|tr|td|th"): "Outlook knows no auto margins and aligns by attribute",
    UNKNOWN.format(r"mso-[a-z-]+"): "Outlook's own properties, which others skip",
    UNKNOWN.format("supported-color-schemes"): "older Apple Mail's color-scheme",
    r"Attribute 'xmlns:[vo]' not allowed here\.": "Outlook's own settings need these",
}

# Axe leaves target-size, the only rule of wcag22aa, off unless it is asked for.
RUN_AXE = """tags => axe.run(document, {
  runOnly: {type: 'tag', values: tags}, resultTypes: ['violations', 'incomplete'],
  rules: {'target-size': {enabled: true}},
})"""


@dataclass(frozen=True)
class View:
    scheme: Literal["light", "dark"]
    width: int

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}"


Finding = tuple[str, View | None, str]
VIEWS = [View(s, w) for s in ("light", "dark") for w in (800, 390, 320)]


@dataclass
class Report:
    """What was found in one mail; findings about the file itself have no view."""

    name: str
    sizes: dict[str, str] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def fail(self, check: str, texts: Iterable[str], view: View | None = None) -> None:
        self.problems += [(check, view, text) for text in texts]

    def failed(self) -> set[tuple[str, View | None]]:
        return {(check, view) for check, view, _ in self.problems}


def run_vnu(mail: Path) -> list[dict[str, Any]]:
    options = ["--format", "json", "--stdout", "--asciiquotes", str(mail)]
    command = ["java", "-jar", str(VNU), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        messages: list[dict[str, Any]] = json.loads(done.stdout)["messages"]
    except (ValueError, KeyError):
        sys.exit(f"the HTML checker broke on {mail.name}: {done.stderr.strip()}")
    return messages


def check_markup(mail: Path, report: Report, used: Counter[str]) -> None:
    messages, refused = run_vnu(mail), list[str]()
    for message in messages:
        text = message["message"]
        pattern = next((p for p in ALLOWED if re.fullmatch(p, text)), None)
        if pattern:
            used[pattern] += 1
        else:
            refused.append(f"line {message.get('lastLine', '?')}: {text}")
    report.fail("vnu", refused)
    allowed = len(messages) - len(refused)
    report.sizes["vnu"] = f"{len(refused)} refused, {allowed} allowed"


def good_link(link: str, ids: set[str]) -> bool:
    if link.startswith("#"):
        return link[1:] in ids
    return bool(re.match(r"https://[^/?#\s]|mailto:[^?\s]", link))


def check_file(mail: Path, report: Report) -> None:
    source = mail.read_bytes()
    parser = lxml.html.HTMLParser(encoding="utf-8")
    root = lxml.html.document_fromstring(source, parser=parser)
    style = sum(len((s.text or "").encode()) for s in root.iter("style"))
    limits = (("html bytes", len(source), MAX_HTML), ("style bytes", style, MAX_STYLE))
    for check, size, limit in limits:
        report.sizes[check] = f"{size:,}, must be under {limit:,}"
        report.fail(check, [report.sizes[check]] if size >= limit else [])
    elements = list(root.iter())
    ids = {el.get("id", "") for el in elements} - {""}
    found = (el.get(name) for el in elements for name in LINKING)
    links = [link for link in found if link is not None]
    report.sizes["links"] = f"{len(links)} links"
    report.fail("links", (repr(link) for link in links if not good_link(link, ids)))
    images = list(root.iter("img"))
    report.sizes["alt"] = f"{len(images)} images"
    bare = (img.get("src", "?") for img in images if img.get("alt") is None)
    report.fail("alt", (f"no alt on {src}" for src in bare))


def axe_texts(rules: list[dict[str, Any]]) -> Iterator[str]:
    for rule in rules:
        targets = [" ".join(map(str, node["target"])) for node in rule["nodes"]]
        yield f"{rule['id']}: {rule['help']} ({'; '.join(targets)})"


def load(page: Page, mail: Path) -> list[str]:
    """Opens the mail, and returns (after stopping them) the requests it made."""
    url, requests = mail.as_uri(), list[str]()

    def answer(route: Route) -> None:
        if route.request.url == url:
            route.continue_()
        else:
            requests.append(route.request.url)
            route.abort()

    page.route("**/*", answer)
    page.goto(url)
    return requests


def check_view(browser: Browser, mail: Path, view: View, report: Report) -> None:
    page = browser.new_page(viewport={"width": view.width, "height": 900}, color_scheme=view.scheme)
    requests = load(page, mail)
    too_wide = page.evaluate(WIDEST.read_text(encoding="utf-8"))
    shot = mail.parent / "shots" / f"{mail.stem}-{view}.png"
    page.screenshot(path=shot, full_page=True)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(RUN_AXE, WCAG)
    page.close()
    report.fail("requests", requests, view)
    report.fail("scroll", [too_wide] if too_wide else [], view)
    report.fail("axe", axe_texts(found["violations"]), view)
    report.notes += [("axe", view, text) for text in axe_texts(found["incomplete"])]


def check_folder(folder: Path, used: Counter[str]) -> list[Report]:
    mails = sorted(folder.resolve().glob("*.html"))
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not mails:
        sys.exit(f"no *.html in {folder}")
    if not (chromium and shutil.which("java") and VNU.exists() and AXE.exists()):
        sys.exit("something is missing: run tests/mail/install.sh first")
    reports = [Report(mail.name) for mail in mails]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium)
        for mail, report in zip(mails, reports, strict=True):
            check_markup(mail, report, used)
            check_file(mail, report)
            for view in VIEWS:
                check_view(browser, mail, view, report)
        browser.close()
    return reports


def print_findings(label: str, found: list[Finding]) -> None:
    for check, text in dict.fromkeys((check, text) for check, _, text in found):
        views = [str(view) for view in VIEWS if (check, view, text) in found]
        where = "all views" if len(views) == len(VIEWS) else " ".join(views)
        print(f"  {label} {check}{where and f' [{where}]'}: {text}")


def print_report(report: Report) -> None:
    failed = report.failed()

    def word(check: str, view: View | None = None) -> str:
        return "FAIL" if (check, view) in failed else "ok"

    print(report.name)
    for check in STATIC:
        print(f"  {check:<12}{word(check):<6}{report.sizes[check]}")
    print(" " * 13, " ".join(f"{view!s:<10}" for view in VIEWS).rstrip())
    for check in IN_VIEW:
        words = "".join(f"{word(check, view):<11}" for view in VIEWS)
        print(f"  {check:<12}{words}".rstrip())
    print_findings("FAIL", report.problems)
    print_findings("note", report.notes)


def print_allowances(used: Counter[str]) -> None:
    print("allowed in mail, though the HTML checker objects:")
    for pattern, reason in ALLOWED.items():
        if used[pattern]:
            print(f"  {used[pattern]:>4} x {pattern}\n         ({reason})")
        else:
            print(f"  note: matched nothing: {pattern}")


def self_test() -> tuple[int, int]:
    """Every kind of check must fail on the deliberately bad mail."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(BAD, folder)
        (report,) = check_folder(Path(folder), Counter())
    print_report(report)
    bitten = {check for check, _ in report.failed()}
    missed = [check for check in MUST_BITE if check not in bitten]
    for check in missed:
        print(f"{check} found nothing wrong in {BAD.name}")
    return len(MUST_BITE) - len(missed), len(missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, help="where the *.html mails are")
    what.add_argument("--self-test", action="store_true", help="check bad.html instead")
    options = parser.parse_args()
    if options.self_test:
        passed, failed = self_test()
    else:
        used = Counter[str]()
        reports = check_folder(options.folder, used)
        for report in reports:
            print_report(report)
        print_allowances(used)
        failed = sum(len(report.failed()) for report in reports)
        each = len(STATIC) + len(IN_VIEW) * len(VIEWS)
        passed = len(reports) * each - failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
