"""Where a register's messages go."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from hypothesis import given
from hypothesis import strategies as st

from services.distributed.partitions import partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_java_client(key: str, signed: int) -> None:
    """False if other clients sent a register elsewhere. Values of Kafka's own UtilsTest.testMurmur2."""
    assert murmur2(key.encode()) == signed % 2**32
    assert partition_of(key, 12) == (signed & 0x7FFFFFFF) % 12


@given(st.text(), st.integers(1, 100))
def test_a_producer_without_a_choice_sends_it_there(register: str, partitions: int) -> None:
    """False if a message that names no partition went to another one than the ledger looks in."""
    every = list(range(partitions))
    assert partition_of(register, partitions) == DefaultPartitioner()(register.encode(), every, every)


def test_partitions_of_known_registers_never_change() -> None:
    """False if a release moved a register, whose history would then be in two partitions."""
    registers = ("governing", "dft", "secretary-of-state-for-transport")
    assert [partition_of(name, 12) for name in registers] == [3, 4, 9]
