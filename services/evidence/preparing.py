"""Verifying everything that a pack is to hold: what does not hold is not packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.errors import MalformedError, VerificationError
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.withholding import open_disclosure, parse_disclosure
from ledger.witnessing import Policy, check_clocks
from services.evidence.authority import Authority, authority_of
from services.evidence.custody import Keeper
from services.evidence.exhibits import MAX_EXHIBITS, Exhibit, check_prefix, identifier, label
from services.evidence.finding_links import FindingLink, link_findings
from services.evidence.gathered import Gathered
from services.evidence.governing import Governing, fold_whole
from services.evidence.layout import parse_json_file
from services.evidence.remembering import RememberingPolicy
from services.evidence.roots import Roots

RecordKey = tuple[str | None, int | None]
"""A record_id and a version."""


class NothingToPackError(Exception):
    """No entry was chosen, or too many; the message says what to do."""


@dataclass(frozen=True, slots=True)
class DisclosureFile:
    """A disclosure file that was given, and its `name`. It must be of an exhibit, unless it `may_be_of_others`:
    then it is passed over.
    """

    name: str
    data: bytes
    may_be_of_others: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A disclosure file that opens a record of the pack: its bytes, and the values by path."""

    data: bytes
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a pack is made of, everything verified under `policy`.

    `findings` is the bytes of a JSON file, None for none. `disclosures` are by exhibit label, `notes` all
    checkpoints by where they go; `one_history` tells whether these are proved to be of one. `register_of_keys`
    is the governing register, folded, where it is in the pack; `authorities` what is shown of the key of each
    exhibit, by label; `links` which findings are about which exhibits; `passed_over` how many disclosures, of
    those that might be, are of no exhibit.
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
    passed_over: int = 0

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
    disclosures: Iterable[DisclosureFile] = (),
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
    whole = gathered.register_of_keys
    register_of_keys = None if whole is None else fold_whole(whole, first.ledger_origin, policy, roots, now)
    for proof in gathered.consistency:
        roots.prove(first.ledger_origin, proof)
    authorities = {each.label: authority_of(each.verified, register_of_keys) for each in exhibits}
    links = () if findings is None else link_findings(parse_json_file(findings), first.ledger_origin, exhibits)
    opened, passed_over = _opened(exhibits, disclosures)
    return Contents(
        policy,
        gathered,
        exhibits,
        governing,
        identifier(first.ledger_origin, first.register, gathered.receipts),
        keeper,
        findings,
        opened,
        roots.notes,
        roots.one_history,
        register_of_keys,
        {label: authority for label, authority in authorities.items() if authority is not None},
        links,
        passed_over,
    )


def _verified(data: bytes, policy: Policy, now: int) -> VerifiedReceipt:
    verified = verify_receipt(data, policy)
    check_clocks(verified.every_cosignature, now)
    return verified


def _opened(exhibits: Sequence[Exhibit], files: Iterable[DisclosureFile]) -> tuple[Mapping[str, Opened], int]:
    """Return what disclosure files open, by exhibit label, and how many are of no exhibit."""
    by_record: dict[RecordKey, Exhibit] = {
        (each.verified.record_id, each.verified.version): each for each in exhibits
    }
    opened: dict[str, Opened] = {}
    passed_over = 0
    for file in files:
        try:
            disclosure = parse_disclosure(file.data)
        except MalformedError as error:
            raise MalformedError(f"{file.name} is not a disclosure file: {error}") from error
        exhibit = by_record.get((disclosure.record_id, disclosure.version))
        if exhibit is None or disclosure.register != exhibit.verified.register:
            if file.may_be_of_others:
                passed_over += 1
                continue
            raise MalformedError(
                f"{file.name}: the disclosure of {disclosure.record_id}, version {disclosure.version}, is of "
                "no exhibit"
            )
        if exhibit.label in opened:
            raise MalformedError(
                f"{file.name}: a second disclosure of exhibit {exhibit.label}: put both into one"
            )
        values = open_disclosure(disclosure, exhibit.verified.record, exhibit.verified.ledger_origin)
        opened[exhibit.label] = Opened(file.data, values)
    if passed_over and not opened:
        raise MalformedError(
            f"of {passed_over} disclosures none is of an exhibit: there is nothing to disclose"
        )
    return opened, passed_over
