"""Registering one submission: the order of formats.md, section 8, from bytes to an accepted answer.

What registration and governance share. The checks that need only the bytes are made here; those that need
the ledger as it is at that moment are made in the submission's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from ledger.admission import Candidate, admit
from ledger.entries import Signature, Submission, open_submission
from ledger.errors import RejectedError
from ledger.ledger import LedgerView
from ledger.store import Run
from services.submissions import Accepted, Pending, Submissions

_INLINE_BYTES: Final = 32 * 1024
"""Record bytes up to which a submission is checked in the event loop: a thread would cost more."""


class Registrar:
    """Checks submissions against one ledger and hands them to its submissions."""

    def __init__(self, ledger: LedgerView, submissions: Submissions) -> None:
        self._ledger = ledger
        self._submissions = submissions

    async def register(
        self, body: bytes, records: Sequence[bytes], signatures: Sequence[Signature], submitter: str
    ) -> Accepted | Pending:
        """Register one submission, or answer again for one that is known.

        Raises RejectedError with nothing changed, for the first rule broken in the fixed order.
        """
        if sum(map(len, records)) <= _INLINE_BYTES:
            checked = self._check(body, records, signatures)
        else:
            checked = await asyncio.to_thread(self._check, body, records, signatures)
        if isinstance(checked, Candidate):
            return await self._submissions.accept(checked, submitter)
        submission, refused = checked
        run = await asyncio.to_thread(self._known, submission, refused)
        return await self._submissions.recall(submission.register, submission.submission_id, run)

    def _check(
        self, body: bytes, records: Sequence[bytes], signatures: Sequence[Signature]
    ) -> Candidate | tuple[Submission, RejectedError]:
        submission = open_submission(body, records, signatures, self._ledger.origin)
        try:
            return admit(submission)
        except RejectedError as error:
            # Without the frames that it came through: some hold it, and would keep what was sent.
            return submission, error.with_traceback(None)

    def _known(self, submission: Submission, refused: RejectedError) -> Run:
        """Return where a submission stands whose content is refused now.

        One that is known gets the earlier answer, and what is wrong with its register or key comes before what
        is wrong with its content. Raises RejectedError.
        """
        run = self._ledger.run_of(submission)
        if run is not None:
            return run
        self._ledger.judge_authority(submission)
        raise refused
