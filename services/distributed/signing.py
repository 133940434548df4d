"""The signer of the distributed mode: what it signs and what it refuses, and the client of those who ask it.

It trusts nobody who asks. It keeps its own marks, wants a proof that each checkpoint extends its mark, and
after its start signs nothing larger for an origin until a quorum of witnesses has confirmed the mark.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

import grpc
import grpc.aio
from daybook.signer.v1 import signer_service_pb2, signer_service_pb2_grpc

from ledger.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, ProofError, SplitViewError
from ledger.hashing import Hash
from ledger.notes import SignerKey, split_note
from ledger.proofs import verify_consistency
from ledger.values import is_register
from services.client.channels import Tls, open_channel
from services.distributed.settings import DistributedSettings
from services.signing import HighWaterMarks

FIRST: Final = "first-bin"
SECOND: Final = "second-bin"
"""In the trailing metadata of a call that has met two histories: the notes of both."""

_PATIENCE: Final = 5.0
"""Seconds that a call of the signer may take: what is not answered by then is asked again."""

_AWAY: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class SignerAwayError(ConnectionError):
    """The signer did not answer, or cannot keep its marks now. What it has done of the call is unknown."""


class Verdict(Enum):
    """What the signer decides of a checkpoint."""

    SIGNED = signer_service_pb2.VERDICT_SIGNED
    UNCONFIRMED = signer_service_pb2.VERDICT_UNCONFIRMED
    BEHIND = signer_service_pb2.VERDICT_BEHIND
    CONTRADICTS = signer_service_pb2.VERDICT_CONTRADICTS
    MOVED = signer_service_pb2.VERDICT_MOVED


@dataclass(frozen=True, slots=True)
class ToSign:
    """A committed head, and the consistency proof from the mark of its origin."""

    checkpoint: Checkpoint
    consistency: Sequence[Hash] = ()


@dataclass(frozen=True, slots=True)
class Signing:
    """What came of one checkpoint: the note where it was signed, and the mark as it is now."""

    verdict: Verdict
    mark: Checkpoint | None
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class Mark:
    """The largest checkpoint signed for an origin; `confirmed` tells whether larger ones are signed."""

    checkpoint: Checkpoint
    confirmed: bool


class GuardedSigner:
    """Signs what extends its marks, for the registers of one ledger. For one thread at a time.

    `instance` is drawn anew for each: what was confirmed to the one before is to be confirmed again.
    """

    def __init__(self, secret: SecretKey, marks: HighWaterMarks, origin: str) -> None:
        self.instance: Final = uuid.uuid4().hex
        self._secret = secret
        self._marks = marks
        self._prefix = f"{origin}/"
        self._confirmed: set[str] = set()
        self._keys: dict[str, SignerKey] = {}

    def check_origin(self, origin: str) -> None:
        """Raise MalformedError for an origin that no register of this ledger has."""
        if not origin.startswith(self._prefix) or not is_register(origin.removeprefix(self._prefix)):
            raise MalformedError(
                f"{origin!r} is no register of this ledger, whose origins begin {self._prefix!r}"
            )

    def marks(self, origins: Sequence[str]) -> list[Mark]:
        """Return the mark of each origin that has one; of all where none is named."""
        found = [self._marks.latest(origin) for origin in origins or self._marks.origins()]
        return [Mark(each, each.origin in self._confirmed) for each in found if each is not None]

    def sign(self, wanted: Sequence[ToSign]) -> list[Signing]:
        """Decide on each checkpoint; sign those that may be, once their marks are written.

        At most one for each origin, all of them of this ledger. Raises StorageFullError where there is no room
        for the marks, with nothing signed; after any other StoreError nobody knows what the marks are.
        """
        verdicts = [self._judge(each) for each in wanted]
        granted = [
            each.checkpoint for each, verdict in zip(wanted, verdicts, strict=True) if verdict is Verdict.SIGNED
        ]
        self._marks.reserve(checkpoint.origin for checkpoint in granted)
        self._marks.raise_to(granted)
        # A crash above signs nothing, and the same head is asked for again. A crash below loses a signature:
        # the same text is signed again, with the same bytes.
        return [
            Signing(
                verdict,
                self._marks.latest(each.checkpoint.origin),
                sign_checkpoint(each.checkpoint, self._key(each.checkpoint.origin))
                if verdict is Verdict.SIGNED
                else b"",
            )
            for each, verdict in zip(wanted, verdicts, strict=True)
        ]

    def _judge(self, wanted: ToSign) -> Verdict:
        checkpoint = wanted.checkpoint
        mark = self._marks.latest(checkpoint.origin)
        if mark is None:
            # A file of marks that was lost must not make the signer sign whatever comes: the size 0 that it
            # does sign goes to the witnesses, and they do not confirm it where they know more.
            return Verdict.SIGNED if checkpoint.size == 0 else Verdict.UNCONFIRMED
        if checkpoint.size < mark.size:
            return Verdict.BEHIND
        if checkpoint.size == mark.size:
            return Verdict.SIGNED if checkpoint == mark else Verdict.CONTRADICTS
        if checkpoint.origin not in self._confirmed:
            return Verdict.UNCONFIRMED
        if mark.size == 0:
            return Verdict.SIGNED
        try:
            verify_consistency(mark.size, checkpoint.size, mark.root, checkpoint.root, wanted.consistency)
        except ProofError:
            return Verdict.CONTRADICTS
        return Verdict.SIGNED

    def confirm(self, checkpoints: Sequence[Checkpoint]) -> list[str]:
        """Take note that a quorum knows nothing beyond these checkpoints.

        Return the origins of them that are confirmed by now: not those whose mark is another one.
        """
        for checkpoint in checkpoints:
            if self._marks.latest(checkpoint.origin) == checkpoint:
                self._confirmed.add(checkpoint.origin)
        return [checkpoint.origin for checkpoint in checkpoints if checkpoint.origin in self._confirmed]

    def remember(self, notes: Sequence[bytes]) -> list[Checkpoint]:
        """Raise the marks to what these notes say was signed; return what was not remembered.

        Whoever has such a note has it from this key: the marks are those of an older copy. Nothing is confirmed
        by it. Raises MalformedError or SignatureError for a note that is not of this key, SplitViewError for
        one of a mark's size with another root, all with nothing changed; StorageFullError; after any other
        StoreError nobody knows what the marks are.
        """
        forgotten: dict[str, Checkpoint] = {}
        for note in notes:
            origin = Checkpoint.parse(split_note(note)[0]).origin
            self.check_origin(origin)
            signed = open_checkpoint(note, origin, [self._key(origin).verifier]).checkpoint
            mark = forgotten.get(origin) or self._marks.latest(origin)
            if mark is None or mark.size < signed.size:
                forgotten[origin] = signed
            elif mark.size == signed.size and mark.root != signed.root:
                # A mark was signed once, and its note is always the same.
                raise SplitViewError(
                    f"{origin}: the log key has signed two histories, which differ at size {signed.size}",
                    sign_checkpoint(mark, self._key(origin)),
                    sign_checkpoint(signed, self._key(origin)),
                )
        self._marks.raise_to(list(forgotten.values()))
        # What was confirmed was the mark before, which nobody may go on from.
        self._confirmed -= forgotten.keys()
        return list(forgotten.values())

    def _key(self, origin: str) -> SignerKey:
        key = self._keys.get(origin)
        if key is None:
            key = self._keys[origin] = SignerKey(origin, self._secret)
        return key


@dataclass(frozen=True, slots=True)
class Marks:
    """What the signer remembers, by origin; `instance` changes where everything is to be confirmed again."""

    instance: str
    by_origin: dict[str, Mark]


@dataclass(frozen=True, slots=True)
class Signings:
    """What came of the checkpoints of one call, in their order."""

    instance: str
    results: list[Signing]


class SignerClient:
    """Asks the signer. Every call raises SignerAwayError where it is not there."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = signer_service_pb2_grpc.SignerServiceStub(channel)

    @classmethod
    def of(cls, settings: DistributedSettings) -> Self:
        """Return a client, not yet connected. Raises OSError where a TLS file cannot be read."""
        tls = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            issuers = settings.client_ca.read_bytes() if settings.client_ca is not None else None
            tls = Tls(issuers, settings.tls_certificate.read_bytes(), settings.tls_key.read_bytes())
        return cls(open_channel(settings.signer, tls))

    async def marks(self, origins: Sequence[str] = ()) -> Marks:
        """Return the marks of these origins, of all where none is named; an origin may have none."""
        request = signer_service_pb2.GetMarksRequest(origins=origins)
        try:
            answer = await self._stub.GetMarks(request, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error
        found = [Mark(Checkpoint.parse(mark.checkpoint), mark.confirmed) for mark in answer.marks]
        return Marks(answer.instance, {mark.checkpoint.origin: mark for mark in found})

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        """Ask for signatures of committed heads, at most one for each origin."""
        request = signer_service_pb2.SignRequest(
            items=[
                signer_service_pb2.SignRequest.Item(
                    checkpoint=each.checkpoint.text(), consistency=list(each.consistency)
                )
                for each in wanted
            ]
        )
        try:
            answer = await self._stub.Sign(request, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error
        if len(answer.results) != len(wanted):
            raise MalformedError(f"the signer gave {len(answer.results)} answers to {len(wanted)} checkpoints")
        results = [
            Signing(Verdict(each.verdict), Checkpoint.parse(each.mark) if each.mark else None, each.note)
            for each in answer.results
        ]
        return Signings(answer.instance, results)

    async def confirm(self, checkpoints: Sequence[Checkpoint]) -> list[str]:
        """Tell that a quorum has confirmed these marks; return the origins that are confirmed by now."""
        texts = [checkpoint.text() for checkpoint in checkpoints]
        try:
            answer = await self._stub.Confirm(
                signer_service_pb2.ConfirmRequest(checkpoints=texts), timeout=_PATIENCE
            )
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error
        return list(answer.origins)

    async def remember(self, notes: Sequence[bytes]) -> None:
        """Show the signer notes that it has signed and may not remember.

        Raises SplitViewError where its mark is of the same size with another root.
        """
        try:
            await self._stub.Remember(signer_service_pb2.RememberRequest(notes=notes), timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _told(error: grpc.aio.AioRpcError) -> Exception:
    evidence = dict(error.trailing_metadata())
    first, second = evidence.get(FIRST), evidence.get(SECOND)
    if isinstance(first, bytes) and isinstance(second, bytes):
        return SplitViewError(error.details() or "the log key has signed two histories", first, second)
    if error.code() in _AWAY:
        return SignerAwayError(f"the signer is away: {error.code().name}: {error.details()}")
    return MalformedError(f"the signer refuses the call: {error.code().name}: {error.details()}")
