"""Everything that a ledger's clients were ever told, kept apart from it, and the comparison with what it holds.

What an answer promises is checked against the store itself, read afterwards with no server in between: a
server that forgets what it said cannot also make its clients forget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ledger.anchors import anchored_by
from ledger.entries import parse_entry, verify_entry
from ledger.governing import GOVERNING
from ledger.governing_types import LedgerOpened, RestoreDeclared, SubmissionRejected
from ledger.hashing import leaf_hash
from ledger.receipts import verify_receipt
from ledger.records import parse_record
from ledger.rules import read_header
from ledger.store import Run
from ledger.stores.sqlite import SqliteStore
from ledger.tree import EMPTY, Extension, extend
from ledger.witnessing import Policy
from services.client.answers import Registered, Rejected
from services.client.signing import SignedSubmission
from tests.support.ledger_dir import LedgerOnDisk


@dataclass(slots=True)
class Journal:
    """What was sent, what was answered, and every checkpoint note that anyone has seen.

    `sent` and `refused` are by submission_id; `notes` are by register. `lost` are races lost after acceptance.
    """

    sent: dict[str, SignedSubmission] = field(default_factory=dict)
    answers: list[Registered] = field(default_factory=list)
    lost: list[Rejected] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    notes: dict[str, set[bytes]] = field(default_factory=dict)

    def send(self, submission: SignedSubmission) -> SignedSubmission:
        """Write down a submission before it is sent for the first time."""
        self.sent[submission.submission_id] = submission
        return submission

    def answered(self, answer: Registered) -> None:
        """Write down an answer that the client has verified."""
        self.answers.append(answer)
        self.saw(answer.submission.register, answer.checkpoint_note)

    def was_rejected(self, answer: Rejected) -> None:
        """Write down a provable rejection that the client has verified."""
        self.lost.append(answer)

    def was_refused(self, submission: SignedSubmission) -> None:
        """Write down that a submission was refused for good: no answer to it may ever have been given."""
        self.refused.add(submission.submission_id)

    def saw(self, register: str, note: bytes) -> None:
        """Write down a checkpoint note."""
        self.notes.setdefault(register, set()).add(note)


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds of one register: entries, their tree, and where each submission stands.

    `rejected` has, by index, the submission that each rejection is of.
    """

    entries: Sequence[bytes]
    tree: Extension
    runs: Mapping[str, Run]
    rejected: Mapping[int, str]


def compare(journal: Journal, ledger: LedgerOnDisk) -> dict[str, Held]:
    """Compare all that was ever acknowledged with the store of a ledger that nobody serves.

    None lost, none twice, no fork, every receipt verifies, nothing refused is there, and nothing is there
    that nobody sent. Returns what each register holds.
    """
    held = dict(_read(ledger))
    for answer in journal.answers:
        _compare_answer(answer, held[answer.submission.register], ledger.policy)
    for lost in journal.lost:
        rejected = held[lost.submission.register].rejected
        assert rejected.get(lost.index) == lost.submission.submission_id, (
            f"rejected, and no entry says so: {lost}"
        )
    for register, one in held.items():
        _compare_notes(journal.notes.get(register, set()), register, one, ledger)
        for submission_id, run in one.runs.items():
            assert submission_id not in journal.refused, f"{register}: refused, yet registered: {submission_id}"
            sent = journal.sent.get(submission_id)
            if sent is None:
                assert register == GOVERNING, f"{register}: nobody sent {submission_id}"
            else:
                assert run.count == len(sent.records), f"{register}: {submission_id} is not whole"
        for index, submission_id in one.rejected.items():
            assert submission_id in journal.sent, f"{register}: entry {index} rejects what nobody sent"
    return held


def _read(ledger: LedgerOnDisk) -> Iterator[tuple[str, Held]]:
    (ledger_origin,) = ledger.policy.ledger_origins
    store = SqliteStore(ledger.directory.store)
    try:
        for register, head in store.heads().items():
            entries = store.entries(register, 0, head.size)
            assert len(entries) == head.size
            tree = extend(EMPTY, [leaf_hash(entry) for entry in entries])
            assert tree.after.root() == head.root
            runs, rejected = _runs(entries, f"{ledger_origin}/{register}")
            yield register, Held(entries, tree, runs, rejected)
            for note in store.notes(register, 0, head.size + 1):
                opened = ledger.policy.open(note.note, f"{ledger_origin}/{register}")
                assert opened.checkpoint.root == tree.frontier(note.size).root()
    finally:
        store.close()


def _runs(entries: Sequence[bytes], origin: str) -> tuple[dict[str, Run], dict[int, str]]:
    """Return where each submission stands: whole, in one run, once; and no record version twice.

    With it, the submission that each rejection is of, by index.
    """
    runs: dict[str, Run] = {}
    rejected: dict[int, str] = {}
    versions: set[tuple[str, int]] = set()
    opened = parse_record(parse_entry(entries[0]).record) if entries else None
    opened = opened if isinstance(opened, LedgerOpened) else None
    index = 0
    while index < len(entries):
        first = parse_entry(entries[index])
        if first.membership is None:
            record = parse_record(first.record)
            if isinstance(record, SubmissionRejected):
                rejected[index] = record.submission_id
            elif isinstance(record, RestoreDeclared):
                assert origin.endswith(f"/{GOVERNING}"), f"{origin}: entry {index} stands in the wrong place"
            else:
                assert anchored_by(index, first, opened) is not None, f"{origin}: entry {index} is of nobody"
            index += 1
            continue
        count = first.membership.count
        submission_id = verify_entry(first, origin)
        assert submission_id not in runs, f"{origin}: {submission_id} was appended twice"
        for position in range(count):
            entry = parse_entry(entries[index + position])
            assert entry.membership is not None
            assert (entry.membership.position, entry.acceptance) == (position, first.acceptance)
            assert verify_entry(entry, origin) == submission_id
            header = read_header(entry.record)
            version = (header.record_id, header.version)
            assert version not in versions, f"{origin}: {version} was registered twice"
            versions.add(version)
        runs[submission_id] = Run(index, count)
        index += count
    return runs, rejected


def _compare_answer(answer: Registered, held: Held, policy: Policy) -> None:
    first, count = answer.first_index, len(answer.entries)
    stands = list(held.entries[first : first + count])
    assert stands == list(answer.entries), f"acknowledged and lost: {answer.submission.submission_id}"
    for position, receipt in enumerate(answer.receipts()):
        verified = verify_receipt(receipt, policy)
        assert verified.index == first + position
        assert verified.record == answer.submission.records[position]


def _compare_notes(notes: set[bytes], register: str, held: Held, ledger: LedgerOnDisk) -> None:
    """Every note that was ever seen is of this one history: its root is that of the tree at its size."""
    (ledger_origin,) = ledger.policy.ledger_origins
    for note in notes:
        checkpoint = ledger.policy.open(note, f"{ledger_origin}/{register}").checkpoint
        assert checkpoint.size <= len(held.entries), f"{register}: a signed size of {checkpoint.size} is gone"
        root = held.tree.frontier(checkpoint.size).root()
        assert checkpoint.root == root, f"{register}: the history forked at or before {checkpoint.size}"
