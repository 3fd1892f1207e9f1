"""What upstream's kubelet can be told and ours cannot (see `client.fixed_flags`)."""

from __future__ import annotations

from collections.abc import Mapping

from shipwheel.client.fixed_flags import Fixed

_GONE = "Use --eviction-hard or --eviction-soft instead. Will be removed in a future version."

FIXED: tuple[Fixed, ...] = (
    Fixed("configMapAndSecretChangeDetectionStrategy", "", "string", "Watch"),
    Fixed("contentType", "kube-api-content-type", "string", "application/json"),
    Fixed("cgroupDriver", "cgroup-driver", "string", "cgroupfs"),
    Fixed("enableContentionProfiling", "contention-profiling", "bool", False),
    Fixed("enableDebugFlagsHandler", "", "bool", True),
    Fixed("enableProfilingHandler", "", "bool", True),
    Fixed("enableSystemLogQuery", "", "bool", False),
    Fixed("hairpinMode", "hairpin-mode", "string", "promiscuous-bridge"),
    Fixed("iptablesDropBit", "", "int", 15),
    Fixed("iptablesMasqueradeBit", "", "int", 14),
    Fixed("kernelMemcgNotification", "kernel-memcg-notification", "bool", False),
    Fixed("kubeletCgroups", "kubelet-cgroups", "string", ""),
    Fixed("logging", "", "mapStringString", {}),
    Fixed("makeIPTablesUtilChains", "make-iptables-util-chains", "bool", True),
    Fixed("memoryReservationPolicy", "", "string", "None"),
    Fixed("memoryThrottlingFactor", "", "float", 0.9),
    Fixed("qosReserved", "qos-reserved", "mapStringString", {}),
    Fixed("readOnlyPort", "read-only-port", "int", 0),
    Fixed("runOnce", "runonce", "bool", False),
    Fixed("showHiddenMetricsForVersion", "", "string", ""),
    Fixed("streamingConnectionIdleTimeout", "streaming-connection-idle-timeout", "duration", "4h0m0s"),
    Fixed("systemCgroups", "system-cgroups", "string", ""),
    Fixed("tlsCurvePreferences", "", "stringSlice", []),
    Fixed("tracing", "", "mapStringString", {}),
    Fixed("volumePluginDir", "volume-plugin-dir", "string", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"),
    Fixed("", "exit-on-lock-contention", "bool", False),
    Fixed("", "lock-file", "string", ""),
    Fixed("", "maximum-dead-containers", "int", -1, _GONE),
    Fixed("", "maximum-dead-containers-per-container", "int", 1, _GONE),
    Fixed("", "minimum-container-ttl-duration", "duration", "0s", _GONE),
    Fixed("", "runtime-cgroups", "string", ""),
    Fixed("", "experimental-mounter-path", "string", "", "will be removed in 1.25 or later. in favor of using CSI."),
    Fixed("", "experimental-allocatable-ignore-eviction", "bool", False, "will be removed in 1.25 or later."),
)
BY_FILE: Mapping[str, Fixed] = {each.file: each for each in FIXED if each.file}
BY_FLAG: Mapping[str, Fixed] = {each.flag: each for each in FIXED if each.flag}
