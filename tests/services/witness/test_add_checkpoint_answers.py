"""Answers to add-checkpoint over real HTTP: the status table, the vectors, what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger import base64
from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.hashing import EMPTY_ROOT
from ledger.notes import (
    SignatureLine,
    SignerKey,
    VerifierKey,
    cosignature_line,
    cosignature_time,
    open_note,
    sign_note,
    split_note,
)
from tests.support.growing_log import GrowingLog, key
from tests.support.vectors import VECTORS
from tests.support.witness_process import Answer, MadeWitness, RunningWitness, ask, call, latest

NewLog = Callable[[], GrowingLog]

TEXT = "text/plain; charset=utf-8"
FIRST = (VECTORS / "c2sp" / "add-checkpoint-0-to-7").read_bytes()
GROWTH = (VECTORS / "c2sp" / "add-checkpoint-7-to-13").read_bytes()


def cosigned(answer: Answer, request: AddCheckpoint, witness: VerifierKey) -> SignatureLine:
    """Check an answer as a log does: append it to the note, open that with the witness's key."""
    assert (answer.status, answer.content_type) == (200, TEXT)
    return open_note(request.note + answer.body, [witness]).verified[0]


def test_the_specifications_requests_are_answered_as_it_says(made: MadeWitness, served: RunningWitness) -> None:
    """If false, a log that follows the specification could not use this witness: V1, V2 and V4."""
    made.add_ledger("daybook.example/register/dept-a+374327f9+Ae7AIwA2YJWB1b9jSaTbE1wBMPGRChF0vgvMOZ/p6360")
    first, growth = AddCheckpoint.parse(FIRST), AddCheckpoint.parse(GROWTH)
    path = "/ffc81ca62c92f2e41e9493f999892f434c078c53c2fb6c4e678f25418610f91b/checkpoint"
    assert call(served.http, "GET", path).status == 404
    cosigned(ask(served.http, first), first, made.key)
    from_three = FIRST.replace(b"old 0", b"old 3", 1)
    assert call(served.http, "POST", "/add-checkpoint", from_three) == Answer(409, "text/x.tlog.size", b"7\n")
    line = cosigned(ask(served.http, growth), growth, made.key)
    held = call(served.http, "GET", path)
    assert (held.status, held.content_type, held.body) == (200, TEXT, growth.note + line.line)


def rows(log: GrowingLog) -> list[tuple[bytes, int]]:
    """Return bodies and the statuses that they get while size 5 of `log` is the latest cosigned."""
    fork, size = log.forked(3), log.request(5, 9).data()
    other = SignerKey(log.origin, key("other"))

    def signed(text: str, old: int = 5) -> bytes:
        return AddCheckpoint(old, (), sign_note(text.encode(), [log.signer])).data()

    root = base64.encode(log.root(9))
    return [
        (b"", 400),
        (size.replace(b"old 5", b"old 05", 1), 400),
        (size.replace(b"old 5", b"new 5", 1), 400),
        (size.replace(b"=\n", b"\n", 1), 400),
        (b"old 5\n" + (base64.encode(EMPTY_ROOT).encode() + b"\n") * 64 + b"\n" + log.note(9), 400),
        (GrowingLog("stranger.example/log").request(0, 9).data(), 404),
        (AddCheckpoint(5, (), b"").data(), 404),
        (AddCheckpoint(5, (), b"\n\n\n").data(), 404),
        (AddCheckpoint(5, (), b"\xff\xfe\n9\n").data(), 404),
        (AddCheckpoint(5, (), f"{log.origin}\n9\n".encode()).data(), 400),
        (size[:-1], 400),
        (size + b"- x AAAAAAA=\n", 400),
        (AddCheckpoint(5, (), sign_note(log.checkpoint(9).text(), [other])).data(), 403),
        (AddCheckpoint(5, (), log.note(9).replace(b"\n9\n", b"\n8\n")).data(), 403),
        (signed(f"{log.origin}\n9\n{root}\nextension\n"), 400),
        (signed(f"{log.origin}\n9\n"), 400),
        (signed(f"{log.origin}\n09\n{root}\n"), 400),
        (signed(f"{log.origin}\n9\n{root[:-4]}\n"), 400),
        (signed(f"{log.origin}\n4\n{root}\n"), 400),
        (signed(f"{log.origin}\n0\n{root}\n", 0), 422),
        (log.request(4, 9).data(), 409),
        (log.request(9, 9).data(), 409),
        (log.request(0, 9).data(), 409),
        (fork.request(5, 9).data(), 422),
        (fork.request(5, 5).data(), 422),
        (log.request(5, 9, []).data(), 422),
        (log.request(5, 9, log.proof(5, 9)[::-1]).data(), 422),
        (log.request(5, 5, [EMPTY_ROOT]).data(), 422),
    ]


