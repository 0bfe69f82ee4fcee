"""Wrong passwords counted, in the memory of this process, so that none can be found by trying; of requests it knows nothing."""

import hashlib
import logging
import math
import secrets
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

WRONG_OF_ACCOUNT = RateLimitItemPerMinute(5, 15, namespace="account")
WRONG_OF_NETWORK = RateLimitItemPerMinute(20, 15, namespace="network")
# So many names at most are kept, since the library never forgets one. To fill them takes more tries than 15 minutes allow.
_NAMES = 2**16

log = logging.getLogger(__name__)


class Throttle:
    """At most 5 wrong passwords of an account and 20 of a network in any 15 minutes."""

    def __init__(self) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._salt = secrets.token_bytes(32)

    def enter(self, account: str, network: str) -> int | None:
        """Ask to try a password: None, or in how many seconds one may be tried again.

        It counts as wrong for its account until it is found right, so that many at once count as well.
        """
        if not self._windows.test(WRONG_OF_NETWORK, self._name(network)):
            return self._wait(WRONG_OF_NETWORK, network)
        if not self._windows.hit(WRONG_OF_ACCOUNT, self._name(account)):
            return self._wait(WRONG_OF_ACCOUNT, account)
        return None

    def was_right(self, account: str) -> None:
        """Forget the wrong ones of an account."""
        self._windows.clear(WRONG_OF_ACCOUNT, self._name(account))

    def was_wrong(self, network: str) -> None:
        """Count one for the network."""
        self._windows.hit(WRONG_OF_NETWORK, self._name(network))

    def _wait(self, window: RateLimitItem, name: str) -> int:
        log.warning("sign-in: too many wrong passwords for one %s", window.namespace)
        opens = self._windows.get_window_stats(window, self._name(name)).reset_time
        return max(1, math.ceil(opens - time.time()))

    def _name(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode(errors="replace"), key=self._salt, digest_size=8).digest()
        return str(int.from_bytes(digest, "big") % _NAMES)
