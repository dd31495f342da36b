"""The node's figures in Prometheus' text format: numbers of things and their states, no UID and nobody's name."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from qcnode import __version__
from qcnode.ledger.counters import Counters
from qcnode.ledger.store import Store
from qcnode.web.running import Running

__all__ = ["CONTENT_TYPE", "exposition"]


def exposition(store: Store, running: Running | None) -> bytes:
    """All figures as they are now; TransientError when the ledger is out of reach."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(store.overview.counters(), running))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Figures(Collector):
    """One reading of the ledger's counters, and of the node where there is one."""

    def __init__(self, counters: Counters, running: Running | None) -> None:
        self._counters, self._running = counters, running

    def collect(self) -> Iterator[Metric]:
        """The figures, each with what it counts."""
        counted = self._counters
        yield CounterMetricFamily("qcnode_instances", "Instances that were received.", counted.instances)
        series = GaugeMetricFamily("qcnode_series", "Series in each state.", labels=["state"])
        for state, count in counted.series.items():
            series.add_metric([state.value], count)
        yield series
        verdicts = CounterMetricFamily("qcnode_verdicts", "Verdicts, of all revisions.", labels=["verdict"])
        for decision, count in counted.verdicts.items():
            verdicts.add_metric([decision.value], count)
        yield verdicts
        ways = GaugeMetricFamily("qcnode_deliveries", "Deliveries.", labels=["destination", "kind", "state"])
        for (destination, kind, delivery), count in counted.deliveries.items():
            ways.add_metric([destination, kind, delivery.value], count)
        yield ways
        queues = GaugeMetricFamily("qcnode_queue_length", "What waits for each kind of work.", labels=["work"])
        for work, count in counted.queues.items():
            queues.add_metric([work], count)
        yield queues
        yield GaugeMetricFamily("qcnode_dead_letters", "Deliveries that wait for a person.", counted.dead)
        if self._running is not None:
            yield from _of_node(self._running)


def _of_node(running: Running) -> Iterator[Metric]:
    room, ensemble = running.listener.room, running.ensemble()
    yield GaugeMetricFamily(
        "qcnode_associations", "DICOM associations that are open.", len(running.listener.associations)
    )
    yield GaugeMetricFamily(
        "qcnode_receiving_processes", "Processes that take DICOM connections.", running.listener.ready
    )
    yield GaugeMetricFamily("qcnode_disk_free_bytes", "Free space under the spool.", room.free_bytes)
    yield GaugeMetricFamily("qcnode_disk_floor_bytes", "Free space below which all is refused.", room.floor_bytes)
    yield GaugeMetricFamily(
        "qcnode_weights_loaded", "Whether the grading process has its weights.", ensemble is not None
    )
    yield InfoMetricFamily("qcnode", "The node.", {"version": __version__, "ensemble": ensemble or ""})
