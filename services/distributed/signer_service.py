"""The signer: the one process that holds the log key, and the marks of what it has signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
import structlog
from daybook.signer.v1 import signer_service_pb2, signer_service_pb2_grpc
from prometheus_client import CollectorRegistry, Counter, Gauge

from ledger.checkpoints import Checkpoint
from ledger.errors import MalformedError, SignatureError, SplitViewError, StorageFullError, StoreError
from ledger.governing import GOVERNING
from ledger.hashing import HASH_SIZE, Hash
from services.distributed.ops import ops_endpoint
from services.distributed.running import Running
from services.distributed.settings import DistributedSettings
from services.distributed.signer_marks import held_alone
from services.distributed.signing import FIRST, SECOND, GuardedSigner, ToSign, Verdict
from services.ledger_files import read_secret_key
from services.serving import MAX_MESSAGE, server_credentials
from services.settings import SettingsError, split_address
from services.signing import HighWaterMarks

_IDLE: Final = 0.05
"""Seconds without a signature after which the marks are synced; under load they are once a second."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # Two signers on one port would take turns: the second must fail instead.
    ("grpc.so_reuseport", 0),
)

_log = structlog.get_logger()
_Result = TypeVar("_Result")


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Sign until a stop is asked for.

    Raises SettingsError, OSError where an address cannot be bound or another signer has the marks, and
    StoreError where the marks are damaged or cannot be kept.
    """
    if settings.log_key is None or settings.signer_marks is None:
        raise SettingsError("the signer needs log_key and signer_marks: the files of its key and of its marks")
    key = read_secret_key(settings.log_key)
    if key.name != f"{settings.origin}/{GOVERNING}":
        raise SettingsError(
            f"{settings.log_key} is the key {key.name}, not that of the ledger {settings.origin}"
        )
    running = Running()
    running.stop.on_signals()
    with held_alone(settings.signer_marks), _opened(settings.signer_marks) as marks:
        signer = GuardedSigner(key.secret, marks, settings.origin)
        registry = CollectorRegistry()
        with ThreadPoolExecutor(1, "signing") as thread:
            servicer = _SignerServicer(signer, marks, thread, registry, running)
            syncing = asyncio.ensure_future(running.part(servicer.keep_synced)())
            async with (
                ops_endpoint(settings.ops, registry, servicer.readiness) as ops,
                _server(servicer, settings) as address,
            ):
                ready({"grpc": address, "ops": ops})
                try:
                    await running.until_over()
                finally:
                    syncing.cancel()
                    with suppress(asyncio.CancelledError):
                        await syncing


@contextmanager
def _opened(path: Path) -> Iterator[HighWaterMarks]:
    marks = HighWaterMarks(path)
    try:
        yield marks
    finally:
        marks.close()


@asynccontextmanager
async def _server(servicer: _SignerServicer, settings: DistributedSettings) -> AsyncIterator[str]:
    """Serve gRPC; yield HOST:PORT. Raises OSError where the address cannot be bound, or for TLS files."""
    server = grpc.aio.server(options=_OPTIONS)
    signer_service_pb2_grpc.add_SignerServiceServicer_to_server(servicer, server)
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            port = server.add_insecure_port(settings.signer)
        elif settings.client_ca is None:
            raise SettingsError("the signer signs for whoever reaches it: with TLS it needs client_ca as well")
        else:
            port = server.add_secure_port(settings.signer, server_credentials(settings))
    except RuntimeError as error:
        raise OSError(f"cannot bind gRPC to {settings.signer}: does another signer run there?") from error
    await server.start()
    try:
        yield f"{split_address(settings.signer)[0]}:{port}"
    finally:
        await server.stop(settings.grace_seconds)


class _SignerServicer(signer_service_pb2_grpc.SignerServiceServicer):
    """Parses, asks the signer in its one thread, and answers."""

    def __init__(
        self,
        signer: GuardedSigner,
        marks: HighWaterMarks,
        thread: ThreadPoolExecutor,
        registry: CollectorRegistry,
        running: Running,
    ) -> None:
        self._signer = signer
        self._marks = marks
        self._thread = thread
        self._running = running
        self._signed_since = asyncio.Event()
        self._verdicts = Counter(
            "daybook_signer_verdicts", "Checkpoints decided on.", ["verdict"], registry=registry
        )
        self._origins = Gauge("daybook_signer_origins", "Origins signed for.", registry=registry)
        self._unconfirmed = Gauge(
            "daybook_signer_unconfirmed",
            "Origins that no quorum has confirmed since the start.",
            registry=registry,
        )
        self._count()

    def readiness(self) -> Mapping[str, Any]:
        """Tell how the signer stands. It is ready with origins not confirmed: it signs what may be signed."""
        marks = self._signer.marks(())
        unconfirmed = sorted(mark.checkpoint.origin for mark in marks if not mark.confirmed)
        return {"ready": True, "origins": len(marks), "unconfirmed": unconfirmed}

    def _count(self) -> None:
        marks = self._signer.marks(())
        self._origins.set(len(marks))
        self._unconfirmed.set(sum(not mark.confirmed for mark in marks))

    async def keep_synced(self) -> None:
        """Sync the marks whenever nothing is signed for a moment. Raises StoreError."""
        while True:
            await self._signed_since.wait()
            self._signed_since.clear()
            await asyncio.sleep(_IDLE)
            if not self._signed_since.is_set() and not self._marks.is_synced:
                await self._in_thread(self._sync)

    def _sync(self) -> None:
        try:
            self._marks.sync()
        except OSError as error:
            raise StoreError(f"the signer's high-water marks: {error}") from error

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def GetMarks(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        """Tell the marks."""
        origins = list(request.origins)
        await self._check(context, origins)
        found = await self._in_thread(lambda: self._signer.marks(origins))
        return signer_service_pb2.GetMarksResponse(
            marks=[
                signer_service_pb2.Mark(checkpoint=mark.checkpoint.text(), confirmed=mark.confirmed)
                for mark in found
            ],
            instance=self._signer.instance,
        )

    async def Sign(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Decide on each checkpoint."""
        checkpoints = await self._parse(context, [item.checkpoint for item in request.items])
        origins = [checkpoint.origin for checkpoint in checkpoints]
        if len(set(origins)) != len(origins):
            await _refuse(context, "two checkpoints of one origin in one call")
        if any(len(each) != HASH_SIZE for item in request.items for each in item.consistency):
            await _refuse(context, f"a hash of a proof has not {HASH_SIZE} bytes")
        wanted = [
            ToSign(checkpoint, [Hash(each) for each in item.consistency])
            for checkpoint, item in zip(checkpoints, request.items, strict=True)
        ]
        results = await self._with_marks(context, lambda: self._signer.sign(wanted))
        for origin, result in zip(origins, results, strict=True):
            self._verdicts.labels(result.verdict.name.lower()).inc()
            if result.verdict is Verdict.CONTRADICTS:
                _log.error("a checkpoint contradicts the mark: not signed", origin=origin)
        return signer_service_pb2.SignResponse(
            results=[
                signer_service_pb2.SignResponse.Result(
                    verdict=each.verdict.value, note=each.note, mark=each.mark.text() if each.mark else b""
                )
                for each in results
            ],
            instance=self._signer.instance,
        )

    async def Confirm(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take note of what a quorum has confirmed."""
        checkpoints = await self._parse(context, list(request.checkpoints))
        origins = await self._in_thread(lambda: self._signer.confirm(checkpoints))
        self._count()
        return signer_service_pb2.ConfirmResponse(origins=origins)

    async def Remember(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Raise marks to what was signed once."""
        notes = list(request.notes)
        try:
            forgotten = await self._with_marks(context, lambda: self._signer.remember(notes))
        except (MalformedError, SignatureError) as error:
            await _refuse(context, f"not a note of this signer: {error}")
        except SplitViewError as error:
            _log.error(
                "a note contradicts the mark: the log key has signed two histories",
                first=error.first.decode(),
                second=error.second.decode(),
            )
            evidence = ((FIRST, error.first), (SECOND, error.second))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error), evidence)
        for checkpoint in forgotten:
            _log.error(
                "the marks are those of an older copy: more was signed",
                origin=checkpoint.origin,
                size=checkpoint.size,
            )
        return signer_service_pb2.RememberResponse()

    async def _with_marks(self, context: Any, work: Callable[[], _Result]) -> _Result:
        """Do work that raises marks. Where they cannot be kept the call ends, and the signer as well."""
        doing = asyncio.ensure_future(self._in_thread(work))
        doing.add_done_callback(self._raised)
        try:
            # A caller who gives up takes nothing back: what becomes of the marks is taken in all the same.
            return await asyncio.shield(doing)
        except StorageFullError as error:
            _log.error("no room for marks: nothing is signed")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except StoreError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the marks cannot be kept: the signer ends")
        raise AssertionError("abort raises")

    def _raised(self, done: asyncio.Future[Any]) -> None:
        """Take in that marks were raised, or could not be: a disk tells of its failure once."""
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, StoreError) and not isinstance(error, StorageFullError):
            self._running.fail(error)
        self._signed_since.set()
        self._count()

    async def _parse(self, context: Any, texts: Sequence[bytes]) -> list[Checkpoint]:
        try:
            checkpoints = [Checkpoint.parse(text) for text in texts]
        except MalformedError as error:
            await _refuse(context, str(error))
        if any(checkpoint.extensions for checkpoint in checkpoints):
            await _refuse(context, "a checkpoint of Daybook has no extension lines")
        await self._check(context, [checkpoint.origin for checkpoint in checkpoints])
        return checkpoints

    async def _check(self, context: Any, origins: Sequence[str]) -> None:
        try:
            for origin in origins:
                self._signer.check_origin(origin)
        except MalformedError as error:
            await _refuse(context, str(error))


async def _refuse(context: Any, text: str) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
    raise AssertionError("abort raises")
