"""Which partition of a topic a register has. It is part of the format of a topic: it never changes."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of(register: str, partitions: int) -> int:
    """Return the partition of a register, 0 <= partition < partitions.

    It is (murmur2(register) & 0x7fffffff) % partitions over the UTF-8 bytes, with the murmur2 of Kafka's Java
    client (org.apache.kafka.common.utils.Utils.murmur2): where Kafka clients send a message of this key.
    """
    return (int(murmur2(register.encode())) & 0x7FFFFFFF) % partitions
