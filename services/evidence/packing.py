"""Writing a pack that was prepared, in an open and in a closed variant.

Both variants hold byte-identical receipts. What a disclosure opens goes into the closed one alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.notes import SignerKey
from services.evidence.bag import PACKED_BY, SIGNATURE, Bag, Target, writing
from services.evidence.custody import GATHERED, PACKED, custody_log, tool
from services.evidence.exhibits import Exhibit, note_path
from services.evidence.finding_links import by_exhibit
from services.evidence.governing import governing_file
from services.evidence.hashes import hash_schedule
from services.evidence.histories import consistency_file
from services.evidence.layout import (
    CLOSED,
    CONSISTENCY,
    CUSTODY,
    FINDINGS,
    GOVERNING_ENTRIES,
    HASHES,
    INDEX,
    OPEN,
    PACK_TYPE,
    PAGE,
    POLICY,
    REPORT,
    disclosure_path,
    json_file,
    key_path,
    opened_path,
)
from services.evidence.page import verifier_page
from services.evidence.preparing import Contents, Opened
from services.evidence.rendering import render, render_opened
from services.evidence.report import Story, report_text
from services.evidence.signature import sign_pack


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack that was written, or bytes that were: which variant, and the SHA-256 of its tag manifest."""

    identifier: str
    variant: str
    exhibits: int
    files: int
    tagmanifest_sha256: str


def write_pack(
    contents: Contents,
    out: Path,
    *,
    closed: bool = False,
    signer: SignerKey | None = None,
    done: Callable[[int], object] = int,
) -> Packed:
    """Write a pack to `out`: a ZIP file where its name ends in ``.zip``, else a folder, whole or not at all.

    `done` is told of exhibits as they are written. Raises ExistsError where something is there; OSError.
    """
    with writing(out, pack_name(contents, closed=closed)) as target:
        return write_files(contents, target, closed=closed, signer=signer, done=done)


def pack_name(contents: Contents, *, closed: bool) -> str:
    """Return the name of the folder inside a ZIP file: it follows from what is in it."""
    return f"evidence-{contents.identifier.rpartition(':')[2]}-{CLOSED if closed else OPEN}"


def write_files(
    contents: Contents,
    target: Target,
    *,
    closed: bool = False,
    signer: SignerKey | None = None,
    done: Callable[[int], object] = int,
) -> Packed:
    """Write the files of a pack into a target."""
    variant = CLOSED if closed else OPEN
    opened = contents.disclosures if closed else {}
    bag = Bag(target)
    for exhibit in contents.exhibits:
        _write_exhibit(bag, exhibit, opened.get(exhibit.label))
        done(1)
    for data, verified in contents.governing:
        bag.add(key_path(verified.index), data)
    if contents.gathered.register_of_keys is not None:
        bag.add(GOVERNING_ENTRIES, governing_file(contents.gathered.register_of_keys.entries))
    for path in sorted(contents.notes):
        bag.add(path, contents.notes[path])
    if contents.gathered.consistency:
        bag.add(CONSISTENCY, json_file(consistency_file(contents.gathered.consistency)))
    index = _index(contents, variant, opened)
    bag.add(INDEX, json_file(index))
    bag.add(POLICY, contents.policy.text())
    schedule = hash_schedule(index, bag.sha256)
    bag.add(HASHES, schedule)
    if contents.findings is not None:
        bag.add(FINDINGS, contents.findings)
    custody = _custody(contents, variant, opened, bag.sha256(HASHES))
    bag.add(CUSTODY, json_file(custody_log(custody)))
    bag.add(REPORT, report_text(_story(contents, variant, opened, signer, custody[-1].at)))
    bag.add(PAGE, verifier_page())
    info = {
        "Contact-Name": contents.keeper.who,
        "External-Identifier": contents.identifier,
        "Bagging-Date": custody[-1].at[:10],
        "External-Description": f"Evidence pack, {variant} variant, of register {contents.register}",
        "Bag-Software-Agent": tool(),
    }
    if signer is not None:
        info[PACKED_BY] = str(signer.verifier)
    tags = bag.finish(info)
    if signer is not None:
        target.write(SIGNATURE, sign_pack(contents.identifier, variant, tags, signer))
    digest = hashlib.sha256(tags["tagmanifest-sha256.txt"]).hexdigest()
    return Packed(contents.identifier, variant, len(contents.exhibits), bag.files, digest)


