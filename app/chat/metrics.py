"""What one replica counts while it answers, for `/metrics`. No label names a subject, expert, key, tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from app.lumoe.bank import SlotBank
from app.lumoe.engines.fleet import Fleet
from app.lumoe.types import Answer

Outcome = Literal["answered", "cancelled", "too_long", "busy", "timeout", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "cancelled", "too_long", "busy", "timeout", "failed")
DECISIONS = ("base", "watched", "claimed")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class _FleetCounters(Collector):
    """What a fleet counts by itself."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counters as they are now."""
        yield CounterMetricFamily(
            "lethe_vllm_retries", "Answers asked for once more, there or elsewhere.", self._fleet.retries
        )
        yield CounterMetricFamily(
            "lethe_vllm_reloads", "Servers found without experts that they had.", self._fleet.reloads
        )


class _SlotCounters(Collector):
    """What a slot bank counts by itself."""

    def __init__(self, bank: SlotBank) -> None:
        self._bank = bank

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the figures as they are now."""
        yield GaugeMetricFamily(
            "lethe_experts_on_device", "Experts that have a slot; the others wait.", self._bank.resident
        )
        yield CounterMetricFamily(
            "lethe_experts_paged_in", "Experts that came back from host memory.", self._bank.paged_in
        )


class ChatMetrics:
    """Counters and histograms of one engine, in a registry of their own.

    The gate decides `base` (nobody), `watched` (nobody for sure; the guard reads for the weakly indicated) or
    `claimed` (a subject, whose expert or interim refusal answers).
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._chats = Counter(
            "lethe_chats", "Conversations by how they ended.", ["outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "lethe_chat_seconds",
            "From the request to the end of its answer; answered conversations only.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._first = Histogram(
            "lethe_chat_first_text_seconds",
            "From the request to the first text that may leave.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._decisions = Counter(
            "lethe_gate_decisions", "What the gate said.", ["decision"], registry=self.registry
        )
        self._hits = Counter(
            "lethe_guard_hits",
            "Answers of which the output guard discarded something.",
            registry=self.registry,
        )
        self._tokens = Counter(
            "lethe_chat_tokens", "Tokens of answered conversations.", ["kind"], registry=self.registry
        )
        self.batches = Histogram(
            "lethe_chat_batch_rows",
            "Conversations that are answered together.",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.waiting = Gauge(
            "lethe_chat_waiting", "Conversations that wait for a batch.", registry=self.registry
        )
        self.generation = Gauge(
            "lethe_serving_generation",
            "Registry generation that the next batch is answered by; -1 before the first.",
            registry=self.registry,
        )
        self._servers = Gauge(
            "lethe_vllm_servers",
            "vLLM servers by whether they are asked; none with the local engine.",
            ["state"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:  # a rate needs the zero
            self._chats.labels(outcome)
        for decision in DECISIONS:
            self._decisions.labels(decision)

    def follow(self, fleet: Fleet) -> None:
        """Tell how the vLLM servers fare."""
        self._servers.labels("usable").set_function(lambda: fleet.usable)
        self._servers.labels("left_out").set_function(lambda: len(fleet) - fleet.usable)
        self.registry.register(_FleetCounters(fleet))

    def follow_slots(self, bank: SlotBank) -> None:
        """Tell which experts are on the device, where this process's own model writes."""
        self.registry.register(_SlotCounters(bank))

    def first_text(self, seconds: float) -> None:
        """Note that the first text of an answer has left."""
        self._first.observe(seconds)

    def answered(self, answer: Answer) -> None:
        """Note what gate and guard said about an answer, and its tokens."""
        decision = answer.decision
        claimed = decision.expert_id is not None
        self._decisions.labels("claimed" if claimed else "watched" if decision.watch else "base").inc()
        self._hits.inc(int(answer.guarded))
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("completion").inc(len(answer.token_ids))

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Note how a conversation ended, and after how long."""
        self._chats.labels(outcome).inc()
        if outcome == "answered":
            self._seconds.observe(seconds)
