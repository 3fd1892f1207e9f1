"""Run in namespaces of its own: what this machine is like before a cluster, with it, and after.

Prints a JSON object: how many things there were `during`, and what is `left` and `lost` afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.live import Cluster, wait_for

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet")
PLACES = ("/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/etc/cni")


def lines(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def read(path: Path) -> str:
    try:
        return path.read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def machine() -> set[str]:
    """Everything that somebody could leave behind."""
    # One that has ended and is not yet buried has no command line.
    commands = {command for each in Path("/proc").glob("[0-9]*") if (command := read(each / "cmdline"))}
    found = {f"process {each}" for each in commands}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    # Mounts of other clusters, copied into this namespace, go away when those remove what they were mounted on.
    found |= {
        f"mount {each}" for each in mounts if "traceless" in each or each.startswith(("/run/netns", "/sys", "/var"))
    }
    found |= {f"link {line.split(':')[1]}" for line in lines("ip", "-o", "link")}
    found |= {f"address {line}" for line in lines("ip", "-o", "-4", "addr", "show", "scope", "global")}
    found |= {f"route {line}" for line in lines("ip", "-4", "route", "show", "table", "all")}
    found |= {f"netns {line}" for line in lines("ip", "netns")}
    found |= {f"nft {line}" for line in lines("nft", "list", "ruleset")}
    # Cgroups are the whole machine's; others may run clusters too.
    found |= {f"cgroup {path}" for path in Path("/sys/fs/cgroup").rglob("*traceless*")}
    found |= {f"sysctl {name} {Path('/proc/sys', name).read_text()}" for name in SYSCTLS}
    for place in PLACES:
        found |= {f"file {path}" for path in Path(place).glob("*")}
    return {each for each in found if "machine_before_and_after" not in each and "ip netns" not in each}


def main(directory: Path, *options: str) -> None:
    for place in ("/run", "/var/log"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    cluster = Cluster(directory / "traceless", "traceless", "--port", "0")
    (directory / "traceless").mkdir()
    before = machine()
    cluster.up("--demo", *options)
    container = {"name": "c", "image": "shipwheel.local/web:1", "ports": [{"containerPort": 80, "hostPort": 18081}]}
    volumes = [{"name": "v", "emptyDir": {"medium": "Memory"}}]
    container["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [container], "volumes": volumes},
        }
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=120s")
    during = machine()
    cluster.down()
    wait_for(lambda: not [each for each in machine() - before if each.startswith("process")])
    after = machine()
    report = {"during": len(during - before), "left": sorted(after - before), "lost": sorted(before - after)}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
