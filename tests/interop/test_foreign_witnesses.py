"""omniwitness and litewitness, as released, cosign what our ledger signs; and what each answers, case by case.

The table is what they do, not what they should do: the status that the specification asks for stands beside
theirs (specs/witness.md, section 2). `READ_AS` is what our ledger makes of each (services/asking.py).
"""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.governing import GOVERNING
from ledger.notes import Note, SignatureLine, SignerKey, format_note, open_note, sign_note, split_note
from ledger.witnessing import Policy, judge
from services.asking import Answer, Granted, Holds, Refused, Unavailable, ask, new_session
from tests.support.command import run
from tests.support.foreign_witness import ForeignWitness, litewitness, log_list, omniwitness
from tests.support.growing_log import GrowingLog, key
from tests.support.witness_process import make_witness, witnessing

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]

Start = Callable[[Path, Path, str], AbstractContextManager[ForeignWitness]]

WITNESSES: Final[Mapping[str, Start]] = {"omniwitness": omniwitness, "litewitness": litewitness}

LEDGER: Final = "ledger.example"
REGISTERS: Final = (GOVERNING, "department/first", "department/second")
SIZES: Final = (0, 1, 2, 255, 256, 257, 300, 70_000)


def register(name: str) -> GrowingLog:
    """Return a register of a ledger: one log key, under the register's name."""
    return GrowingLog(f"{LEDGER}/{name}", key(LEDGER))


def _nothing(_logs: str) -> None:
    """Learn nothing more."""


@contextmanager
def our_own(programs: Path, folder: Path, logs: str) -> Iterator[ForeignWitness]:
    """Run our own witness, as the others are run."""
    made = make_witness(folder, "daybook.example/w")
    (folder / "logs").write_text(logs, encoding="utf-8")
    run("witness", "add-ledger", made.directory, "--log-list", folder / "logs")
    with witnessing(made.directory) as running:
        yield ForeignWitness("daybook", made.key, running.url, _nothing)


@pytest.fixture(params=WITNESSES)
def witness(request: pytest.FixtureRequest, foreign: Path, tmp_path: Path) -> Iterator[ForeignWitness]:
    """Each of the two, new: it knows our registers by a log list, and has cosigned nothing."""
    with WITNESSES[request.param](foreign, tmp_path / "witness", our_list()) as running:
        yield running


@pytest.fixture(params=[*WITNESSES, "daybook"])
def any_witness(request: pytest.FixtureRequest, foreign: Path, tmp_path: Path) -> Iterator[ForeignWitness]:
    """Each of the two, or our own."""
    start = WITNESSES.get(request.param, our_own)
    with start(foreign, tmp_path / "witness", our_list()) as running:
        yield running


def our_list() -> str:
    return log_list(register(name).vkey for name in REGISTERS)


@dataclass(frozen=True, slots=True)
class Raw:
    """What a witness answered, verbatim."""

    status: int
    content_type: str | None
    body: bytes


def post(witness: ForeignWitness, request: AddCheckpoint) -> Raw:
    """Make one request, and no more."""
    connection = http.client.HTTPConnection(urlsplit(witness.url).netloc, timeout=30)
    try:
        connection.request("POST", "/add-checkpoint", request.data())
        response = connection.getresponse()
        return Raw(response.status, response.getheader("Content-Type"), response.read())
    finally:
        connection.close()


def answer(witness: ForeignWitness, request: AddCheckpoint) -> Answer:
    """Ask as our ledger does."""

    async def asking() -> Answer:
        async with new_session(timeout=30, issuers=None) as session:
            return await ask(session, witness.witness, request, int(time.time()))

    return asyncio.run(asking())


def cosigned(witness: ForeignWitness, request: AddCheckpoint) -> Note:
    """Have a checkpoint cosigned, and return it with the lines of the answer, opened with the witness's key."""
    raw = post(witness, request)
    assert raw.status == 200, raw
    return open_note(request.note + raw.body, [witness.key])


