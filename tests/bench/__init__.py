"""Benchmarks, each beside a floor that is measured in the same run."""

import os

# Back ends and services are started while calls are open: gRPC's own handlers of a fork would wait for these.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
