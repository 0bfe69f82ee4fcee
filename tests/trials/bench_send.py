"""`make bench-send N=100000`: how fast the send loop is beside a bare `requests` loop, as JSON.

Both post the same bytes to the same sink, each in a process of its own, by turns. It measures and says which bars
hold; it fails only where something does not run at all. This process itself stays small: a process that it
starts inherits its peak of memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
KEPT_CALLS = 4
# A ceiling that is over in an instant says little.
CEILING_CALLS = 100


@dataclass(frozen=True)
class Scenario:
    """One way to send. `bar` is the least ratio, to the ceiling or to what `delay_ms` and the connections allow.

    A sink that `discards` does not even look for whom a call is, which no provider can afford; there is no bar for it.
    """

    provider: str
    batch: int
    connections: int
    readers: int
    bar: float | None
    cpu_bar: float | None = None
    delay_ms: int = 0
    discards: bool = False


def scenarios(readers: int, single: int) -> dict[str, Scenario]:
    """What is measured, by name: the letter groups them."""
    return {
        "a1": Scenario("mailgun", 1_000, 1, readers, 0.20, 0.2),
        "a2": Scenario("mailgun", 1_000, 2, readers, 0.20, 0.2),
        "a1-discard": Scenario("mailgun", 1_000, 1, readers, None, discards=True),
        "a2-discard": Scenario("mailgun", 1_000, 2, readers, None, discards=True),
        "b1": Scenario("postmark", 500, 1, readers, 0.70),
        "b2": Scenario("postmark", 500, 2, readers, 0.70),
        "b1-discard": Scenario("postmark", 500, 1, readers, None, discards=True),
        "c1": Scenario("mailgun", 1_000, 1, readers, 0.85, delay_ms=200),
        "c4": Scenario("mailgun", 1_000, 4, readers, 0.85, delay_ms=200),
        "c8": Scenario("mailgun", 1_000, 8, readers, 0.85, delay_ms=200),
        "d1": Scenario("mailgun", 1, 1, single, 1.8),
        "d4": Scenario("mailgun", 1, 4, single, 1.8),
    }


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.bench_send", description=__doc__)
    parser.add_argument("--readers", type=int, default=100_000)
    parser.add_argument("--single", type=int, default=5_000, help="readers of the scenarios with one message per call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenarios", nargs="*", default=["a", "b", "c", "d"], help="letters, or names such as a1")
    parser.add_argument("--memory", action="store_true", help="also peak RSS at ten times the readers beside that at as many")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build", help="for databases of its own: on a disk, not in memory"
    )
    options = parser.parse_args()
    folder = options.folder.absolute() / "bench-send"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bench = Bench(folder, options.rounds)
    found: dict[str, Any] = {"machine": _machine(folder)}
    for name, scenario in scenarios(options.readers, options.single).items():
        if name in options.scenarios or name[0] in options.scenarios:
            found[name] = bench.measure(name, scenario)
    if options.memory:
        found["memory"] = bench.memory(options.readers)
    shutil.rmtree(folder)
    found["machine"]["load_at_the_end"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


@dataclass(frozen=True)
class Bench:
    """Everything of a run lies in `folder`."""

    folder: Path
    rounds: int

    def measure(self, name: str, scenario: Scenario) -> dict[str, Any]:
        """Loop and ceiling by turns, then once more with the time by part."""
        if not (ROOT / "pipeline" / "providers" / f"{scenario.provider}.py").exists():
            _say(f"{name}: skipped, since there is no pipeline/providers/{scenario.provider}.py")
            return {"skipped": f"there is no pipeline/providers/{scenario.provider}.py"}
        filled = self._filled(scenario.readers)
        calls = max(scenario.readers // scenario.batch, CEILING_CALLS)
        kept = self.folder / f"kept-{name}"
        loops, ceilings = [], []
        with _sink(scenario.delay_ms, discards=scenario.discards) as url:
            if not scenario.delay_ms:
                kept.mkdir()
                with _sink(0, keep=kept) as keeping:
                    self._send(scenario, keeping, "--most", str(KEPT_CALLS * scenario.batch))
            for turn in range(self.rounds):
                if not scenario.delay_ms:
                    ceilings.append(_run("ceiling", url, str(kept), str(calls)))
                loops.append(self._send(scenario, url))
                _say(f"{name}: round {turn + 1}: {_rate(loops[-1]):,.0f} readers/s")
            watched = self._send(scenario, url, "--watch")
        shutil.rmtree(kept, ignore_errors=True)
        allowed = [scenario.connections * scenario.batch * 1000 / scenario.delay_ms] if scenario.delay_ms else []
        tops = allowed * self.rounds or [each["calls"] * scenario.batch / each["seconds"] for each in ceilings]
        return _judged(scenario, filled, loops, tops, watched)

    def memory(self, readers: int) -> dict[str, Any]:
        """Peak RSS of a whole publishing, enrolment and all, for so many readers and for ten times as many."""
        peaks = {}
        for number in (readers, 10 * readers):
            scenario = Scenario("mailgun", 1_000, 1, number, None)
            self._filled(number, enrol=False)
            with _sink(0) as url:
                seen = self._send(scenario, url, enrolled=False)
            peaks[number] = seen["peak_rss_mb"]
            _say(f"memory: {number:,} readers: {_rate(seen):,.0f} readers/s with enrolment, {seen['peak_rss_mb']:.0f} MB")
        small, large = peaks.values()
        held = {"ratio": large / small, "bar": 1.2, "bar_mb": 200, "holds": large <= 1.2 * small and large < 200}
        return {"peak_rss_mb": peaks, **held}

    def _filled(self, readers: int, *, enrol: bool = True) -> dict[str, Any]:
        folder = self._base(readers, enrol=enrol)
        note = folder / "filled.json"
        if not note.exists():
            _say(f"filling the roll with {readers} readers" + (" and enrolling them" if enrol else ""))
            note.write_text(json.dumps(_run("fill", str(folder), str(readers), *(["--enrol"] if enrol else []))), "utf-8")
        found: dict[str, Any] = json.loads(note.read_text("utf-8"))
        return found

    def _base(self, readers: int, *, enrol: bool) -> Path:
        return self.folder / (f"{readers}-enrolled" if enrol else str(readers))

    def _send(self, scenario: Scenario, url: str, *more: str, enrolled: bool = True) -> dict[str, Any]:
        copy = self.folder / "round"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._base(scenario.readers, enrol=enrolled), copy)
        os.sync()
        lines = [f'name = "{scenario.provider}"', f'base_url = "{url}"', f"batch_size = {scenario.batch}"]
        lines.append(f"concurrency = {scenario.connections}")
        if scenario.provider == "mailgun":
            lines.append('domain = "news.example.com"')
        seen = _run("send", str(copy), "\n".join(lines), *more)
        if "--most" not in more and seen["others"]:
            raise RuntimeError(f"{seen['others']} copies were not accepted: the sink or the adapter is at fault")
        return seen


def _judged(
    scenario: Scenario, filled: dict[str, Any], loops: list[dict[str, Any]], tops: list[float], watched: dict[str, Any]
) -> dict[str, Any]:
    rates = [_rate(each) for each in loops]
    cpu = statistics.median(each["cpu_seconds"] / each["readers"] * 10_000 for each in loops)
    ratio = statistics.median(rate / top for rate, top in zip(rates, tops, strict=True))
    holds = (scenario.bar is None or ratio >= scenario.bar) and (scenario.cpu_bar is None or cpu <= scenario.cpu_bar)
    parts = watched["parts"]
    parts["rest"] = watched["seconds"] - sum(parts.values())
    return {
        "provider": scenario.provider,
        "batch": scenario.batch,
        "connections": scenario.connections,
        "delay_ms": scenario.delay_ms,
        "readers": scenario.readers,
        "readers_per_second": round(statistics.median(rates)),
        "ceiling_per_second": round(statistics.median(tops)),
        "ceiling_is": "connections x batch / delay" if scenario.delay_ms else "a bare requests loop, one thread, one session",
        "ratio_median_of_rounds": round(ratio, 3),
        "ratio_of_medians": round(statistics.median(rates) / statistics.median(tops), 3),
        "bar": scenario.bar,
        "cpu_seconds_per_10000": round(cpu, 3),
        "cpu_bar": scenario.cpu_bar,
        "holds": None if scenario.bar is None else holds,
        "sink": "discards each call" if scenario.discards else "looks for whom each call is",
        "peak_rss_mb": round(statistics.median(each["peak_rss_mb"] for each in loops), 1),
        "microseconds_per_reader_by_part": {
            part: round(seconds / watched["readers"] * 1e6, 2) for part, seconds in parts.items()
        },
        "calls_by_part": watched["calls"],
        "watched_readers_per_second": round(_rate(watched)),
        "rounds": [
            {"readers_per_second": round(rate), "ceiling_per_second": round(top)} for rate, top in zip(rates, tops, strict=True)
        ],
        "enrol_seconds": round(filled["enrol_seconds"], 2),
        "html_bytes": filled["html_bytes"],
        "text_bytes": filled["text_bytes"],
        **{name: watched[name] for name in ("sqlite", "journal_mode", "synchronous")},
    }


def _rate(seen: dict[str, Any]) -> float:
    rate: float = seen["readers"] / seen["seconds"]
    return rate


@contextmanager
def _sink(delay_ms: int, *, keep: Path | None = None, discards: bool = False) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.trials.sink", "--delay-ms", str(delay_ms)]
    command += [*(["--keep", str(keep)] if keep else []), *(["--discard"] if discards else [])]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if not process.stdout or not process.stdin:
            raise RuntimeError("the sink has no pipes")
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.stdin.close()


def _run(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.trials.measured", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _machine(folder: Path) -> dict[str, Any]:
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    holding = [each for each in mounts if folder.is_relative_to(each[1])]
    _, mount, kind = max(holding, key=lambda each: len(each[1]))
    return {
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "filesystem": f"{kind} at {mount}",
        "load_at_the_start": os.getloadavg()[0],
    }


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
