"""Sealed checkpoints from what is kept, held against the definition over all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import StoreError
from ledger.hashing import Hash
from ledger.notes import SignatureLine, SignerKey, cosignature_line, cosignature_time, split_note
from ledger.sealing import SealedCheckpoint, SealedReader
from ledger.store import Batch, Cosigned, Head, NewCosignatures, Store, StoredNote
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Cosignature, Group, Log, Policy, Quorum, Witness, judge
from tests.support.growing_log import GrowingLog, key
from tests.support.quorums import quorums

REGISTER = "department-for-testing/secretary-of-state"
LOG = GrowingLog(f"ledger.test/{REGISTER}")
SIZES = 7
SIGNERS = {name: SignerKey(f"{name}.example/w", key(name)) for name in "abcde"}
STRANGER = SignerKey("stranger.example/w", key("stranger"))
TWO_OF_THREE = Quorum(("a", "b", "c"), (Group("q", 2, ("a", "b", "c")),), "q")
NOBODY = Quorum(("a",), (), None)

Kept = Mapping[tuple[int, str], tuple[int, ...]]
"""The times at which witnesses have cosigned, by size and name."""


def policy(quorum: Quorum = TWO_OF_THREE) -> Policy:
    """Return a policy whose witnesses are those of a quorum."""
    witnesses = tuple(Witness(name, SIGNERS[name].cosigner) for name in quorum.witnesses)
    return Policy((Log(LOG.signer.verifier),), witnesses, quorum)


def line(signer: SignerKey, size: int, time: int) -> SignatureLine:
    """Return a cosignature of a size."""
    return cosignature_line(LOG.checkpoint(size).text(), signer, time)


def filled(store: Store, kept: Kept) -> Store:
    """Keep cosignatures in an empty store."""
    store.commit([Batch(REGISTER, None, Head(SIZES, Hash(bytes(32))), entries=[b"entry"] * SIZES)])
    for (size, name), times in kept.items():
        lines = [line(SIGNERS[name], size, time) for time in times]
        store.keep_cosignatures([NewCosignatures(REGISTER, StoredNote(size, LOG.note(size)), lines)])
    return store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store")


def shown(sealed: SealedCheckpoint | None, quorum: Quorum) -> tuple[int, set[tuple[str, int]]] | None:
    """Return size, and who cosigned when, of a sealed checkpoint that every verifier accepts."""
    if sealed is None:
        return None
    judged = judge(sealed.note, policy(quorum), LOG.origin)
    assert judged.sealed
    assert judged.checkpoint == sealed.checkpoint == LOG.checkpoint(sealed.size)
    assert set(judged.cosignatures) == set(sealed.cosignatures)
    return sealed.size, {(each.witness, each.time) for each in sealed.cosignatures}


def naive(
    kept: Kept, quorum: Quorum, sizes: Iterable[int], time: int | None = None
) -> tuple[int, dict[str, tuple[int, ...]]] | None:
    """Return the first of `sizes` that is sealed, and who has cosigned it; by `time`, where one is given."""
    for size in sizes:
        found = {
            name: times
            for (cosigned, name), times in kept.items()
            if cosigned == size and name in quorum.witnesses and (time is None or min(times) <= time)
        }
        if quorum.root is not None and quorum.is_met_by(found):
            return size, found
    return None


def firsts(found: tuple[int, dict[str, tuple[int, ...]]] | None) -> tuple[int, set[tuple[str, int]]] | None:
    return found and (found[0], {(name, min(times)) for name, times in found[1].items()})


def lasts(found: tuple[int, dict[str, tuple[int, ...]]] | None) -> tuple[int, set[tuple[str, int]]] | None:
    return found and (found[0], {(name, max(times)) for name, times in found[1].items()})


@given(
    st.dictionaries(
        st.tuples(st.integers(0, SIZES), st.sampled_from("abcde")),
        st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
        max_size=20,
    ),
    quorums(),
)
def test_what_is_found_is_what_the_definition_says(
    kept: dict[tuple[int, str], tuple[int, ...]], quorum: Quorum
) -> None:
    """If false, a receipt would be bounded worse than the ledger could, or by what is not sealed."""
    reader = SealedReader(filled(MemoryStore(), kept), policy(quorum))
    for index in range(-1, SIZES + 1):
        after = firsts(naive(kept, quorum, range(index + 1, SIZES + 1)))
        assert shown(reader.first_covering(REGISTER, index), quorum) == after
        before = lasts(naive(kept, quorum, range(index, -1, -1)))
        assert shown(reader.last_up_to(REGISTER, index), quorum) == before
    for time in range(11):
        by_then = naive(kept, quorum, range(SIZES, -1, -1), time)
        wanted = by_then and (
            by_then[0],
            {(name, min(times)) for name, times in by_then[1].items()},
        )
        assert shown(reader.witnessed_by(REGISTER, time, SIZES), quorum) == wanted


def test_both_stores_find_the_same(store: Store) -> None:
    """If false, what is sealed would depend on where it is kept."""
    kept = {
        (0, "a"): (10,), (0, "b"): (11,),
        (2, "a"): (20,), (3, "b"): (30,), (4, "c"): (40,),
        (5, "b"): (50, 55), (5, "c"): (51, 59), (5, "a"): (58,),
        (7, "a"): (70,),
    }  # fmt: skip
    reader = SealedReader(filled(store, kept), policy())
    assert shown(reader.first_covering(REGISTER, -1), TWO_OF_THREE) == (0, {("a", 10), ("b", 11)})
    for index in range(5):
        assert shown(reader.first_covering(REGISTER, index), TWO_OF_THREE) == (
            5,
            {("a", 58), ("b", 50), ("c", 51)},
        )
    assert reader.first_covering(REGISTER, 5) is None
    for size in (5, 6, 7):
        assert shown(reader.last_up_to(REGISTER, size), TWO_OF_THREE) == (
            5,
            {("a", 58), ("b", 55), ("c", 59)},
        )
    for size in range(5):
        assert shown(reader.last_up_to(REGISTER, size), TWO_OF_THREE) == (0, {("a", 10), ("b", 11)})
    assert shown(reader.witnessed_by(REGISTER, 50, 7), TWO_OF_THREE) == (0, {("a", 10), ("b", 11)})
    assert shown(reader.witnessed_by(REGISTER, 57, 7), TWO_OF_THREE) == (5, {("b", 50), ("c", 51)})
    assert reader.witnessed_by(REGISTER, 10, 7) is None
    assert shown(reader.witnessed_by(REGISTER, 99, 4), TWO_OF_THREE) == (0, {("a", 10), ("b", 11)})


def test_a_timeline_is_over_all_that_is_kept_of_the_policys_witnesses(store: Store) -> None:
    """If false, a bound could rest on a stranger's clock, or leave out what is known."""
    filled(store, {(3, "a"): (30, 90), (3, "b"): (40,), (5, "a"): (35,), (5, "e"): (1,)})
    timeline = SealedReader(store, policy()).timeline(REGISTER)
    assert timeline.after(2) == (Cosignature("a", 3, 30), Cosignature("b", 3, 40))
    assert timeline.before(3) == (Cosignature("a", 3, 90), Cosignature("b", 3, 40))
    assert timeline.after(4) == ()


