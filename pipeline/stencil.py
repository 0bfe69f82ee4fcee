"""A JSON document for each reader, made from one that is escaped once; it knows no provider."""

import html as html_escape
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import orjson

from pipeline.issue import Copy, RenderedIssue
from pipeline.render import Message, address, fill_in
from pipeline.text import wire_address


class Stencil:
    """What a provider's API takes for one reader, with gaps where the reader's own values go.

    The shape is asked for once, about a copy that is made of stand-ins, and gets the mail address as it goes
    over the wire. What comes out for a reader is what it would have said about the reader's copy.
    """

    def __init__(self, issue: RenderedIssue, shape: Callable[[Copy, Message], object]) -> None:
        in_text = {name: f"{token}:text:" for name, token in issue.stand_ins.items()}
        in_html = {name: f"{token}:html:" for name, token in issue.stand_ins.items()}
        ref, to, by_mail = (f"{issue.stand_ins['address']}:{name}:" for name in ("ref", "to", "mail"))
        blank = Copy(ref, to, in_text["unsubscribe_url"], by_mail if issue.mailbox else "")
        html, text = fill_in(issue.html, issue, in_html), fill_in(issue.text, issue, in_text)
        document = orjson.dumps(shape(blank, replace(address(issue, blank), html=html, text=text)))
        self._names = list(issue.stand_ins)
        tokens = [ref, to, by_mail, *in_text.values(), *in_html.values()]
        places = {token.encode(): place for place, token in enumerate(tokens)}
        self._parts = re.split(b"(%s)" % b"|".join(map(re.escape, places)), document)
        self._gaps = [(place, places[part]) for place, part in enumerate(self._parts) if place % 2]

    def array(self, copies: Iterable[Copy]) -> bytes:
        """A JSON array with the document of each copy, in UTF-8."""
        # Bytes that are joined once: an issue is large, and each further copy of it is felt.
        found: list[bytes] = []
        for copy in copies:
            own = self._values(copy)
            parts = self._parts.copy()
            for place, which in self._gaps:
                parts[place] = own[which]
            found.append(b",")
            found += parts
        return b"".join([b"[", *found[1:], b"]"])

    def _values(self, copy: Copy) -> list[bytes]:
        own_values = copy.values
        values = [own_values[name] for name in self._names]
        own = [copy.ref, wire_address(copy.address), copy.unsubscribe_mail, *values, *map(html_escape.escape, values)]
        return [orjson.dumps(value)[1:-1] for value in own]
