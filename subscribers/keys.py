"""The secrets that sign what goes out in addresses and forms, and that blind an address which must not be kept."""

import hashlib
import hmac
from dataclasses import dataclass, field

from itsdangerous import BadData, URLSafeSerializer

ERASED = "erased:"
SHORTEST = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets, the newest first: it signs, and all of them are believed.

    Raises:
        ValueError: there is none, or one of them is shorter than 32 characters.
    """

    secrets: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.secrets or min(map(len, self.secrets)) < SHORTEST:
            raise ValueError(f"a secret must have {SHORTEST} characters at least")

    def sign(self, purpose: str, value: int | str) -> str:
        """A token for one purpose that can stand in an address. What it carries can be read by anybody who has it."""
        return str(self._serializer(purpose).dumps(value))

    def read(self, purpose: str, token: str) -> int | str | None:
        """What a token of that purpose carries; None if we have not signed it, or for something else."""
        try:
            value = self._serializer(purpose).loads(token)
        except (BadData, UnicodeError, ValueError):
            return None
        return value if isinstance(value, int | str) else None

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        signing = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(list(reversed(self.secrets)), salt=f"friday/{purpose}", signer_kwargs=signing)

    def blind(self, key: str) -> str:
        """What is kept of an erased address: enough to know it again, not enough to read it."""
        return self.blinded(key)[0]

    def blinded(self, key: str) -> tuple[str, ...]:
        """The same under each secret, since an address may have been erased under an older one."""
        salted = f"friday/erased/{key}".encode()
        return tuple(ERASED + hmac.digest(each.encode(), salted, hashlib.sha256).hex() for each in self.secrets)
