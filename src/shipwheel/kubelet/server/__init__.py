"""What the kubelet serves: logs, exec, attach, port-forward, statistics, metrics."""
