"""The plain-English report of a pack: what is proved and by when, what is not, and how to check it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

from ledger import base64
from ledger.receipts import VerifiedReceipt
from ledger.witnessing import Policy
from services.evidence.authority import Authority
from services.evidence.custody import Keeper, tool
from services.evidence.exhibits import Exhibit
from services.evidence.finding_links import FindingLink, by_exhibit
from services.evidence.gathered import Gathered
from services.evidence.governing import Governing
from services.evidence.layout import CLOSED, FINDINGS
from services.evidence.moments import INCOMPARABLE, moment
from services.evidence.rendering import one_line

_WIDTH: Final = 96
_LONGEST: Final = 500
"""Characters that are told of what a finding says."""

LIMITS: Final = (
    "That what a record says is true, and that everything that was decided was registered, no pack can show.",
    "That no later version corrects or withdraws a record is shown only up to the entries that are here.",
    "That governance agreed to a signing key, and that it was not revoked, only the whole governing register "
    "shows, where it is here, and only up to its last entry here.",
    "Who packed, when, why, from where and by which selection, what the report and the custody log tell "
    "besides, and findings: these are the words of whoever packed.",
    "The times are those of the witnesses' clocks: when an entry came into the witnessed history, not when it "
    "was received, and not when something was decided.",
    "Registration rules are not judged by verify.html: daybook verify reports records that break one.",
    "A manifest protects against damage alone: whoever changes a file can write it anew. The receipts prove "
    "the records; the signature of the pack, where there is one, says who packed.",
)
"""What no pack proves, whatever is in it."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that the report tells. `opened` has the opened paths by exhibit label, `authorities` what is shown of
    the keys, `links` which findings are about which exhibits.
    """

    identifier: str
    variant: str
    ledger_origin: str
    register: str
    policy: Policy
    gathered: Gathered
    exhibits: tuple[Exhibit, ...]
    governing: tuple[VerifiedReceipt, ...]
    opened: Mapping[str, tuple[str, ...]]
    one_history: bool
    governing_register: Governing | None
    authorities: Mapping[str, Authority]
    links: tuple[FindingLink, ...]
    has_findings: bool
    signed_by: str | None
    keeper: Keeper
    made_at: str


def report_text(story: Story) -> bytes:
    """Return the report, as text of lines."""
    return "".join(f"{line}\n" for line in _report(story)).encode()


def _report(story: Story) -> Iterator[str]:
    yield f"EVIDENCE PACK, {story.variant.upper()} VARIANT"
    yield ""
    yield f"Pack        {story.identifier}"
    yield f"Register    {story.register}"
    yield f"Ledger      {story.ledger_origin}"
    yield f"Made        {story.made_at}, by {one_line(story.keeper.who)}, {one_line(story.keeper.role)}"
    yield f"Reason      {one_line(story.keeper.reason)}"
    yield f"From        {one_line(story.gathered.source)}"
    yield f"Selection   {story.gathered.selection}"
    yield f"Exhibits    {len(story.exhibits)}"
    yield from _section("What is proved")
    yield from _paragraph(_proved(story))
    yield from _section("Exhibits")
    found = by_exhibit(story.links)
    for exhibit in story.exhibits:
        yield from _exhibit(exhibit, story, found.get(exhibit.label, ()))
    if story.has_findings:
        yield from _section("Findings: statements of their author, and no proofs")
        yield from _findings(story)
    yield from _section("The keys that signed")
    yield from _keys(story)
    yield from _section("What is not proved")
    yield from _points(_not_proved(story))
    yield from _section("How to check it again, without the ledger and without whoever packed")
    yield from _points(_recheck(story))
    yield from _section("Software")
    yield from _paragraph(
        f"Made by {tool()}. Its formats are public, and its test vectors are too; other people's programs "
        "verify the checkpoints, the proofs and the bag. Judged under the witness policy in data/policy, with "
        f"fingerprint {story.policy.fingerprint}. Known limits are those above."
    )


def _section(title: str) -> Iterator[str]:
    yield ""
    yield title
    yield "-" * len(title)


def _paragraph(text: str) -> Iterator[str]:
    yield from wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _points(sentences: Iterator[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from wrap(
            sentence,
            _WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _proved(story: Story) -> str:
    sealed = all(each.verified.sealed for each in story.exhibits)
    who = "independent witnesses have cosigned it" if sealed else "no witness has cosigned it"
    history = (
        " All checkpoints are proved to be of one history: each is a beginning of the largest one."
        if story.one_history
        else ""
    )
    return (
        f"Each exhibit's bytes stand at the stated place of the register {story.register}, under a checkpoint "
        f"that the ledger {story.ledger_origin} has signed; {who}. Each was signed by the key that is named, "
        "over just these bytes. Nobody can change, re-order or remove them without contradicting these "
        f"signatures.{history}"
    )


def _exhibit(exhibit: Exhibit, story: Story, links: Sequence[FindingLink]) -> Iterator[str]:
    verified, opened = exhibit.verified, story.opened.get(exhibit.label, ())
    what = f"record {verified.record_id}, version {verified.version}, {one_line(verified.record_type or '?')}"
    yield f"{exhibit.label}  {what}" if verified.record_id else f"{exhibit.label}  a record without a name"
    yield f"    SHA-256     {exhibit.digest}"
    yield f"    Place       entry {verified.index}, counted from 0, under a checkpoint of {verified.size}"
    authority = story.authorities.get(exhibit.label)
    yield f"    Signed      {_signed(verified, authority)}"
    if authority is not None:
        yield f"    Key         {authority.text}"
        for remark in authority.remarks:
            yield f"    Remark      {remark}"
    yield f"    By when     {_when(verified)}"
    if verified.anchored is not None:
        yield f"    Anchored    at entry {verified.anchored.by.index} of the governing register"
    yield f"    Claimed     accepted {verified.accepted_at} from {verified.submitter}: the ledger's word alone"
    for finding in verified.findings:
        yield f"    Finding     {finding.kind.value}: {one_line(finding.description)}"
    for link in links:
        yield f"    Stated      finding {link.label}{_coded(link)}"
    if opened:
        yield f"    Disclosed   {', '.join(opened)}: see opened.txt"
    yield f"    Files       {exhibit.folder}"


def _signed(verified: VerifiedReceipt, authority: Authority | None) -> str:
    if not verified.signers:
        return "by nobody: the ledger wrote it itself"
    keys = ", ".join(base64.encode(key) for key in verified.signers)
    if verified.department is None:
        return f"by {keys}"
    if verified.authorised is not None:
        return (
            f"by {verified.department}, key {keys}, authorised at governing entry {verified.authorised.index}"
        )
    if authority is not None and authority.is_proved:
        return f"by {verified.department}, key {keys}"
    return f"by {keys}, claimed to be a key of {verified.department}"


def _when(verified: VerifiedReceipt) -> str:
    bounds = verified.bounds
    if not verified.sealed or bounds.not_after is None:
        return "not witnessed: no time is proved"
    said = f"in the witnessed history by {moment(bounds.not_after)}"
    if bounds.not_before is None:
        return said
    both = f"{said}, and not before {moment(bounds.not_before)}"
    return both if bounds.comparable else f"{both}; {INCOMPARABLE}"


def _coded(link: FindingLink) -> str:
    said = ": ".join(cut(one_line(text)) for text in (link.code, link.says) if text)
    return f", {said}" if said else ""


def _findings(story: Story) -> Iterator[str]:
    if not story.links:
        yield f"None of the findings in {FINDINGS} is about an exhibit of this pack."
    for link in story.links:
        yield f"{link.label}{_coded(link)}"
        labels = ", ".join(label for label, _ in link.exhibits)
        yield from wrap(labels, _WIDTH, initial_indent="    Exhibits    ", subsequent_indent="                ")
        yield f"    In          {FINDINGS}, at {link.at}"


def cut(text: str) -> str:
    """Return a text, cut where it is too long for a line of a report."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} (cut)"


