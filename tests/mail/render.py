"""Write issues for the mail check into a folder: the demo's, and one with the longest of everything."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import publish as route
from pipeline.collect import collect
from pipeline.compose import compose
from pipeline.demo import set_up
from pipeline.issue import Chosen, Selection
from pipeline.render import address, public_page, render
from pipeline.web.preview import sample_copy

LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"


def main(folder: Path) -> None:
    """Render into a folder, which is emptied of earlier mails."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.html"):
        old.unlink()
    with TemporaryDirectory() as temporary:
        newsroom, slot = set_up(Path(temporary) / "demo")
        collect(newsroom)
        draft = route.draft(newsroom, slot)
        glossary = newsroom.glossary
        masthead = replace(newsroom.masthead, glossary_url="https://glossary.example.com/{slug}")
        longest = compose(
            12_345, slot, _longest(draft.selection), glossary, replace(masthead, title=LONG_WORD, tagline=LONG_WORD * 2)
        )
        arabic = compose(7, slot, draft.selection, glossary, replace(masthead, language="ar", title="أخبار الجمعة"))
        for name, rendered in (
            ("demo", draft.rendered),
            ("longest", render(longest, newsroom.templates)),
            ("right-to-left", render(arabic, newsroom.templates)),
        ):
            (folder / f"{name}.html").write_text(address(rendered, sample_copy(rendered)).html, "utf-8")
        (folder / "archive.html").write_text(public_page(draft.rendered), "utf-8")


def _longest(selection: Selection) -> Selection:
    def stretch(chosen: Chosen) -> Chosen:
        story = replace(
            chosen.story,
            title=f"{LONG_WORD} {chosen.story.title} " * 3,
            summary=f"{chosen.story.summary} {LONG_WORD} " * 5,
            why=f"{LONG_WORD} " * 5,
            source=LONG_WORD,
            url=f"https://example.com/{'path/' * 60}",
        )
        return replace(chosen, story=story, also=tuple(replace(story, source=f"Source {number}") for number in range(9)))

    return replace(selection, stories=tuple(stretch(chosen) for chosen in selection.stories))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
