"""What a refusal means for a reader, from the replies that mail servers are known to give."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bounce import classify
from pipeline.issue import Kind

HARD, SOFT, BLOCKED = Kind.HARD_BOUNCE, Kind.SOFT_BOUNCE, Kind.BLOCKED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("5.1.0", HARD), ("5.1.1", HARD), ("5.1.2", HARD), ("5.1.3", HARD), ("5.1.6", HARD), ("5.1.10", HARD), ("5.2.1", HARD),
        ("5.2.2", SOFT), ("5.3.0", SOFT), ("5.3.1", SOFT), ("5.3.2", SOFT), ("5.4.4", SOFT), ("5.4.6", SOFT), ("5.5.3", SOFT),
        ("4.2.2", SOFT), ("4.4.1", SOFT), ("4.4.7", SOFT), ("5.0.0", SOFT),
        ("5.1.7", BLOCKED), ("5.1.8", BLOCKED), ("5.2.3", BLOCKED), ("5.3.4", BLOCKED), ("5.6.0", BLOCKED), ("5.6.1", BLOCKED),
        ("5.7.0", BLOCKED), ("5.7.1", BLOCKED), ("5.7.26", BLOCKED), ("5.7.509", BLOCKED), ("4.7.28", BLOCKED),
        ("550", HARD), ("551", HARD), ("553", HARD), ("552", SOFT), ("554", SOFT), ("450", SOFT), ("421", SOFT), ("", SOFT),
        ("550 5.7.1", BLOCKED), ("550-5.1.1", HARD), ("550 4.4.7", SOFT),
    ],
)  # fmt: skip
def test_a_specific_code_is_believed(code: str, kind: Kind) -> None:
    assert classify(code) is kind


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("550", "No such user here", HARD),
        ("550", "Requested action not taken: mailbox unavailable", HARD),
        ("550 5.5.0", "Requested action not taken: mailbox unavailable", HARD),
        ("554", "delivery error: dd This user doesn't have a yahoo.com account", HARD),
        ("5.0.0", "smtp; 550 Unrouteable address", HARD),
        ("5.4.1", "Recipient address rejected: Access denied. [AM0.example]", HARD),
        ("550", "Access denied - Invalid HELO name", BLOCKED),
        ("550", "Administrative prohibition", BLOCKED),
        ("554", "Message rejected as spam by Content Filtering.", BLOCKED),
        ("550", "JunkMail rejected - host is in an RBL, see blocklist", BLOCKED),
        ("552", "Message size exceeds fixed limit", BLOCKED),
        ("552", "Mailbox is over quota", SOFT),
        ("552", "The mailbox of this user is full", SOFT),
        ("451", "Greylisting in action, please come back later", SOFT),
        ("451 4.7.1", "Greylisting in action, please come back later", SOFT),
        ("550", "<no-spam@example.com>: user unknown", HARD),
        ("", "550 5.1.1 The email account that you tried to reach does not exist", HARD),
        ("", "552 5.3.4 Message too big for system", BLOCKED),
        ("", "host mx.example[5.1.1.7] said nothing that helps", SOFT),
        ("554", "see section 15.1.1 of our terms", SOFT),
        ("", "250 2.0.0 OK", SOFT),
        ("5.0.0", "refused", SOFT),
    ],
)
def test_words_count_where_the_code_says_nothing(code: str, text: str, kind: Kind) -> None:
    assert classify(code, text) is kind


@settings(deadline=None, database=None)
@given(st.text(max_size=20), st.text(max_size=200))
def test_whatever_a_server_says_is_a_kind_of_bounce(code: str, text: str) -> None:
    assert classify(code, text) in (HARD, SOFT, BLOCKED)