def _write_exhibit(bag: Bag, exhibit: Exhibit, opened: Opened | None) -> None:
    bag.add(exhibit.receipt_path, exhibit.receipt)
    bag.add(f"{exhibit.folder}record.json", exhibit.verified.record)
    bag.add(f"{exhibit.folder}record.txt", render(exhibit.verified.record))
    if opened is not None:
        bag.add(disclosure_path(exhibit.label), opened.data)
        bag.add(opened_path(exhibit.label), render_opened(opened.values))


def _index(contents: Contents, variant: str, opened: Mapping[str, Opened]) -> Mapping[str, Any]:
    whole, keys = contents.gathered.whole, contents.gathered.register_of_keys
    found = by_exhibit(contents.links)
    return {
        "type": PACK_TYPE,
        "identifier": contents.identifier,
        "variant": variant,
        "ledger_origin": contents.ledger_origin,
        "register": contents.register,
        "source": contents.gathered.source,
        "selection": contents.gathered.selection,
        "by_index": contents.gathered.by_index,
        "read_whole": None if whole is None else {"size": whole.size, "root": base64.encode(whole.root)},
        "tool": tool(),
        "exhibits": [
            {
                **each.listed(),
                "disclosed": each.label in opened,
                "findings": [link.label for link in found.get(each.label, ())],
            }
            for each in contents.exhibits
        ],
        "findings": [link.listed() for link in contents.links],
        "governing": None if keys is None else {"size": len(keys.entries), "checkpoint": note_path(keys.note)},
        "keys": [
            {"path": key_path(verified.index), "index": verified.index, "record_type": verified.record_type}
            for _, verified in contents.governing
        ],
    }


def _custody(contents: Contents, variant: str, opened: Mapping[str, Opened], schedule: str) -> list[Any]:
    keeper, gathered = contents.keeper, contents.gathered
    receipts = hashlib.sha256(b"".join(gathered.receipts)).hexdigest()
    what = f"{len(gathered.receipts)} receipts of {contents.register}"
    entries = [
        keeper.handling(GATHERED, f"{what}, from {gathered.source}; digest over all, in order", None, receipts),
        keeper.handling(
            "verified",
            f"{what}, under the policy with fingerprint {contents.policy.fingerprint}",
            receipts,
            receipts,
        ),
    ]
    if opened:
        digest = hashlib.sha256(b"".join(each.data for each in opened.values())).hexdigest()
        entries.append(
            keeper.handling(
                "disclosed", f"{len(opened)} disclosure files, in order of exhibits", digest, digest
            )
        )
    packed = f"{variant} variant of {contents.identifier}; digest of its hash schedule, {HASHES}"
    return [*entries, keeper.handling(PACKED, packed, None, schedule)]


def _story(
    contents: Contents, variant: str, opened: Mapping[str, Opened], signer: SignerKey | None, made_at: str
) -> Story:
    return Story(
        identifier=contents.identifier,
        variant=variant,
        ledger_origin=contents.ledger_origin,
        register=contents.register,
        policy=contents.policy,
        gathered=contents.gathered,
        exhibits=contents.exhibits,
        governing=tuple(verified for _, verified in contents.governing),
        opened={name: tuple(each.values) for name, each in opened.items()},
        one_history=contents.one_history,
        governing_register=contents.register_of_keys,
        authorities=contents.authorities,
        links=contents.links,
        has_findings=contents.findings is not None,
        signed_by=None if signer is None else str(signer.verifier),
        keeper=contents.keeper,
        made_at=made_at,
    )


ZIP_SUFFIX: Final = ".zip"


def closed_name(out: Path) -> Path:
    """Return where the closed variant goes beside the open one: its name with ``-closed``."""
    if out.suffix == ZIP_SUFFIX:
        return out.with_name(f"{out.stem}-closed{ZIP_SUFFIX}")
    return out.with_name(f"{out.name}-closed")
