"""Whether checkpoints are sealed, and by whom: for /readyz, for metrics, for whoever looks after a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.notes import SignatureLine
from services.cosigning import unsealed
from services.following import Growing, Standing
from services.published import Published
from services.time_bounds import Timelines

NONE_CONFIGURED: Final = "none configured"
"""What is said of the witnesses of a ledger that asks none."""

MOST_NAMED: Final = 20
"""Registers that are named one by one; of more, only how many."""

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class SealingState:
    """Tells how one ledger's sealing stands at this moment."""

    def __init__(
        self, published: Published, growing: Growing, standings: Callable[[], Sequence[Standing]]
    ) -> None:
        self.published = published
        self.standings = standings
        self._growing = growing

    def unconfirmed(self) -> list[str]:
        """Return the registers that may not grow yet, since no quorum has confirmed their stored heads."""
        return [name for name in self.published.registers() if not self._growing.is_confirmed(name)]

    def told(self) -> dict[str, Any] | str:
        """Return it for /readyz: whether the quorum is met for every register, and who takes part."""
        policy = self.published.policy
        if policy is None:
            return NONE_CONFIGURED
        waiting = sorted(unsealed(self.published))
        unconfirmed = self.unconfirmed()
        told: dict[str, Any] = {
            "quorum": policy.quorum.root,
            "quorum_met": not waiting,
            "unsealed_registers": len(waiting),
            "unsealed": waiting[:MOST_NAMED],
            "witnesses": [
                {
                    "name": each.name,
                    "key": each.key,
                    "cosigning": each.trouble is None,
                    "trouble": each.trouble,
                    "cosigned_at": each.cosigned_at,
                }
                for each in self.standings()
            ],
        }
        if unconfirmed:
            told["unconfirmed"] = unconfirmed[:MOST_NAMED]
        return told


class SealingMetrics(Collector):
    """What Prometheus is shown of witnesses and seals. Is told of them by the cosigner."""

    def __init__(self, state: SealingState, timelines: Timelines, registry: CollectorRegistry) -> None:
        self._state = state
        self._timelines = timelines
        self._answers = Counter(
            "daybook_witness_answers_total",
            "Answers of witnesses, by what they were.",
            ["witness", "answer"],
            registry=registry,
        )
        self._seconds = Histogram(
            "daybook_sealing_seconds",
            "Seconds from the first request for a checkpoint's cosignatures to its seal.",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(self)

    def answered(self, witness: str, answer: str) -> None:
        """Count an answer of a witness."""
        self._answers.labels(witness, answer).inc()

    def kept(self, register: str, size: int, lines: Sequence[SignatureLine]) -> None:
        """Take note of cosignatures that were kept."""
        self._timelines.kept(register, size, lines)

    def sealed(self, seconds: float) -> None:
        """Measure a seal."""
        self._seconds.observe(seconds)

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without samples, so that registering reads nothing."""
        return _gauges()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; none of them for a ledger that asks no witness."""
        sizes, met, cosigned, confirmed = _gauges()
        published = self._state.published
        if published.policy is None:
            return
        waiting = set(unsealed(published))
        for register in sorted(published.registers()):
            sealed = published.sealed(register)
            sizes.add_metric([register], sealed.size if sealed else 0)
            met.add_metric([register], register not in waiting)
        for standing in self._state.standings():
            cosigned.add_metric([standing.name], standing.cosigned_at or 0)
        confirmed.add_metric([], len(self._state.unconfirmed()))
        yield from (sizes, met, cosigned, confirmed)


def _gauges() -> tuple[GaugeMetricFamily, ...]:
    return (
        GaugeMetricFamily(
            "daybook_sealed_size", "Entries under the latest sealed checkpoint.", labels=["register"]
        ),
        GaugeMetricFamily(
            "daybook_quorum_met",
            "1 while the latest signed checkpoint is sealed by the quorum of witnesses.",
            labels=["register"],
        ),
        GaugeMetricFamily(
            "daybook_witness_cosigned_timestamp_seconds",
            "Time of a witness's latest cosignature in this run, POSIX seconds; 0 for none.",
            labels=["witness"],
        ),
        GaugeMetricFamily(
            "daybook_unconfirmed_registers",
            "Registers that may not grow, since no quorum has confirmed their stored heads.",
            labels=[],
        ),
    )