@pytest.mark.parametrize("name", REGISTERS)
def test_each_cosigns_a_register_as_it_grows(witness: ForeignWitness, name: str) -> None:
    """If false, a checkpoint, a proof or a request of ours is not what a witness of another make expects."""
    log = register(name)
    old = 0
    for size in SIZES:
        before = int(time.time())
        granted = answer(witness, log.request(old, size))
        assert isinstance(granted, Granted), granted
        assert before <= granted.time <= int(time.time())
        old = size


def test_each_cosigns_the_same_checkpoint_again(witness: ForeignWitness) -> None:
    """If false, an idle ledger cannot show that nothing was added in between."""
    log = register(GOVERNING)
    cosigned(witness, log.request(0, 5))
    first = answer(witness, log.request(5, 5))
    later = answer(witness, log.request(5, 5))
    assert isinstance(first, Granted)
    assert isinstance(later, Granted)
    assert first.time <= later.time


def test_both_together_seal_a_checkpoint_under_two_of_two(foreign: Path, tmp_path: Path) -> None:
    """If false, what two foreign witnesses cosigned does not satisfy the policy that names them."""
    log = register("department/first")
    with (
        omniwitness(foreign, tmp_path / "omniwitness", our_list()) as first,
        litewitness(foreign, tmp_path / "litewitness", our_list()) as second,
    ):
        note = cosigned(second, log.request(0, 300))
        sealed = note.with_lines(cosigned(first, log.request(0, 300)).verified)
        policy = Policy.parse(
            f"log {register(GOVERNING).vkey}\n{first.policy_line}\n{second.policy_line}\n"
            "group both all omniwitness litewitness\nquorum both\n".encode()
        )
        judged = judge(sealed, policy, log.origin)
    assert judged.sealed
    assert {each.witness for each in judged.cosignatures} == {"omniwitness", "litewitness"}


Make = Callable[[GrowingLog], AddCheckpoint]


@dataclass(frozen=True, slots=True)
class Case:
    """A request to a witness that has cosigned size 5 (or nothing, where it is the `first`), and its status.

    `specified` is the one of the specification, and our own witness's. With 409, `latest` is the size that the
    witness tells.
    """

    make: Make
    specified: int
    omniwitness: int
    litewitness: int
    first: bool = False
    latest: int = 5

    def status(self, name: str) -> int:
        """Return the status by which a witness answers."""
        statuses = {"omniwitness": self.omniwitness, "litewitness": self.litewitness, "daybook": self.specified}
        return statuses[name]


def with_another_signature(log: GrowingLog) -> AddCheckpoint:
    stranger = SignerKey(log.origin, key("a stranger"))
    return AddCheckpoint(5, log.proof(5, 9), sign_note(log.checkpoint(9).text(), [stranger]))


def with_a_wrong_signature(log: GrowingLog) -> AddCheckpoint:
    note = log.note(9)
    at = len(note) - 20
    other = b"A" if note[at : at + 1] != b"A" else b"B"
    return AddCheckpoint(5, log.proof(5, 9), note[:at] + other + note[at + 1 :])


def with_an_extension_line(log: GrowingLog) -> AddCheckpoint:
    checkpoint = Checkpoint(log.origin, 9, log.root(9), ("an extension",))
    return AddCheckpoint(5, log.proof(5, 9), sign_note(checkpoint.text(), [log.signer]))


def empty_with_another_root(log: GrowingLog) -> AddCheckpoint:
    text = log.checkpoint(3).text().replace(b"\n3\n", b"\n0\n")
    return AddCheckpoint(0, (), sign_note(text, [log.signer]))


