"""A witness whose disk is really full."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from services.witness.directory import WitnessDirectory
from tests.support.growing_log import GrowingLog
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.witness_process import MadeWitness, ask, latest, make_witness, witnessing

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(600)]

LEDGER = GrowingLog("ledger.example/governing")


def made_on(disk: SmallDisk) -> MadeWitness:
    """Return a witness on a disk, made elsewhere: commands do not run within the disk's namespace."""
    made = make_witness(disk.seen / "w", "witness.example/w")
    made.add_ledger(LEDGER.vkey)
    return MadeWitness(disk.path / "w", made.vkey)


def test_on_a_full_disk_nothing_is_cosigned_and_with_room_it_goes_on(tmp_path: Path) -> None:
    """If false, a full disk would make a witness forget, or say what it has not kept, or stop for good."""
    log = GrowingLog("ledger.example/department/office", LEDGER.signer.secret)
    with small_disk(tmp_path / "disk", 2) as disk:
        made = made_on(disk)
        with witnessing(made.directory, log=tmp_path / "log", within=disk.within) as running:
            assert ask(running.http, log.request(0, 5)).status == 200
            for _ in range(2):
                disk.fill()
                held = latest(running.http, log.origin)
                # There may be room left in files that exist; each new log takes some of it.
                answers = (
                    ask(running.http, GrowingLog(f"ledger.example/a/{n}", LEDGER.signer.secret).request(0, 1))
                    for n in count()
                )
                full = next(answer for answer in answers if answer.status != 200)
                assert full.status == 500
                assert b"cosigned nothing" in full.body
                size = int(held.body.split(b"\n")[1])
                refused = log.request(size, size + 4)
                while (answer := ask(running.http, refused)).status == 200:
                    refused = log.request(refused.old + 4, refused.old + 8)
                assert answer.status == 500
                held = latest(running.http, log.origin)
                assert int(held.body.split(b"\n")[1]) == refused.old
                # Evidence has no room either: the answer stays a refusal.
                assert ask(running.http, log.forked(2).request(refused.old, refused.old)).status == 422
                disk.free()
                assert ask(running.http, refused).status == 200
            assert running.terminate() == 0
        with witnessing(made.directory, log=tmp_path / "log", within=disk.within) as running:
            assert int(latest(running.http, log.origin).body.split(b"\n")[1]) == refused.old + 4
        assert WitnessDirectory(disk.seen / "w").evidence.is_dir()