def test_lines_of_nobody_in_the_policy_never_stand_in_a_note(store: Store) -> None:
    """If false, a witness that was dismissed, or a stranger, would still be shown as one who vouches."""
    filled(store, {(3, "a"): (30,), (3, "b"): (40,), (3, "e"): (5,)})
    planted = [line(STRANGER, 3, 1), SignatureLine("a.example/w", 7, line(SIGNERS["a"], 3, 2).signature)]
    store.keep_cosignatures([NewCosignatures(REGISTER, StoredNote(3, LOG.note(3)), planted)])
    sealed = SealedReader(store, policy()).first_covering(REGISTER, 0)
    assert sealed is not None
    assert [each.name for each in split_note(sealed.note)[1]] == [LOG.origin, "a.example/w", "b.example/w"]
    # The log's own line first, then witnesses in the order of the policy: the same note each time.
    again = SealedReader(store, policy()).first_covering(REGISTER, 0)
    assert again == sealed


def test_no_witness_asked_nothing_sealed(store: Store) -> None:
    """If false, a ledger would call sealed what nobody was asked about."""
    filled(store, {(3, "a"): (30,)})
    reader = SealedReader(store, policy(NOBODY))
    assert reader.first_covering(REGISTER, 0) is None
    assert reader.last_up_to(REGISTER, SIZES) is None
    assert reader.witnessed_by(REGISTER, 99, SIZES) is None


def test_a_size_without_its_note_is_damage(store: Store) -> None:
    """If false, cosignatures could be shown over the note of another size."""
    reader = SealedReader(filled(store, {(2, "a"): (10,)}), policy())
    with pytest.raises(StoreError, match="size 4, but no note"):
        reader.assemble(REGISTER, 4, [line(SIGNERS["a"], 4, 20)])


class Counted(MemoryStore):
    """Counts what is asked of it."""

    asked = 0

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        self.asked += 1
        return super().next_cosigned(register, by, at_least)

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        self.asked += 1
        return super().last_cosigned(register, by, at_most)


def test_however_much_others_have_cosigned_a_few_questions_find_the_seal() -> None:
    """If false, each receipt would read the whole history after a change of witnesses (promise P10)."""
    size = 400
    store = Counted()
    store.commit([Batch(REGISTER, None, Head(size, Hash(bytes(32))), entries=[b"entry"] * size)])
    for each in range(size + 1):
        names = "ab" if each < 200 else "bc" if each == 300 else "a" if each % 2 else "ac"
        lines = [
            SignatureLine(*line(SIGNERS[name], 0, 1).by, each.to_bytes(8, "big") + bytes(64)) for name in names
        ]
        store.keep_cosignatures([NewCosignatures(REGISTER, StoredNote(each, LOG.note(each)), lines)])
    reader = SealedReader(store, policy(Quorum(("b", "c"), (Group("q", 2, ("b", "c")),), "q")))
    found = reader.first_covering(REGISTER, 0)
    assert found is not None
    assert found.size == 300
    assert [cosignature_time(each.signature) for each in split_note(found.note)[1][1:]] == [300, 300]
    found = reader.last_up_to(REGISTER, size)
    assert found is not None
    assert found.size == 300
    assert reader.last_up_to(REGISTER, 299) is None
    assert store.asked <= 20
