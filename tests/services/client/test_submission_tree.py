from __future__ import annotations

import hashlib
import subprocess
import sys
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.hashing import EMPTY_ROOT, leaf_hash, split_hashes
from ledger.proofs import verify_inclusion
from ledger.tree import path_length, paths
from services.client.submission_tree import submission_tree
from tests.support.vectors import load

RECORDS = [b"record-%d" % number for number in range(1000)]
LEAVES = [leaf_hash(record) for record in RECORDS]


@pytest.mark.parametrize("hundred", range(10))
def test_merkletools_and_the_ledger_build_the_same_tree_at_every_size(hundred: int) -> None:
    """If false, the ledger refuses an honest submission, or two programs sign two roots for one."""
    for size in range(hundred * 100 + 1, hundred * 100 + 101):
        root, built = submission_tree(RECORDS[:size])
        assert (root, built) == paths(LEAVES[:size])
        for index in {0, size // 3, size // 2, size - 2, size - 1} & set(range(size)):
            assert len(built[index]) == 32 * path_length(index, size)
            verify_inclusion(index, size, LEAVES[index], split_hashes(built[index]), root)


def test_every_path_of_130_trees_is_that_of_the_vector() -> None:
    """If false, a path differs from formats.md, section 6."""
    stream = hashlib.sha256()
    for size in range(1, 131):
        for index, path in enumerate(submission_tree(RECORDS[:size])[1]):
            steps = "".join(f" {step.hex()}" for step in split_hashes(path))
            stream.update(f"P {index} {size}{steps}\n".encode())
    assert stream.hexdigest() == load("submissions.json")["path_check"]["sha256"]


@pytest.mark.parametrize("case", load("submissions.json")["submissions"], ids=lambda case: case["name"])
def test_roots_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    """If false, the department signs another root than formats.md, section 5, gives."""
    records = [record.encode() for record in case["records"]]
    root, built = submission_tree(records)
    assert [leaf_hash(record).hex() for record in records] == case["leaves"]
    assert root == b64decode(case["root_base64"], validate=True)
    assert len(built) == len(records)


@given(st.lists(st.binary(max_size=100), max_size=40))
def test_any_records_give_the_tree_of_the_ledger(records: list[bytes]) -> None:
    """If false, equal, empty or odd records are treated differently from others."""
    assert submission_tree(records) == paths([leaf_hash(record) for record in records])


def test_no_records_have_the_empty_root_and_one_is_its_own_root() -> None:
    """If false, the smallest submissions have other roots than RFC 6962 gives them."""
    assert submission_tree([]) == (EMPTY_ROOT, [])
    assert submission_tree(RECORDS[:1]) == (LEAVES[0], [b""])


def test_importing_it_warns_of_nothing() -> None:
    """If false, every department sees merkletools' warning about a library that it does not need."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import services.client.submission_tree"],
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
