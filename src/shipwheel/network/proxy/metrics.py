"""The proxy's metrics, by upstream's names."""

from __future__ import annotations

from shipwheel.client.metrics import Metrics, exponential


class ProxyMetrics:
    def __init__(self, metrics: Metrics) -> None:
        family = ("ip_family",)
        self.sync_duration = metrics.histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "[ALPHA] SyncProxyRules latency in seconds",
            exponential(0.001, 2, 15),
            family,
        )
        self.last_sync = metrics.gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "[ALPHA] The last time proxy rules were successfully synced",
            family,
        )
        self.last_queued = metrics.gauge(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "[ALPHA] The last time a sync of proxy rules was queued",
            family,
        )
        self.sync_failures = metrics.counter(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "[ALPHA] Cumulative proxy nftables sync failures",
            family,
        )
        self.cleanup_failures = metrics.counter(
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
            "[ALPHA] Cumulative proxy nftables cleanup failures",
            family,
        )
        self.no_local_endpoints = metrics.gauge(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "[ALPHA] Number of services with a Local traffic policy and no endpoints",
            ("ip_family", "traffic_policy"),
        )
        self.conntrack_deleted = metrics.counter(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "[ALPHA] Cumulative conntrack flows deleted by conntrack reconciler",
            family,
        )
