"""The addresses by which a subscriber reaches us; none of them contains the person's own address."""


def leave_url(base_url: str, token: str) -> str:
    """Where a subscriber leaves: shown by GET, done by POST (RFC 8058)."""
    return f"{base_url}/u/{token}"


def leave_mail(mailbox: str, token: str) -> str:
    """The mailto address by which a subscriber leaves; the token stands in the subject, whose case mail servers keep."""
    return f"mailto:{mailbox}?subject=leave-{token}"


# What stands in a copy that is sent as a test. No subscriber has it: theirs are longer.
OF_A_TEST = "test"
CONFIRM = "confirm"
FORM = "form"


def confirm_url(base_url: str, token: str) -> str:
    """Where a sign-up is confirmed: shown by GET, done by POST."""
    return f"{base_url}/c/{token}"


def preferences_url(base_url: str, token: str) -> str:
    """Where a subscriber says what to get, and how often."""
    return f"{base_url}/p/{token}"
