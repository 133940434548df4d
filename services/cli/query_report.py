"""What `daybook query` prints: the matches, what came after, and what of all this is proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger import base64
from ledger.witnessing import Policy
from services.cli import query_json
from services.cli.query_found import Found, entries, first_entries, instant, span
from services.cli.query_table import Listing
from services.cli.reporting import printable
from services.query_answer import Standing
from services.querying import sealed_by


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of it. `marking`: all matches in one list, those after the moment marked.

    `full`: with their whole records; `of_series`: with who submitted them, and when.
    """

    found: Found
    policy: Policy
    marking: bool
    full: bool
    of_series: bool

    def value(self, kept: Sequence[Path]) -> dict[str, Any]:
        """Return the JSON object. `kept` are the receipts that were kept."""
        return query_json.value(self.found, self.policy, kept, self._statements())

    def lines(self, kept: Sequence[Path]) -> Iterator[str]:
        """Yield the lines of text. `kept` are the receipts that were kept."""
        register, answer = self.found.register, self.found.answer
        listing = Listing(self.found, self.marking, self.full, self.of_series)
        yield f"{register.name} of {register.ledger_origin}, judged by the policy {self.policy.fingerprint}"
        yield f"Checkpoint of {entries(register.size)}, {self._sealing()}"
        yield f"Root {base64.encode(register.root)}"
        yield from self._moment()
        if self.marking:
            yield from listing.lines(sorted((*answer.matches, *answer.since), key=lambda each: each.index))
        else:
            yield from listing.lines(answer.matches)
            if answer.since:
                yield ""
                yield "Since then"
                yield from listing.lines(answer.since)
        yield ""
        for each in answer.unread:
            yield from listing.unread(each)
        if answer.unread_count > len(answer.unread):
            yield f"So many entries in all cannot be read as records: {answer.unread_count}"
        if kept:
            yield f"Receipts kept: {len(kept)}, in {kept[0].parent}"
        yield from self._statements()

    def _sealing(self) -> str:
        judged = self.found.register.judged
        if not judged.sealed:
            return "not witnessed: the ledger's own signature alone, and others may be shown another history"
        names = ", ".join(sorted({each.witness for each in judged.cosignatures}))
        by = instant(sealed_by(judged, self.policy))
        at = "" if by is None else f" by {by}"
        return f"sealed by {printable(names)}{at}"

    def _moment(self) -> Iterator[str]:
        found, cut = self.found, self.found.cut
        if found.at_size is not None:
            yield f"As it stood with its {first_entries(found.at_size)}"
        if found.when is None:
            return
        begins, ends = instant(found.when.earliest), instant(found.when.latest)
        within = begins if begins == ends else f"some moment from {begins} to {ends}"
        asked = "After a request received at" if self.marking else "As it stood at"
        if cut is None:
            yield (
                f"{asked} {within}, by `accepted_at`: the operator's word, and no proof. Without witnesses "
                "nothing proves a time"
            )
            return
        yield f"{asked} {within}, by the witnesses' times"
        if cut.known:
            there = _these(0, cut.known, "was", "were")
            yield f"  {there} there: witnessed by {instant(cut.known_by)}"
        if cut.later > cut.known:
            yield f"  {_these(cut.known, cut.later, 'may', 'may')} have come in before it or after it"
        if cut.later < found.register.size:
            absent = _these(cut.later, found.register.size, "was", "were")
            yield f"  {absent} not: none of them was there at {instant(cut.later_than)}"
        if not cut.comparable:
            yield "  Two quorums of your policy may share no witness: these times may be of different clocks"

    def _statements(self) -> Iterator[str]:
        """Yield what was found and what is proved, a sentence each."""
        found, answer = self.found, self.found.answer
        may = sum(each.standing is Standing.EITHER for each in answer.matches)
        yield f"{_matching(len(answer.matches) - may)}{', as it stood then' if found.as_at else ''}."
        if may:
            yield (
                f"{_matching(may)} that may have come in before it or after it: what the ledger shows of its "
                "witnesses does not tell."
            )
        if found.as_at and not found.quick:
            added = sum(each.version == 1 for each in answer.since)
            changed = len(answer.since) - added
            yield f"Since then: {added} added that match, {changed} that correct, withdraw or replace one."
        yield self._completeness()
        if found.spans:
            yield (
                "Not read: any other entry. A later one may correct or withdraw what is listed: "
                "--record RECORD_ID shows all versions of a record."
            )
        yield (
            "Not proved: that the ledger has signed nothing newer. Whoever remembers its checkpoints would "
            "notice (daybook monitor)."
        )
        if answer.matches or answer.since or answer.unread:
            yield (
                "Proved of each: its author's signature. Not judged here: whose key it is, and whether it was "
                "authorised then."
            )

    def _completeness(self) -> str:
        found, unread = self.found, self.found.answer.unread_count
        if found.quick:
            return (
                "Completeness is NOT proved: the ledger chose these, and may have left out others, later "
                "versions too. Leave --quick out to have it proved."
            )
        but = f", but for {unread} that cannot be read as {'a record' if unread == 1 else 'records'}"
        if found.spans:
            asked = ", ".join(span(begin, end) for begin, end in found.spans)
            one = len(found.spans) == 1 and found.spans[0][1] == found.spans[0][0] + 1
            return (
                f"Proved: this is all that matches at {'entry' if one else 'entries'} {asked} under checkpoint "
                f"{found.end}{but if unread else ''}."
            )
        if unread:
            return (
                f"Proved: these are all that match up to checkpoint {found.end}{but}. Every one of its entries "
                "was read."
            )
        return (
            f"Proved: these are all of them up to checkpoint {found.end}. Every one of its entries was "
            "read, and none can be left out."
        )


def _matching(count: int) -> str:
    return f"{count} entry matches" if count == 1 else f"{count} entries match"


def _these(begin: int, end: int, one: str, several: str) -> str:
    """Return the entries from `begin` to before `end` with the verb that follows them."""
    return f"Entry {begin} {one}" if end == begin + 1 else f"Entries {span(begin, end)} {several}"