def test_every_row_of_the_table_over_http_and_none_changes_anything(
    served: RunningWitness, new_log: NewLog
) -> None:
    """If false, a log would be told something else than is wrong, or a refusal would move the state."""
    log = new_log()
    assert ask(served.http, log.request(0, 5)).status == 200
    held = latest(served.http, log.origin)
    for body, status in rows(log):
        answer = call(served.http, "POST", "/add-checkpoint", body)
        assert answer.status == status, body
        if status == 409:
            assert (answer.content_type, answer.body) == ("text/x.tlog.size", b"5\n")
        else:
            assert answer.content_type == TEXT
            assert answer.body.endswith(b"\n")
        assert latest(served.http, log.origin) == held, body
    assert ask(served.http, log.request(5, 9)).status == 200


def test_the_empty_tree_is_cosigned_and_grows(
    made: MadeWitness, served: RunningWitness, new_log: NewLog
) -> None:
    """If false, a register that has just been opened could not be sealed."""
    log = new_log()
    for request in (log.request(0, 0), log.request(0, 0), log.request(0, 4), log.request(4, 4)):
        cosigned(ask(served.http, request), request, made.key)
    assert ask(served.http, log.request(0, 4)) == Answer(409, "text/x.tlog.size", b"4\n")


def test_the_same_checkpoint_again_gets_a_fresh_time(
    made: MadeWitness, served: RunningWitness, new_log: NewLog
) -> None:
    """If false, an idle ledger could not show that nothing was added meanwhile."""
    log = new_log()
    again = log.request(5, 5)
    begin = cosigned(ask(served.http, log.request(0, 5)), again, made.key)
    line = cosigned(ask(served.http, again), again, made.key)
    while line == begin:  # within the same second it is the same statement, so the same bytes
        line = cosigned(ask(served.http, again), again, made.key)
    assert cosignature_time(line.signature) > cosignature_time(begin.signature) > 0
    held = latest(served.http, log.origin).body
    assert held == again.note + line.line


def test_a_line_planted_under_the_witness_s_own_name_is_neither_stored_nor_in_the_way(
    made: MadeWitness, served: RunningWitness, new_log: NewLog
) -> None:
    """If false, one stranger could make everything that this witness stores fail to open, for ever."""
    log = new_log()
    liar = cosignature_line(b"another text\n", SignerKey(made.key.name, key("liar")), 7)
    planted = SignatureLine(made.key.name, made.key.key_id, liar.signature)
    first = log.request(0, 5)
    dirty = AddCheckpoint(0, (), first.note + planted.line + liar.line)
    line = cosigned(ask(served.http, dirty), first, made.key)
    held = latest(served.http, log.origin).body
    assert held == first.note + line.line
    assert {each.name for each in split_note(held)[1]} == {log.origin, made.key.name}
    open_note(held, [made.key, log.signer.verifier])
    for old, size in ((5, 9), (9, 9)):
        request = log.request(old, size)
        assert ask(served.http, AddCheckpoint(old, request.proof, request.note + planted.line)).status == 200
    open_note(latest(served.http, log.origin).body, [made.key, log.signer.verifier])