def _keys(story: Story) -> Iterator[str]:
    if not story.governing:
        yield "No governing entry is in this pack: whose the keys are is claimed."
    for verified in story.governing:
        yield f"entry {verified.index} of the governing register: {one_line(verified.record_type or '?')}"
        yield f"    {_when(verified)}"
    if story.governing_register is not None:
        yield from _paragraph(whole_register(story.governing_register))


def whole_register(governing: Governing) -> str:
    """Return what is shown by the whole governing register of a pack, in words."""
    until = governing.until
    by = "" if until is None else f" At {moment(until)} a quorum of witnesses knew of no further entry."
    return (
        f"The governing register is here up to size {governing.size}. Its entries are those of a checkpoint, "
        f"each is signed by those who governed before it, and so no revocation among them is left out.{by}"
    )


def _not_proved(story: Story) -> Iterator[str]:
    whole = story.gathered.whole
    if story.gathered.by_index:
        yield "What the entries say that were not asked for: these were chosen by their index."
    elif whole is None:
        yield (
            "That no other entry of the register matches the selection is not shown: not every entry was read, "
            "or the pack does not say so."
        )
    else:
        read = "its one entry was" if whole.size == 1 else f"all {whole.size} entries were"
        yield (
            f"That no other entry matches the selection: {read} read when the pack was "
            f"made and gave the root {base64.encode(whole.root)}. Whoever holds the register can repeat that; "
            "the pack alone does not prove it. Records that cannot be read for sure are here where they may "
            "match."
        )
    if not story.one_history:
        yield (
            "The exhibits stand under several checkpoints. That these are of one history is what the witnesses "
            "vouch for; here it is not proved."
        )
    if story.governing_register is None:
        yield (
            "That no key was revoked: the governing register is not here as a whole, and a revocation may have "
            "been left out."
        )
    else:
        yield (
            f"That no key was revoked after entry {story.governing_register.size - 1} of the governing "
            "register, the last one here."
        )
    if not all(each.verified.sealed for each in story.exhibits):
        yield "Not witnessed: nobody but the ledger vouches for this history, nor for any time."
    yield from LIMITS


def _recheck(story: Story) -> Iterator[str]:
    yield (
        "Get your own witness policy file, and compare its fingerprint over another channel. Never take the "
        "one in this pack for it."
    )
    yield "In a browser, offline: open verify.html, choose this pack, then choose your policy file."
    yield "On the command line, offline: daybook verify PACK --policy YOUR_POLICY"
    yield "The bag alone, by any BagIt tool: bagit.py --validate FOLDER"
    yield "One exhibit alone: daybook verify RECEIPT --policy YOUR_POLICY"
    if story.signed_by is not None:
        yield f"signature.note is over both tag manifests, by the packer's key {story.signed_by}."
    else:
        yield "This pack is not signed: its receipts hold, but who packed it is not shown."
    if story.has_findings:
        yield f"{FINDINGS} was given by whoever packed. It is their statement, not a proof."
    if story.variant == CLOSED:
        yield "This variant holds disclosed values. Its receipts are byte for byte those of the open variant."
