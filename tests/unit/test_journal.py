"""The journal: an answer is drawn once, and is on disk before anything looks at it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from snakernel.errors import UserError
from snakernel.llm.base import Answer, Request, Sent
from snakernel.llm.journal import Journal, kept_answers, lost_requests
from snakernel.llm.replay import Replay

REQUEST = Request(prompt="p", model="m", max_completion_tokens=10)


class Counting:
    """Answers with how often it was asked, and keeps count in a file."""

    def __init__(self, ledger: Path, seconds: float = 0.0):
        self.ledger, self.seconds = ledger, seconds

    def ask(self, request: Request) -> Answer:
        with self.ledger.open("a") as file:
            file.write("asked\n")
        time.sleep(self.seconds)
        count = len(self.ledger.read_text().splitlines())
        return Answer(
            api_type="replay",
            request=request,
            text=f"answer {count}",
            model="m",
            stop_reason="end_turn",
            started="2026-01-01T00:00:00.000+00:00",
            ended=f"2026-01-01T00:00:0{count}.000+00:00",
        )


def draw(results: Path, ledger: Path, seconds: float = 0.0) -> str:
    return Journal(results, "task", 3).answer(lambda: REQUEST, lambda: Counting(ledger, seconds))[0].text


def test_an_answer_is_drawn_once(tmp_path: Path) -> None:
    assert [draw(tmp_path, tmp_path / "ledger") for _ in range(3)] == ["answer 1"] * 3
    assert (tmp_path / "ledger").read_text() == "asked\n"


def test_two_processes_share_one_answer(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        texts = pool.starmap(draw, [(tmp_path, tmp_path / "ledger", 0.2)] * 4)
    assert texts == ["answer 1"] * 4
    assert (tmp_path / "ledger").read_text() == "asked\n"


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=draw, args=(tmp_path, tmp_path / "ledger", 60.0))
    process.start()
    while not (tmp_path / "ledger").exists() or not (tmp_path / "ledger").read_text():
        os.sched_yield()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert draw(tmp_path, tmp_path / "ledger") == "answer 2"


def test_an_answer_set_aside_stays_beside_the_new_one(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    draw(tmp_path, ledger)
    aside = Journal(tmp_path, "task", 3).set_aside()
    assert draw(tmp_path, ledger) == "answer 2"
    assert "answer 1" in aside.read_text()
    assert aside.parent == tmp_path / "answers" / "task"


def test_a_damaged_entry_that_was_set_aside_is_told_and_in_nobodys_way(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    draw(tmp_path, ledger)
    entry = tmp_path / "answers" / "task" / "3.json"
    entry.write_text(entry.read_text()[:100])
    aside = Journal(tmp_path, "task", 3).set_aside()
    assert draw(tmp_path, ledger) == "answer 2"
    assert [answer.text for answer in kept_answers(tmp_path, "task")] == ["answer 2"]
    (lost,) = lost_requests(tmp_path, "task")
    assert (lost.worst_usd, lost.why) == (None, f"its answer was damaged, see {aside.name}")
    assert aside.stat().st_size == 100


def test_nothing_to_set_aside(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no answer to set aside"):
        Journal(tmp_path, "task", 3).set_aside()


def test_an_answer_that_was_whole_when_its_process_was_killed_is_taken(tmp_path: Path) -> None:
    """Killed between the writing and the renaming; and, beside it, one that was killed while writing."""
    draw(tmp_path, tmp_path / "ledger")
    entry = tmp_path / "answers" / "task" / "3.json"
    (entry.parent / ".3.json.half.tmp").write_text(entry.read_text()[:50])
    (entry.parent / ".3.sent.jsonl.half.tmp").write_text("{")
    # What was reserved and not needed is zeros.
    with entry.open("ab") as file:
        file.truncate(2**20)
    entry.rename(entry.parent / ".3.json.whole.tmp")
    assert draw(tmp_path, tmp_path / "ledger") == "answer 1"
    assert (tmp_path / "ledger").read_text() == "asked\n"
    assert not list(entry.parent.glob("*.tmp"))


def test_what_was_asked_is_known_of_an_answer_that_has_not_its_name_yet(tmp_path: Path) -> None:
    """Its process was killed: it is no step to be skipped."""
    draw(tmp_path, tmp_path / "ledger")
    journal = Journal(tmp_path, "task", 3)
    journal.send(
        Sent(
            started="2026-01-01T00:00:00.000+00:00",
            model="m",
            input_tokens=1,
            max_completion_tokens=1,
            worst_usd=1.0,
        )
    )
    journal.path.rename(journal.folder / ".3.json.whole.tmp")
    assert journal.asked() == REQUEST
    assert not journal.sent.exists() and not lost_requests(tmp_path, "task")


def test_a_full_disk_is_found_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="3.json: the disk has no 2 MB left .*nothing was asked"):
        draw(tmp_path, tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()
    assert not list((tmp_path / "answers").glob("**/.3.json*"))


def test_a_damaged_entry_is_named_and_nobody_is_asked(tmp_path: Path) -> None:
    draw(tmp_path, tmp_path / "ledger")
    entry = tmp_path / "answers" / "task" / "3.json"
    entry.write_text(entry.read_text()[:100])
    with pytest.raises(UserError, match=r"answers/task/3\.json: Invalid JSON"):
        draw(tmp_path, tmp_path / "ledger")
    assert (tmp_path / "ledger").read_text() == "asked\n"


@pytest.mark.parametrize(
    ("text", "told"), [(None, "no recorded answer there"), (" \n", "the recorded answer is empty")]
)
def test_replay_names_a_file_that_it_cannot_use(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "2.md").write_text(text)
    with pytest.raises(UserError, match=told):
        Replay(tmp_path, "op_d", "d", 2).ask(REQUEST)
