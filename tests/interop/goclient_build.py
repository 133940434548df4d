"""Builds the example client in Go, and generates its protobuf code.

    .venv/bin/python -m tests.interop.goclient_build --generate    after a proto changed: write goclient/gen

Needs Go 1.21 or later. Modules come from the Go module proxy, at the versions of go.mod and of `PLUGINS`;
what is built goes into .cache/goclient, so that a second run needs no network.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import google.rpc
import grpc_tools

from tests.interop import go_command

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENT: Final = Path(__file__).resolve().parent / "goclient"
GENERATED: Final = CLIENT / "gen"
SUMS: Final = GENERATED / "SHA256SUMS"
CACHE: Final = ROOT / ".cache" / "goclient"

MODULE: Final = "daybook.example/goclient"
PROTOS: Final[Mapping[str, str]] = {
    "daybook/registration/v1/drafts.proto": "registrationv1",
    "daybook/registration/v1/registration_service.proto": "registrationv1",
    "daybook/submission/v1/submission.proto": "submissionv1",
}
"""What the client speaks, with the Go package that each goes into."""

PLUGINS: Final[Mapping[str, str]] = {
    "protoc-gen-go": "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.5",
    "protoc-gen-go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
}

OLDEST_GO: Final = (1, 21)


def run_go(*arguments: str, **environment: str) -> None:
    """Run the Go command in the client's folder. Raises as `go_command.run_go`."""
    go_command.run_go(CLIENT, OLDEST_GO, *arguments, **environment)


def build() -> Path:
    """Build the client and return the program. Quick when nothing has changed: Go keeps what it compiled."""
    program = CACHE / "goclient"
    run_go("build", "-o", str(program), ".")
    return program


def generate(out: Path) -> None:
    """Write the Go code of the protos below `out`, in a folder for each package.

    Raises CalledProcessError.
    """
    programs = CACHE / "bin"
    for name, module in PLUGINS.items():
        if not (programs / module.rpartition("@")[2] / name).exists():
            target = programs / module.rpartition("@")[2]
            target.mkdir(parents=True, exist_ok=True)
            run_go("install", module, GOBIN=str(target), GOFLAGS="")
    out.mkdir(parents=True, exist_ok=True)
    common = Path(next(iter(google.rpc.__path__))).parent.parent
    includes = (ROOT / "protos", common, Path(grpc_tools.__path__[0]) / "_proto")
    packages = [f"M{proto}={MODULE}/gen/{package}" for proto, package in PROTOS.items()]
    options = ",".join([f"module={MODULE}/gen", *packages])
    plugins = [
        f"--plugin={name}={programs / module.rpartition('@')[2] / name}" for name, module in PLUGINS.items()
    ]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            *(f"-I{include}" for include in includes),
            *plugins,
            f"--go_out={options}:{out}",
            f"--go-grpc_out={options}:{out}",
            *PROTOS,
        ],
        check=True,
    )
    (out / SUMS.name).write_text("".join(f"{line}\n" for line in sums(out)), encoding="utf-8")


def sums(generated: Path = GENERATED) -> list[str]:
    """Return the lines of `SUMS`: the SHA-256 of each proto and each generated file, by path.

    They tell without Go, and quickly, that a proto or a generated file has changed since `generate`.
    """
    files = {f"protos/{proto}": ROOT / "protos" / proto for proto in PROTOS}
    files |= {f"gen/{path.relative_to(generated)}": path for path in generated.rglob("*.go")}
    return [f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}" for name in sorted(files)]


def main() -> int:
    """Do what the arguments ask; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the Go example client.")
    parser.add_argument("--generate", action="store_true", help="write its protobuf code again first")
    if parser.parse_args().generate:
        shutil.rmtree(GENERATED, ignore_errors=True)
        generate(GENERATED)
    print(build())
    return 0


if __name__ == "__main__":
    sys.exit(main())
