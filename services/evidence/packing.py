"""Making a pack: verify what was gathered, then write it, in an open and in a closed variant.

Both variants hold byte-identical receipts. What a disclosure opens goes into the closed one alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.errors import MalformedError, VerificationError
from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.withholding import open_disclosure, parse_disclosure
from ledger.witnessing import Policy, check_clocks
from services.evidence.authority import Authority, authority_of
from services.evidence.bag import SIGNATURE, Bag, Target, writing
from services.evidence.checking import PACKED_BY
from services.evidence.custody import GATHERED, PACKED, Keeper, custody_log, tool
from services.evidence.exhibits import MAX_EXHIBITS, Exhibit, check_prefix, identifier, label, note_path
from services.evidence.finding_links import FindingLink, by_exhibit, link_findings
from services.evidence.gathered import Gathered
from services.evidence.governing import Governing, governing_file, replay
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
    parse_json_file,
)
from services.evidence.page import verifier_page
from services.evidence.remembering import RememberingPolicy
from services.evidence.rendering import render, render_opened
from services.evidence.report import Story, report_text
from services.evidence.roots import Roots
from services.evidence.signature import sign_pack

RecordKey = tuple[str | None, int | None]
"""A record_id and a version."""


class NothingToPackError(Exception):
    """No entry was chosen, or too many; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A disclosure file that opens a record of the pack: its bytes, and the values by path."""

    data: bytes
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a pack is made of, everything verified under `policy`.

    `findings` is the bytes of a JSON file, None for none. `disclosures` are by exhibit label, `notes` all
    checkpoints by where they go; `one_history` tells whether these are proved to be of one. `register_of_keys` is
    the governing register, folded, where it is in the pack; `authorities` what is shown of the key of each
    exhibit, by label; `links` which findings are about which exhibits.
    """

    policy: Policy
    gathered: Gathered
    exhibits: tuple[Exhibit, ...]
    governing: tuple[tuple[bytes, VerifiedReceipt], ...]
    identifier: str
    keeper: Keeper
    findings: bytes | None
    disclosures: Mapping[str, Opened]
    notes: Mapping[str, bytes]
    one_history: bool
    register_of_keys: Governing | None
    authorities: Mapping[str, Authority]
    links: tuple[FindingLink, ...]

    @property
    def ledger_origin(self) -> str:
        """The ledger that all receipts are of."""
        return self.exhibits[0].verified.ledger_origin

    @property
    def register(self) -> str:
        """The register that all exhibits are of."""
        return self.exhibits[0].verified.register


def prepare(
    gathered: Gathered,
    policy: Policy,
    keeper: Keeper,
    *,
    now: int,
    prefix: str = "DB",
    findings: bytes | None = None,
    disclosures: Iterable[bytes] = (),
) -> Contents:
    """Verify everything that a pack is to hold. `now` is POSIX seconds, by which no cosignature is too early.

    Raises VerificationError or MalformedError for a receipt that does not hold, a disclosure that opens nothing
    of it, an entry whose key might not sign it, or findings that are no JSON object or of something else;
    SplitViewError for receipts that cannot all be true;
    NothingToPackError.
    """
    check_prefix(prefix)
    policy = RememberingPolicy.of(policy)
    if not gathered.receipts:
        raise NothingToPackError(f"No entry matches: {gathered.selection}")
    if len(gathered.receipts) > MAX_EXHIBITS:
        raise NothingToPackError(
            f"{len(gathered.receipts)} entries match, and a pack has at most {MAX_EXHIBITS}: choose fewer"
        )
    exhibits = tuple(
        Exhibit(label(prefix, number), data, _verified(data, policy, now))
        for number, data in enumerate(gathered.receipts, 1)
    )
    for each in exhibits:
        if (each.verified.ledger_origin, each.verified.register) != (
            exhibits[0].verified.ledger_origin,
            exhibits[0].verified.register,
        ):
            raise VerificationError(f"the receipts are of two registers: {each.verified.register}, and another")
    governing = tuple((data, _verified(data, policy, now)) for data in gathered.governing)
    roots = Roots(policy)
    for data in (*gathered.receipts, *gathered.governing):
        roots.add(data)
    first = exhibits[0].verified
    register_of_keys = _folded(gathered, policy, roots, first.ledger_origin, now)
    for proof in gathered.consistency:
        roots.prove(first.ledger_origin, proof)
    authorities = {each.label: authority_of(each.verified, register_of_keys) for each in exhibits}
    links = () if findings is None else link_findings(parse_json_file(findings), first.ledger_origin, exhibits)
    return Contents(
        policy,
        gathered,
        exhibits,
        governing,
        identifier(first.ledger_origin, first.register, gathered.receipts),
        keeper,
        findings,
        _opened(exhibits, disclosures),
        roots.notes,
        roots.one_history,
        register_of_keys,
        {label: authority for label, authority in authorities.items() if authority is not None},
        links,
    )


def _folded(
    gathered: Gathered, policy: Policy, roots: Roots, ledger_origin: str, now: int
) -> Governing | None:
    whole = gathered.register_of_keys
    if whole is None:
        return None
    origin = f"{ledger_origin}/{GOVERNING}"
    roots.add_whole(origin, whole.note, whole.entries)
    cosignatures = roots.cosignatures(origin)
    check_clocks(cosignatures, now)
    return replay(whole.entries, ledger_origin, policy, cosignatures)


def _verified(data: bytes, policy: Policy, now: int) -> VerifiedReceipt:
    verified = verify_receipt(data, policy)
    check_clocks(verified.every_cosignature, now)
    return verified


def _opened(exhibits: Sequence[Exhibit], disclosures: Iterable[bytes]) -> Mapping[str, Opened]:
    by_record: dict[RecordKey, Exhibit] = {
        (each.verified.record_id, each.verified.version): each for each in exhibits
    }
    opened: dict[str, Opened] = {}
    for data in disclosures:
        disclosure = parse_disclosure(data)
        exhibit = by_record.get((disclosure.record_id, disclosure.version))
        if exhibit is None or disclosure.register != exhibit.verified.register:
            raise MalformedError(
                f"the disclosure of {disclosure.record_id}, version {disclosure.version}, is of no exhibit"
            )
        if exhibit.label in opened:
            raise MalformedError(f"two disclosures are of exhibit {exhibit.label}: put them into one")
        values = open_disclosure(disclosure, exhibit.verified.record, exhibit.verified.ledger_origin)
        opened[exhibit.label] = Opened(data, values)
    return opened


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
        "governing": None
        if keys is None
        else {"size": len(keys.entries), "checkpoint": note_path(keys.note)},
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
        keeper.handling(
            GATHERED, f"{what}, from {gathered.source}; digest over all, in order", None, receipts
        ),
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
