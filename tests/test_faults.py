"""The table of faults: measured the same each time, told as it was measured, and held against README."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fake_api import running
from tests.trials import faults
from tests.trials.faults import BEGIN, END, ROWS, Cell, between_marks, measure, put_between_marks
from tests.trials.judge import Verdict
from tests.trials.stage import Stages

pytestmark = pytest.mark.slow

BY_NAME = {row.what: row for row in ROWS}
FINE = Verdict(100, 0, 0, 0, ())


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with running("--smtp") as fake:
        yield Stages(tmp_path_factory.mktemp("faults"), fake, readers=faults.READERS)


@pytest.mark.parametrize(
    ("what", "provider", "told"),
    [
        ("the answers of two calls are lost", "mailgun", "20 → 0 unknown"),
        ("500, and nothing was taken", "postmark", "10 → 10 unknown"),
        ("the sender is killed in the middle of a call, and started again", "outbox", "all accepted (killed, 0)"),
        ("the sender is killed in the middle of a call, and started again", "postmark", "10 → 0 unknown (killed, 5, 0)"),
        ("one bad address in a call", "resend", "1 rejected (0)"),
        ("a reader unsubscribes during the send", "mailgun", "1 skipped (0)"),
    ],
)
def test_a_fault_comes_to_the_same_each_time(stages: Stages, what: str, provider: str, told: str) -> None:
    first, again = (measure(BY_NAME[what], provider, stages) for _ in range(2))
    assert first == again
    assert (*first.first.wrong, *first.last.wrong) == ()
    assert str(first).startswith(told)


def test_a_cell_tells_all_that_is_not_accepted_and_how_the_runs_ended() -> None:
    unknown = Verdict(80, 20, 0, 0, ())
    assert str(Cell(FINE, FINE, (0,), 0, 0)) == "all accepted (0)"
    assert str(Cell(unknown, unknown, (-9, 5), 1, 2)) == "1 rejected, 2 skipped, 20 unknown (killed, 5)"
    assert str(Cell(unknown, FINE, (4, 5, 0), 0, 0, asked_log=True)) == "20 → 0 unknown (4, 5, 0)"


def test_the_table_stands_between_its_marks() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert between_marks(text) == "old"
    assert put_between_marks(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="not found"):
        between_marks("no marks")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A README, and a measurement that comes to `| table |` at once."""

    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    monkeypatch.setattr(faults, "stages", nothing)
    monkeypatch.setattr(faults, "measure_all", lambda _stages: ("| table |", []))
    (tmp_path / "README.md").write_text(f"{BEGIN}\n| another |\n{END}\n", "utf-8")
    return tmp_path / "README.md"


def test_a_readme_that_says_something_else_fails(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["faults", "--check", str(measured)])
    assert faults.main() == 1
    assert "says something else" in capsys.readouterr().err


def test_a_readme_is_written_and_then_agrees(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["faults", "--write", str(measured), "--check", str(measured)])
    assert faults.main() == 0
    assert between_marks(measured.read_text("utf-8")) == "| table |"


def test_a_broken_promise_fails(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "measure_all", lambda _stages: ("| table |", ["a reader got a second copy"]))
    monkeypatch.setattr("sys.argv", ["faults", "--write", str(measured)])
    assert faults.main() == 1
