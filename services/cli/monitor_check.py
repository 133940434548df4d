"""`daybook monitor --check`: what a file of evidence proves to somebody who has only that, and his policy."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path

import typer

from ledger.errors import MalformedError, VerificationError
from ledger.witnessing import Policy
from services.cli.opened_states import open_state
from services.cli.reporting import Status, UsageError, printable, report
from services.monitoring.detection_files import check_detections, is_detections
from services.monitoring.findings import MAX_FILE, Checked, check


def check_evidence(path: Path, policy: Policy, policy_file: Path, state: Path | None, *, as_json: bool) -> None:
    """Check a file of evidence: status 1 where it proves that the ledger is at fault.

    Status 0 where it proves what may be as it should; 2 where it proves nothing (UsageError). `state` is the
    directory of a state, against which a file without proofs of its own is held.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if is_detections(data[: data.find(b"\n") + 1]):
        _check_detections(path, policy, policy_file, state, as_json=as_json)
        return
    try:
        if len(data) > MAX_FILE:
            raise MalformedError(f"more than {MAX_FILE} bytes")
        checked = check(data, policy)
    except (MalformedError, VerificationError) as error:
        raise UsageError(f"{path} proves nothing: {error}", "NOT_PROVED") from error
    _tell_checked(checked, policy, as_json=as_json)
    if checked.is_failure:
        raise typer.Exit(Status.INTEGRITY_FAILURE)


def _tell_checked(checked: Checked, policy: Policy, *, as_json: bool) -> None:
    value = {
        "proved": checked.proved,
        "not_proved": checked.left,
        "is_failure": checked.is_failure,
        "policy_fingerprint": policy.fingerprint,
    }
    lines = [f"Proved: {checked.proved}.", *([f"Not proved: {checked.left}."] if checked.left else [])]
    report(value, map(printable, lines), as_json=as_json)


def _check_detections(
    path: Path, policy: Policy, policy_file: Path, state: Path | None, *, as_json: bool
) -> None:
    """Check a file of what detections found against a state, since it has hashes and no proofs of its own."""
    try:
        if state is None:
            told = check_detections(path)
            command = shlex.join(
                [
                    "daybook",
                    "monitor",
                    "--check",
                    str(path),
                    "--policy",
                    str(policy_file),
                    "--state",
                    "YOUR_STATE",
                ]
            )
            raise UsageError(
                f"{path} proves nothing by itself. It is {told}: none of them an integrity failure. The file "
                "is whole, but it has hashes of entries and no proofs that they stand there. Hold it against "
                f"what you have read yourself: {command}",
                "NOT_PROVED",
            )
        with ExitStack() as stack:
            told = check_detections(path, open_state(state, policy, None, stack))
    except MalformedError as error:
        raise UsageError(f"{path} proves nothing: {error}", "NOT_PROVED") from error
    proved = (
        f"every entry that is named in {told} stands there under the hash that is given, by your own state, "
        "which followed what the ledger has signed"
    )
    left = "what the findings say of the entries is for you to judge; none of them is an integrity failure"
    _tell_checked(Checked(proved, left, is_failure=False), policy, as_json=as_json)
