"""What several thinkers share about text: canonical URLs, tokens of a title, plain text, shortening."""

import re
import unicodedata
from functools import cache
from urllib.parse import parse_qsl, urlencode, urlsplit

import idna
import lxml.html
import snowballstemmer
from lxml.etree import ParserError

_FOLLOWS = re.compile(r"utm_\w+|mc_[ce]id|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|igshid|_hs(enc|mi)", re.IGNORECASE)
_TRACKING = re.compile(
    _FOLLOWS.pattern + r"|ref|ref_src|ref_url|source|cmpid|smid|s_cid|guccounter|guce_\w+|trk|spm|share\w*",
    re.IGNORECASE,
)
_BLOCKS = frozenset(
    "address article aside blockquote br dd div dl dt figure h1 h2 h3 h4 h5 h6 hr li ol p pre table td tr ul".split()
)
_VERSION = re.compile(
    r"\b([A-Z][A-Za-z]+)[-\s]?(?!(?:19|20)\d\d\b)(\d+(?:\.\d+)*[a-jln-su-wyz]?)(?![\w%]|\.\d)"
    r"(?!\s*(?:thousand|million|billion|trillion|percent|per cent|x\b|bn\b|m\b))"
)
_TOKEN = re.compile(r"[^\W_]+(?:\.\d+)*")
_STOP = frozenset(
    """a about after all also an and any are as at be been but by can could did do does for from get gets had has have
    he her his how i if in into is it its just may more most new no not now of on one only or our out over own s says
    she so some than that the their them then there these they this those to today under up us use using very via was
    we week were what when where which who why will with would you your""".split()
)
# Control and format-override characters, zero-width spaces, and half a surrogate pair, which no database takes.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
_NOT_IN_XML = re.compile(r"[\x0b\x0c\x1c-\x1f]")
_MARKUP = re.compile(r"([\\`*_\[\]<>&])")
_JOINTS = " ,;:-–—(·&"
_DANGLING = frozenset("a an and as at by for from in into its of on or than that the their to with".split())
_MONTHS = frozenset(
    """jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august september october
    november december""".split()
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]")


def canonical_url(url: str) -> str:
    """The form under which two addresses of one page compare equal; it is compared, never linked.

    Scheme, `www.`, default port, fragment, trailing slash, order of the query and tracking parameters
    make no difference. What is no address is compared as it is.
    """
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
    except ValueError:
        return url.strip().partition("#")[0]
    host = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = sorted((key, value) for key, value in pairs if not _TRACKING.fullmatch(key))
    path = re.sub(r"/(index\.(html?|php)|amp/?)$", "/", parts.path).rstrip("/")
    return f"{host}{port}{path}" + (f"?{urlencode(query)}" if query else "")


def clean_url(url: str) -> str:
    """The address without what serves only to follow the reader; the rest stays letter for letter."""
    rest, hash_sign, fragment = url.partition("#")
    address, question, query = rest.partition("?")
    kept = [pair for pair in query.split("&") if not _FOLLOWS.fullmatch(pair.partition("=")[0])]
    return address + (question + "&".join(kept) if any(kept) else "") + hash_sign + fragment


def wire_address(address: str) -> str:
    """A mail address with its domain in ASCII (RFC 5891), as servers and providers take it."""
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{idna.encode(domain, uts46=True).decode()}"


def plain(markup: str) -> str:
    """The text of an HTML fragment on one line: no tags, scripts or styles, no control characters."""
    markup = _NOT_IN_XML.sub(" ", _UNPRINTABLE.sub("", markup))
    if "<" in markup or "&" in markup:
        try:
            root = lxml.html.fragment_fromstring(markup, create_parent="div")
        except (ParserError, ValueError, AssertionError):
            return one_line(re.sub(r"<[^>]*>", " ", markup))
        for hidden in root.xpath("//script|//style|//noscript|//template|//comment()"):
            hidden.drop_tree()
        for block in root.iter(*_BLOCKS):
            block.tail = f" {block.tail or ''}"
            block.text = f" {block.text or ''}"
        markup = root.text_content()
    return one_line(markup)


def printable(said: str) -> str:
    """What was said without what no database takes: zero characters (PostgreSQL) and halves of characters."""
    return said if said.isprintable() else "".join(each for each in said if each.isprintable())


def one_line(text: str) -> str:
    """The text without control, format-override and line characters, single-spaced, in NFC.

    Line breaks are taken out since a subject or a header with one in it is an injection.
    """
    return unicodedata.normalize("NFC", " ".join(_UNPRINTABLE.sub("", text).split()))


def as_markdown(text: str) -> str:
    """A line of text as Markdown that prints just that."""
    return _MARKUP.sub(r"\\\1", text)


def shorten(text: str, limit: int) -> str:
    """The text in at most `limit` characters: whole sentences if they fill half of it, else whole words and an ellipsis."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text + " ") if match.end() <= limit]
    if ends and ends[-1] >= limit / 2:
        return text[: ends[-1]]
    cut = text[: limit - 1]
    if " " in cut[limit // 2 :]:
        cut = cut.rsplit(" ", 1)[0]
    kept = cut.rstrip(_JOINTS).split(" ")
    # A cut just behind "and a" reads like an accident.
    while len(kept) > 1 and kept[-1].lower() in _DANGLING:
        kept.pop()
    return " ".join(kept).rstrip(_JOINTS) + "…"


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without accents' compatibility forms, in order."""
    return tuple(match.group() for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text).lower()))


def tokens(text: str) -> tuple[str, ...]:
    """What a text is about: stemmed words without the common ones, a name and its version joined.

    "GPT 5.2" and "GPT-5.2" both give `gpt5.2`, which tells it from its predecessor.
    """
    joined = _VERSION.sub(r"\1\2", unicodedata.normalize("NFKC", text))
    return tuple(stem(word) for word in words(joined.replace("'s ", " ").replace("’s ", " ")) if word not in _STOP)


def versions(text: str) -> tuple[str, ...]:
    """The names with a version in a text, as it spells them, such as `Llama 3.1`."""
    named = (match for match in _VERSION.finditer(text) if match.group(1).lower() not in _STOP)
    return tuple(match.group() for match in named if match.group(1).lower() not in _MONTHS)


@cache
def stem(word: str) -> str:
    """The stem of an English word; words with digits in them are left as they are."""
    if any(char.isdigit() for char in word):
        return word
    return str(_stemmer().stemWord(word))


@cache
def _stemmer() -> "snowballstemmer.stemmer":
    return snowballstemmer.stemmer("english")