def test_what_is_signed_is_the_checkpoint_alone(
    made: MadeWitness, served: RunningWitness, new_log: NewLog
) -> None:
    """If false, the cosignature would not verify over what the log published."""
    log = new_log()
    line = cosigned(ask(served.http, log.request(0, 5)), log.request(0, 5), made.key)
    made.key.verify(Checkpoint(log.origin, 5, log.root(5)).text(), line.signature)


def test_two_requests_that_race_never_both_win_with_different_roots(
    served: RunningWitness, new_log: NewLog
) -> None:
    """If false, a forked ledger that asks at the same moment would get two cosignatures of one size."""
    log = new_log()
    assert ask(served.http, log.request(0, 1)).status == 200
    size = 1
    with ThreadPoolExecutor(8) as threads:
        for _ in range(60):
            fork = log.forked(size)
            asked = [log.request(size, size + 3), fork.request(size, size + 3)] * 4
            answers = list(threads.map(lambda request: ask(served.http, request), asked))
            won = {request.note for request, answer in zip(asked, answers, strict=True) if answer.status == 200}
            assert len(won) == 1
            lost = [answer for answer in answers if answer.status != 200]
            assert lost == [Answer(409, "text/x.tlog.size", b"%d\n" % (size + 3))] * 7
            log = fork if fork.note(size + 3) in won else log
            assert log.checkpoint(size + 3).text() in latest(served.http, log.origin).body
            size += 3


def test_many_logs_at_once_each_get_their_own_cosignature(made: MadeWitness, served: RunningWitness) -> None:
    """If false, requests that share one commit would get each other's answers."""
    ledger = GrowingLog("many.example/governing")
    made.add_ledger(ledger.vkey)
    logs = [GrowingLog(f"many.example/department/office-{n}", ledger.signer.secret) for n in range(24)]

    def grow(log: GrowingLog) -> None:
        for old in range(6):
            request = log.request(old, old + 1)
            cosigned(ask(served.http, request), request, made.key)

    with ThreadPoolExecutor(len(logs)) as threads:
        list(threads.map(grow, logs))
    for log in logs:
        assert latest(served.http, log.origin).body.startswith(log.checkpoint(6).text())


@pytest.mark.parametrize("register", ["governing", "access", "department/office"])
def test_a_governing_key_stands_for_every_register_of_its_ledger_and_for_nothing_else(
    made: MadeWitness, served: RunningWitness, register: str
) -> None:
    """If false, an office opened tomorrow would not be witnessed, or a ledger could sign for another."""
    ledger = GrowingLog("whole.example/governing")
    made.add_ledger(ledger.vkey)
    log = GrowingLog(f"whole.example/{register}", ledger.signer.secret)
    assert ask(served.http, log.request(0, 2)).status == 200
    for origin in ("whole.example", "whole.example/Office", "whole.example/a/b/c", "other.example/a/b"):
        assert ask(served.http, GrowingLog(origin, ledger.signer.secret).request(0, 2)).status == 404
    stranger = GrowingLog("whole.example/department/other")
    assert ask(served.http, stranger.request(0, 2)).status == 403


def test_the_identifier_of_an_origin_is_its_sha256(served: RunningWitness, new_log: NewLog) -> None:
    """If false, monitors would look where nothing is."""
    log = new_log()
    assert ask(served.http, log.request(0, 2)).status == 200
    name = hashlib.sha256(log.origin.encode()).hexdigest()
    assert call(served.http, "GET", f"/{name}/checkpoint").status == 200
    for other in (name.upper(), name[:-1], f"{name}0", f"%{ord(name[0]):x}{name[1:]}", f"{name}/"):
        assert call(served.http, "GET", f"/{other}/checkpoint").status == 404
