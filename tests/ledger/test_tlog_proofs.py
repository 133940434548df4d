"""tlog-proofs: parse, format, verify (C2SP tlog-proof)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LedgerError, MalformedError, ProofError, SignatureError
from ledger.hashing import Hash
from ledger.tlog_proofs import TlogProof, hash_lines, parse_hash_lines, verify_tlog_proof
from ledger.witnessing import Policy
from tests.support.vectors import VECTORS

ORIGIN = "daybook.example/register/dept-a"
NINE = (VECTORS / "c2sp" / "index-9-of-13.tlog-proof").read_bytes()
ZERO = (VECTORS / "c2sp" / "index-0-of-1-with-extra.tlog-proof").read_bytes()
BOTH = Policy.parse((VECTORS / "c2sp" / "policy-both").read_bytes())
NOBODY = Policy.parse((VECTORS / "c2sp" / "policy-both").read_bytes().replace(b"quorum both", b"quorum none"))
HASH = NINE.split(b"\n")[2] + b"\n"

hashes = st.binary(min_size=32, max_size=32).map(Hash)


def verify(data: bytes, entry: bytes = b"daybook-entry-9", policy: Policy = BOTH) -> int:
    """Verify a tlog-proof and return the size of its checkpoint."""
    return verify_tlog_proof(TlogProof.parse(data), entry, policy, ORIGIN).checkpoint.size


def test_the_proofs_of_the_specification_verify() -> None:
    """Were this false, we would not accept what other programs prove."""
    assert verify(NINE) == 13
    assert verify(ZERO, b"daybook-entry-0", NOBODY) == 1
    proof = TlogProof.parse(ZERO)
    assert (proof.index, proof.path, proof.extra) == (0, (), b"decision-id=2031-07-04/17")


@pytest.mark.parametrize("data", [NINE, ZERO], ids=["nine", "zero"])
def test_a_proof_prints_as_it_was(data: bytes) -> None:
    """Were this false, parsing a proof would change it."""
    assert TlogProof.parse(data).text() == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(NINE.replace(b"index 9", b"index 8"), ProofError, id="another index"),
        pytest.param(NINE.replace(b"index 9", b"index 13"), ProofError, id="index = size"),
        pytest.param(NINE.replace(HASH, b""), ProofError, id="a hash dropped"),
        pytest.param(NINE.replace(HASH, HASH + HASH), ProofError, id="a hash twice"),
        pytest.param(
            b"\n".join([*NINE.split(b"\n")[:2], *NINE.split(b"\n")[3:1:-1], *NINE.split(b"\n")[4:]]),
            ProofError,
            id="hashes swapped",
        ),
        pytest.param(NINE[: NINE.rindex("\N{EM DASH}".encode())], SignatureError, id="a witness removed"),
        pytest.param(NINE.replace(b"dept-a\n13", b"dept-b\n13"), SignatureError, id="another origin"),
        pytest.param(NINE.replace(b"\n13\n", b"\n14\n"), SignatureError, id="another size"),
        pytest.param(NINE.replace(b"3aw7", b"3aw8"), SignatureError, id="another root"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused(data: bytes, why: type[LedgerError]) -> None:
    """Were this false, something could be proved that is not so (proofs-receipts.md, section 5)."""
    assert data != NINE
    with pytest.raises(why):
        verify(data)


def test_a_proof_is_of_one_entry() -> None:
    """Were this false, a proof could be presented with another entry."""
    with pytest.raises(ProofError):
        verify(NINE, b"daybook-entry-8")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NINE.replace(b"@v1", b"@v2"), id="another version"),
        pytest.param(NINE.replace(b"v1\n", b"v1\r\n"), id="CR"),
        pytest.param(NINE.replace(b"index 9", b"index 09"), id="a leading zero"),
        pytest.param(NINE.replace(b"index 9", b"index  9"), id="two spaces"),
        pytest.param(NINE.replace(b"index 9", b"Index 9"), id="another word"),
        pytest.param(NINE.replace(b"index 9\n", b""), id="no index"),
        pytest.param(NINE.replace(b"index 9\n", b"index 9\nextra AA==\n"), id="extra after index"),
        pytest.param(ZERO.replace(b"index", b"extra AA==\nindex"), id="extra twice"),
        pytest.param(ZERO.replace(b"Nw==", b"Nx=="), id="extra with spare bits"),
        pytest.param(NINE.replace(HASH, b"AAAA\n"), id="a short hash"),
        pytest.param(NINE.replace(HASH, HASH * 61), id="64 hashes"),
        pytest.param(NINE.replace(HASH, HASH[:-2] + b"\n"), id="no padding"),
        pytest.param(NINE[: NINE.index(b"\n\n") + 2], id="no note"),
        pytest.param(NINE[: NINE.index(b"\n\n") + 1], id="no blank line"),
        pytest.param(b"\n" + NINE, id="a blank line first"),
        pytest.param(b"\xff" + NINE, id="not ASCII"),
    ],
)
def test_other_spellings_of_a_proof_are_refused(data: bytes) -> None:
    """Were this false, one proof would have two texts."""
    with pytest.raises(MalformedError):
        TlogProof.parse(data)


def test_lines_of_hashes_have_one_spelling() -> None:
    """Were this false, one consistency proof would have two texts."""
    assert parse_hash_lines(b"") == ()
    for data in (HASH[:-1], HASH + b"\n", b"\n", HASH + b"AAAA\n", b"\xff\n"):
        with pytest.raises(MalformedError):
            parse_hash_lines(data)


@given(st.lists(hashes, max_size=5).map(tuple))
def test_lines_of_hashes_print_and_parse(values: tuple[Hash, ...]) -> None:
    """Were this false, some proof could be written and not be read again."""
    assert parse_hash_lines(hash_lines(values)) == values


@given(
    st.builds(
        TlogProof,
        st.integers(0, 2**63 - 1),
        st.lists(hashes, max_size=63).map(tuple),
        st.binary(min_size=1),
        st.none() | st.binary(max_size=50),
    )
)
def test_every_proof_prints_and_parses(proof: TlogProof) -> None:
    """Were this false, some proof could be written and not be read again."""
    assert TlogProof.parse(proof.text()) == proof


@given(st.integers(0, len(NINE) * 8 - 1))
def test_any_flipped_bit_fails(bit: int) -> None:
    """Were this false, something in a proof would not be checked; here the quorum needs every witness."""
    data = bytearray(NINE)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LedgerError):
        verify(bytes(data))
