"""The direction of imports: what an auditor may leave out when reading, and what cannot creep in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

READING_ORDER = (
    "errors",
    "base64",
    "hashing",
    "unicode14",
    "canonical",
    "ed25519",
    "tree",
    "proofs",
    "tiles",
    "notes",
    "checkpoints",
    "values",
    "witnessing",
    "timeline",
    "split_views",
    "add_checkpoint",
    "vocabularies",
    "record_types",
    "governing_types",
    "shapes",
    "record_rules",
    "own_records",
    "records",
    "record_queries",
    "withholding",
    "entries",
    "schemas",
    "acknowledgements",
    "governing",
    "anchors",
    "published_policies",
    "tlog_proofs",
    "receipt_file",
    "receipts",
    "store",
    "event_log",
    "sealing",
    "rules",
    "admission",
    "reader",
    "register",
    "ledger",
    "monitoring",
    "export",
    "rebuild",
    "catch_up",
    "fsck_spans",
    "fsck",
)
"""Inside `ledger/` a module imports only from modules above it."""

PURE_OF = (
    "services",
    "daybook",
    "grpc",
    "google",
    "faust",
    "aiokafka",
    "asyncio",
    "sqlite3",
    "psycopg",
    "psycopg_pool",
)
DATABASES = {"sqlite3", "psycopg", "psycopg_pool"}
OUTSIDE_WORLD = ("os", "io", "socket", "time", "random", "secrets", "pathlib", "tempfile", "subprocess")


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("ledger", "services", "ledger.stores"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_of_the_ledger_has_its_place_in_the_reading_order() -> None:
    """False if a module were added without a place, or a place kept without a module."""
    found = {path.stem for path in (ROOT / "ledger").glob("*.py")} - {"__init__"}
    assert found == set(READING_ORDER)


@pytest.mark.parametrize("name", READING_ORDER)
def test_a_module_of_the_ledger_imports_only_from_above(name: str) -> None:
    """False if somebody reading from the top met something that is explained further down."""
    above = {f"ledger.{each}" for each in READING_ORDER[: READING_ORDER.index(name)]}
    inside = {each for each in imports(ROOT / "ledger" / f"{name}.py") if each.startswith("ledger")}
    assert inside <= above


@pytest.mark.parametrize("path", sorted((ROOT / "ledger").rglob("*.py")), ids=lambda path: path.stem)
def test_the_ledger_knows_nothing_of_services_or_networks(path: Path) -> None:
    """False if the ledger could not be read, tested or reused without what serves it."""
    forbidden = set(PURE_OF) - (DATABASES if "stores" in path.parts else set())
    assert not {each for each in imports(path) if each.partition(".")[0] in forbidden}


@pytest.mark.parametrize("path", sorted((ROOT / "ledger").glob("*.py")), ids=lambda path: path.stem)
def test_above_the_stores_nothing_touches_files_clocks_or_chance(path: Path) -> None:
    """False if a verdict could depend on when, where or by whom it is computed."""
    assert not {each for each in imports(path) if each.partition(".")[0] in OUTSIDE_WORLD}


@pytest.mark.parametrize("path", sorted((ROOT / "services/client").glob("*.py")), ids=lambda path: path.stem)
def test_the_client_imports_only_the_ledger_the_protos_and_itself(path: Path) -> None:
    """False if a department that imports the client got a server with it."""
    own = {each for each in imports(path) if each.startswith("services")}
    assert all(each == "services.client" or each.startswith("services.client.") for each in own)


@pytest.mark.parametrize("path", sorted((ROOT / "services/witness").glob("*.py")), ids=lambda path: path.stem)
def test_a_witness_imports_only_pure_modules_of_the_ledger_and_itself(path: Path) -> None:
    """False if a witness shared a store, or code that serves, with the ledger that it watches."""
    own = {each for each in imports(path) if each.partition(".")[0] in ("ledger", "services", "daybook")}
    pure = {f"ledger.{name}" for name in READING_ORDER} - {"ledger.store", "ledger.ledger", "ledger.register"}
    assert {each for each in own if not each.startswith("services.witness.")} <= pure


@pytest.mark.parametrize(
    "path", sorted((ROOT / "services/monitoring").glob("*.py")), ids=lambda path: path.stem
)
def test_a_monitor_shares_no_code_with_the_servers_that_it_reads_from(path: Path) -> None:
    """False if a fault in what serves a ledger could hide itself from whoever watches it."""
    own = {each for each in imports(path) if each.startswith(("services", "daybook", "grpc"))}
    allowed = ("services.monitoring", "services.ledger_files")
    assert all(each.startswith(allowed) for each in own)


def test_verifying_loads_no_network_and_no_database() -> None:
    """False if an auditor's verifier pulled in code that it has no use for."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, services.cli.verify; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & {"grpc", "google", "faust", "aiokafka", "daybook", *DATABASES}