CASES = {
    "an older size to go on from": Case(lambda log: log.request(3, 9), 409, 409, 409),
    "nothing to go on from": Case(lambda log: log.request(0, 9), 409, 409, 409),
    "an older checkpoint": Case(lambda log: AddCheckpoint(5, (), log.note(3)), 400, 400, 400),
    "another root at the same size": Case(lambda log: log.forked(3).request(5, 5), 422, 422, 422),
    "another history": Case(lambda log: log.forked(3).request(5, 9), 422, 422, 422),
    "a proof in the wrong order": Case(lambda log: log.request(5, 9, log.proof(5, 9)[::-1]), 422, 422, 422),
    "no proof": Case(lambda log: log.request(5, 9, ()), 422, 422, 422),
    "a proof at the same size": Case(lambda log: log.request(5, 5, log.proof(3, 5)), 422, 422, 422),
    # omniwitness says 500 of whatever it could not verify, so that our ledger goes on asking, ever later.
    "a log that it does not know": Case(lambda _log: register("department/third").request(0, 3), 404, 500, 403),
    "another key": Case(with_another_signature, 403, 500, 403),
    "a wrong signature": Case(with_a_wrong_signature, 403, 500, 403),
    "no note": Case(lambda log: AddCheckpoint(5, (), f"{log.origin}\nno\n".encode()), 400, 500, 500),
    # Neither looks at a proof from nothing. Our own witness does.
    "a proof from nothing": Case(lambda log: log.request(0, 9, log.proof(3, 9)), 422, 200, 200, first=True),
    # omniwitness trusts the first checkpoint that it sees, whatever it is said to follow.
    "something to go on from, at first": Case(
        lambda log: log.request(3, 9), 409, 200, 409, first=True, latest=0
    ),
    "an empty log of another root": Case(empty_with_another_root, 422, 422, 200, first=True),
    # The specification leaves it to the witness, and ours takes none. Daybook writes no such lines.
    "an extension line": Case(with_an_extension_line, 400, 200, 200),
}

READ_AS: Final[Mapping[int, type[Answer]]] = {
    200: Granted,
    400: Refused,
    403: Refused,
    404: Refused,
    409: Holds,
    422: Refused,
    500: Unavailable,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_answers_as_the_table_says_and_our_ledger_understands(
    any_witness: ForeignWitness, case: Case
) -> None:
    """If false, a deployed witness behaves otherwise than we believe, or our ledger takes it wrongly."""
    # Two registers: a request may change what the next one meets.
    one, two = register("department/first"), register("department/second")
    if not case.first:
        cosigned(any_witness, one.request(0, 5))
        cosigned(any_witness, two.request(0, 5))
    raw = post(any_witness, case.make(one))
    assert raw.status == case.status(any_witness.name), raw
    read = answer(any_witness, case.make(two))
    assert isinstance(read, READ_AS[raw.status]), read
    match read:
        case Holds(size):
            assert (raw.content_type, raw.body) == ("text/x.tlog.size", b"%d\n" % size)
            assert size == case.latest
        case Refused(status, _, disputes):
            assert (status, disputes) == (raw.status, raw.status == 422)
        case Granted():
            open_note(case.make(one).note + raw.body, [any_witness.key])


def with_a_line_of(log: GrowingLog, size: int) -> AddCheckpoint:
    """Return a request of about `size` bytes, for the line of a stranger that the note carries."""
    text, lines = split_note(log.note(5))
    room = size - len(log.request(0, 5).data()) - len(SignatureLine("stranger.example", 1, b"").line)
    stranger = SignatureLine("stranger.example", 1, bytes(room // 4 * 3))
    return AddCheckpoint(0, (), format_note(text, [*lines, stranger]))


def test_neither_reads_more_than_it_says(witness: ForeignWitness) -> None:
    """If false, the limits below which our ledger's requests stay are not what we think: 10 and 16 KiB."""
    log = register(GOVERNING)
    limit, status = {"omniwitness": (16 * 1024, 400), "litewitness": (10 * 1024, 500)}[witness.name]
    assert post(witness, with_a_line_of(log, limit + 100)).status == status
    cosigned(witness, with_a_line_of(log, limit - 100))
