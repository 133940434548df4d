"""Whether the key of an exhibit might sign it, by the governing register that lies in the pack.

An entry was judged at its `governing_size`, which is fixed for ever: a key that was unknown or revoked there is
an integrity failure. How an entry stands to a revocation that came later only witnessed times tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import RejectedError, VerificationError
from ledger.governing import GOVERNING, KeyState, RegisterState, judge_authority
from ledger.receipts import VerifiedReceipt
from ledger.timeline import GRACE, Bounds, RevocationVerdict, judge_revocation
from ledger.values import partial
from services.evidence.governing import Governing
from services.evidence.moments import moment

NOT_HERE: Final = (
    "not proved: that the key was not revoked. The governing register is not in this pack as a whole"
)


@dataclass(frozen=True, slots=True)
class Authority:
    """What is shown of the key that signed an exhibit: a sentence, and what a reader should know besides.

    `is_proved` tells whether the key was authorised and not revoked when the entry was judged; `verdict` how
    the entry stands to a revocation that came later, None where there is none up to `size`, the number of
    governing entries that were folded (None where the pack has them not).
    """

    text: str
    is_proved: bool
    size: int | None = None
    verdict: RevocationVerdict | None = None
    remarks: tuple[str, ...] = ()


def authority_of(verified: VerifiedReceipt, governing: Governing | None) -> Authority | None:
    """Return what the governing register says of who signed; None for an entry that the ledger wrote.

    Raises VerificationError where the key might not sign it: then it cannot be an entry of an honest ledger.
    """
    if not verified.signers:
        return None
    if governing is None:
        return Authority(NOT_HERE, is_proved=False)
    if verified.register == GOVERNING:
        return _governed(verified, governing)
    judged_at = verified.entry.acceptance.governing_size
    if judged_at > governing.size:
        return Authority(
            f"not proved: that the key was not revoked. The entry was judged at governing size {judged_at}, "
            f"and only {governing.size} governing entries are here",
            is_proved=False,
            size=governing.size,
        )
    try:
        judge_authority(governing.fold, judged_at, verified.register, verified.signers[0])
    except RejectedError as error:
        raise VerificationError(f"judged at governing size {judged_at}: {error}") from error
    key = governing.fold.keys[verified.signers[0]]
    return _judged(verified, governing, key, governing.fold.registers[verified.register])


def _governed(verified: VerifiedReceipt, governing: Governing) -> Authority:
    is_proved = verified.index < governing.size
    text = (
        f"signed by those who governed then: all {governing.size} governing entries here agree"
        if is_proved
        else f"not proved: that the signers governed. Only {governing.size} governing entries are here"
    )
    return Authority(text, is_proved, governing.size)


def _judged(
    verified: VerifiedReceipt, governing: Governing, key: KeyState, register: RegisterState
) -> Authority:
    known = f"authorised by governing entry {key.authorised}"
    remarks = tuple(_remarks(verified, governing, key, register))
    if key.revoked is None:
        until = governing.until
        by = "" if until is None else f"; at {moment(until)} witnesses knew of no further entry"
        text = f"{known}, and not revoked up to governing size {governing.size}{by}"
        return Authority(text, True, governing.size, None, remarks)
    revocation = governing.times.bounds(key.revoked)
    verdict = judge_revocation(
        verified.entry.acceptance.governing_size, key.revoked, verified.bounds, revocation, GRACE
    )
    if not verified.bounds.comparable:  # the times of two quorums that share no witness say nothing together
        verdict = RevocationVerdict.CONCURRENT
    windows = f"the entry came in {_window(verified.bounds)}, the revocation {_window(revocation)}"
    said = {
        RevocationVerdict.PROVABLY_BEFORE: "the entry is provably from before that",
        RevocationVerdict.STALE_VIEW: f"the entry came in more than {GRACE} s AFTER that, on a stale view",
    }.get(verdict, "which of the two came first is not proved")
    text = f"{known}, and REVOKED by governing entry {key.revoked}: {said} ({windows})"
    return Authority(text, True, governing.size, verdict, remarks)


def _remarks(
    verified: VerifiedReceipt, governing: Governing, key: KeyState, register: RegisterState
) -> Iterator[str]:
    if key.authorised in governing.unendorsed:
        yield (
            f"The key was authorised without the signature of any current key of {key.department}: "
            "those who govern the ledger gave it out by themselves"
        )
    revoked = governing.revocations.get(key.key)
    if revoked is not None and revoked.suspected_from is not None:
        begin, end = partial(revoked.suspected_from).earliest, verified.bounds.not_after
        if end is None or end > begin:
            yield (
                f"The key is suspected to have been compromised from {revoked.suspected_from} on, and this "
                "entry is not provably from before that"
            )
    judged_at = verified.entry.acceptance.governing_size
    unknown, end = governing.times.bounds(judged_at - 1).not_before, verified.bounds.not_after
    if verified.bounds.comparable and unknown is not None and end is not None and unknown > end:
        yield (
            f"It states that it was judged at governing size {judged_at}, which witnesses did not know yet at "
            f"{moment(unknown)}, after it had come in"
        )
    if register.final_size is not None and verified.index >= register.final_size:
        yield f"The register was closed at {register.final_size} entries: this one lies beyond its end"


def _window(bounds: Bounds) -> str:
    begin = "at an unknown time" if bounds.not_before is None else f"not before {moment(bounds.not_before)}"
    return begin if bounds.not_after is None else f"{begin} and by {moment(bounds.not_after)}"
