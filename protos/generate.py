"""Generate the Python code of the protos, check that it is up to date, and lint the protos.

    .venv/bin/python protos/generate.py           write protos/gen
    .venv/bin/python protos/generate.py --check   exit 1 if protos/gen is not what the protos say
    .venv/bin/python protos/generate.py --lint    exit 1 if the protos break the rules of protos/buf.yaml

Works offline: `google/rpc` comes from googleapis-common-protos, `google/protobuf` from grpcio-tools, and
the linter is given an image that protoc made. There is no ``__init__.py`` in protos/gen/daybook, a
namespace package: the wheel and the editable install put it on the path as `daybook`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import google.rpc
import grpc_tools

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS / "gen" / "daybook"
SCRIPTS = Path(sysconfig.get_path("scripts"))

_INCLUDES = (
    PROTOS,
    Path(next(iter(google.rpc.__path__))).parent.parent,
    Path(grpc_tools.__path__[0]) / "_proto",
)
_IGNORED = {"__pycache__"}


def sources() -> list[str]:
    """Return every proto file, relative to `protos`, in a fixed order."""
    return sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "daybook").rglob("*.proto"))


def generate(out: Path) -> None:
    """Write messages, stubs and services of every proto below `out`; raises CalledProcessError."""
    out.mkdir(parents=True, exist_ok=True)
    _protoc(
        f"--plugin=protoc-gen-mypy={SCRIPTS / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={SCRIPTS / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
    )
    for path in list(out.rglob("*_pb2_grpc.py*")):
        # The plugin writes a file even where there is no service; those say nothing.
        if not path.name.partition("_pb2_grpc.")[0].endswith("_service"):
            path.unlink()


def image() -> bytes:
    """Return one FileDescriptorSet of all protos with imports and comments; raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "daybook.binpb"
        _protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={file}")
        return file.read_bytes()


def differences() -> list[str]:
    """Return the generated files, relative to protos/gen, that are missing, stale or not ours."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted = _contents(Path(folder) / "daybook")
    found = _contents(GENERATED)
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def lint() -> str:
    """Return what buf finds wrong, one finding a line; empty when the protos are clean."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "daybook.binpb"
        file.write_bytes(image())
        done = subprocess.run(  # noqa: S603  our own tool, fixed arguments
            [SCRIPTS / "buf", "lint", file, "--config", PROTOS / "buf.yaml"],
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stdout + done.stderr


def _protoc(*arguments: str) -> None:
    includes = [f"-I{include}" for include in _INCLUDES]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments, *sources()]
    subprocess.run(command, check=True)  # noqa: S603  our own tool, fixed arguments


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root.parent)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not _IGNORED & set(path.parts)
    }


def main() -> int:
    """Do what the arguments ask; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate or check the Python code of the protos.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail if protos/gen is out of date")
    choice.add_argument("--lint", action="store_true", help="fail if the protos break protos/buf.yaml")
    arguments = parser.parse_args()
    if arguments.lint:
        findings = lint()
        sys.stderr.write(findings)
        return 1 if findings else 0
    if arguments.check:
        stale = differences()
        for name in stale:
            print(f"protos/gen/{name}: out of date; run protos/generate.py", file=sys.stderr)
        return 1 if stale else 0
    shutil.rmtree(GENERATED, ignore_errors=True)
    generate(GENERATED.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
