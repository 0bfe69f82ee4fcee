"""`python -m tests.fake_api`: the fake as a process of its own. Its one line tells its port, and that of SMTP if asked."""

import argparse
import asyncio
from pathlib import Path

from tests.fake_api.faults import Plan, read_rates
from tests.fake_api.server import Connection, Fake


def main() -> None:
    """Serve until the process is ended."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--port", type=int, default=0)
    words.add_argument("--state", type=Path, help="a folder for accepted.jsonl, a line for each call that was taken")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--faults", type=read_rates, default={}, help="such as lost=.05,reset=.05")
    words.add_argument("--slow", type=float, default=0.2, help="seconds")
    words.add_argument("--count", action="store_true", help="count copies without reading them")
    words.add_argument("--keep", action="store_true", help="keep whole requests and answers")
    words.add_argument("--smtp", action="store_true", help="be a mail server too")
    asked = words.parse_args()
    log = asked.state / "accepted.jsonl" if asked.state else None
    fake = Fake(asked.count, asked.keep, log, Plan(asked.seed, rates=asked.faults, slow=asked.slow))
    asyncio.run(_serve(fake, asked.port, smtp=asked.smtp))


async def _serve(fake: Fake, port: int, *, smtp: bool) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Connection(fake), "127.0.0.1", port)]
    if smtp:
        from tests.fake_api.smtp import speak  # noqa: PLC0415 - most fakes are no mail servers, and begin sooner

        servers.append(await loop.create_server(speak(fake), "127.0.0.1", 0))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)  # noqa: T201 - a command's own result
    await asyncio.gather(*(server.serve_forever() for server in servers))


main()
