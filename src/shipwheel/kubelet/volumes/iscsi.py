"""iscsi: a disk of a storage server, by the initiator of the node (`iscsiadm` of open-iscsi, and its daemon).

Logging in to a target makes the kernel show its disks; this node scans for the one that is wanted only, because others
may have been taken away on purpose. What a pod has is written down beside the node's mounts, so that the last one to
let go of a disk removes it from the kernel, and the last one of a target logs out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shipwheel.kubelet.volumes import disk
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError
from shipwheel.kubelet.volumes.mounting import MountError

NAME = "kubernetes.io/iscsi"
DEVICE_SECONDS = 30
MULTIPATH_SECONDS = 10
_PORT = 3260
_ATTACH = "MountVolume.WaitForAttach"
_DISCOVERY_KEYS = tuple(
    f"discovery.sendtargets.auth.{each}" for each in ("username", "password", "username_in", "password_in")
)
_SESSION_KEYS = tuple(f"node.session.auth.{each}" for each in ("username", "password", "username_in", "password_in"))


@dataclass(frozen=True, slots=True)
class Disk:
    """Which disk it is, as the node keeps it."""

    portals: Sequence[str]
    iqn: str
    lun: int
    interface: str
    own_interface: bool = False
    """The interface was made for this disk's initiator name."""

    @property
    def place(self) -> str:
        """Where it is mounted, below the plugin's directory."""
        return f"iface-{self.interface}/{self.portals[0]}-{self.iqn}-lun-{self.lun}"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the kernel shows what it has."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")

    def hosts(self, iqn: str) -> Mapping[str, int]:
        """The SCSI hosts of the sessions with a target, by portal."""
        found = {}
        for session in (self.sys / "class/iscsi_session").glob("session*"):
            if _text(session / "targetname") != iqn:
                continue
            number = session.name.removeprefix("session")
            for connection in (self.sys / "class/iscsi_connection").glob(f"connection{number}:*"):
                portal = _with_brackets(_text(connection / "persistent_address"))
                port = _text(connection / "persistent_port") or _PORT
                for part in session.resolve().parts:
                    if part.startswith("host") and part[4:].isdigit():
                        found[f"{portal}:{port}"] = int(part[4:])
        return found

    def scan(self, host: int, lun: int) -> None:
        """Have the kernel look for one disk."""
        (self.sys / f"class/scsi_host/host{host}/scan").write_text(f"0 0 {lun}")

    def device(self, portal: str, wanted: Disk, transport: str) -> Path | None:
        """The link to a disk's device; None while there is none."""
        address = portal.replace("[", "").replace("]", "")
        before = "" if transport == "tcp" else "pci-*-"
        pattern = f"{before}ip-{address}-iscsi-{wanted.iqn}-lun-{wanted.lun}"
        return next(iter(sorted((self.dev / "disk/by-path").glob(pattern))), None)

    def multipath(self, device: Path) -> Path | None:
        """The device that stands for all paths to the disk, if they are joined."""
        name = device.resolve().name
        for found in (self.sys / "block").glob(f"dm-*/slaves/{name}"):
            return self.dev / found.parents[1].name
        return None

    def forget(self, wanted: Disk) -> None:
        """Remove a disk from the kernel."""
        for portal in wanted.portals:
            for transport in ("tcp", ""):
                device = self.device(portal, wanted, transport)
                if device is not None:
                    delete = self.sys / "block" / device.resolve().name / "device/delete"
                    if delete.exists():
                        delete.write_text("1")


def disk_of(source: Mapping[str, object], spec_name: str) -> Disk:
    """Read a volume's source."""
    own = bool(source.get("initiatorName"))
    listed = [source.get("targetPortal"), *(source.get("portals") or ())]  # type: ignore[misc]
    portals = tuple(dict.fromkeys(_with_port(str(each)) for each in listed if each))
    interface = f"{portals[0]}:{spec_name}" if own else str(source.get("iscsiInterface") or "default")
    return Disk(portals, str(source["iqn"]), int(str(source.get("lun", 0))), interface, own)


def _with_port(portal: str) -> str:
    host, colon, port = portal.rpartition(":")
    if portal.endswith("]") or not colon or (":" in host and not host.endswith("]")):
        return f"{_with_brackets(portal)}:{_PORT}"
    return f"{host}:{port}"


def _with_brackets(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@dataclass(slots=True)
class IscsiVolumes:
    machine: Machine = field(default_factory=Machine)

    def plugin(self) -> Plugin:
        return Plugin(
            source="iscsi",
            name=NAME,
            set_up=self.set_up,
            owned=False,
            tear_down=self.tear_down,
            locate=lambda request: request.path / "dev" if request.block else request.path,
        )

    # Coming

    async def set_up(self, request: Request, host: Host) -> None:
        link = request.path / "dev"
        if link.is_symlink() if request.block else host.mounter.is_mount_point(request.path):
            return
        wanted = disk_of(request.source, request.spec_name)
        # Before anything is done, so that whatever was done can be undone.
        disk.make_directory(request.path)
        disk.make_directory(_records(request.path))
        _record(request.path).write_text(json.dumps(asdict(wanted)))
        device = await self._attach(request, host, wanted)
        if request.block:
            link.symlink_to(device)
            return
        place = disk.plugins_directory(request.path) / "iscsi" / wanted.place
        try:
            await disk.mount_for_node(request, host, str(device), place)
        except (VolumeError, MountError) as error:
            raise VolumeError(str(error), operation="MountVolume.MountDevice") from error
        await disk.show(request, host, str(place))

    async def _attach(self, request: Request, host: Host, wanted: Disk) -> Path:
        """Have the kernel show the disk."""
        out = await _iscsiadm("iface", "-I", request.source.get("iscsiInterface") or "default", "-o", "show")
        lines = dict(line.split(" = ", 1) for line in out.splitlines() if " = " in line)
        transport = lines.get("iface.transport_name", "tcp")
        if wanted.own_interface:
            await self._make_interface(request, wanted, lines)
        secret = await _secret(request, host)
        paths, why = [], ""
        for portal in wanted.portals:
            try:
                paths.append(await self._path(request, host, wanted, portal, transport, secret))
            except VolumeError as error:
                why = str(error)
        if not paths:
            raise VolumeError(f"failed to get any path for iscsi disk, last err seen:\n{why}", operation=_ATTACH)
        for _ in range(MULTIPATH_SECONDS if len(wanted.portals) > 1 else 1):
            for path in paths:
                joined = self.machine.multipath(path)
                if joined is not None:
                    return joined
            if len(wanted.portals) > 1:
                await host.clock.sleep(1)
        return paths[0]

    async def _make_interface(self, request: Request, wanted: Disk, settings: Mapping[str, str]) -> None:
        """An interface like the one that is named, with the volume's own initiator name."""
        interface = ("iface", "-I", wanted.interface)
        await _iscsiadm(*interface, "-o", "new", may_fail=True)
        changes = {**settings, "iface.initiatorname": request.source["initiatorName"]}
        for key, value in changes.items():
            if key.startswith("iface.") and key != "iface.iscsi_ifacename" and value != "<empty>":
                await _iscsiadm(*interface, "-o", "update", "-n", key, "-v", value)

    async def _path(
        self, request: Request, host: Host, wanted: Disk, portal: str, transport: str, secret: Mapping[str, str]
    ) -> Path:
        """The device of the disk by one portal."""
        session = self.machine.hosts(wanted.iqn).get(portal)
        if session is None:
            await self._log_in(request, wanted, portal, secret)
            session = self.machine.hosts(wanted.iqn).get(portal)
        if session is None:
            raise VolumeError(f"iscsi: there is no session with portal {portal} after logging in")
        self.machine.scan(session, wanted.lun)
        for _ in range(DEVICE_SECONDS):
            device = self.machine.device(portal, wanted, transport)
            if device is not None:
                return device
            await host.clock.sleep(1)
        pattern = f"/dev/disk/by-path/ip-{portal}-iscsi-{wanted.iqn}-lun-{wanted.lun}"
        raise VolumeError(f"Timed out waiting for device at path {pattern} after {DEVICE_SECONDS}s")

    async def _log_in(self, request: Request, wanted: Disk, portal: str, secret: Mapping[str, str]) -> None:
        discovery = ("discoverydb", "-t", "sendtargets", "-p", portal, "-I", wanted.interface)
        node = ("node", "-p", portal, "-T", wanted.iqn, "-I", wanted.interface)
        await _iscsiadm(*discovery, "-o", "new", may_fail=True)
        if request.source.get("chapAuthDiscovery"):
            await _use_chap(discovery, "discovery.sendtargets.auth.authmethod", _DISCOVERY_KEYS, secret)
        try:
            await _iscsiadm(*discovery, "--discover")
        except VolumeError as error:
            await _iscsiadm(*discovery, "-o", "delete", may_fail=True)
            raise VolumeError(f"iscsi: failed to sendtargets to portal {portal} output: {error}") from error
        await _iscsiadm(*node, "-o", "update", "-n", "node.session.scan", "-v", "manual", may_fail=True)
        if request.source.get("chapAuthSession"):
            await _use_chap(node, "node.session.auth.authmethod", _SESSION_KEYS, secret)
        try:
            await _iscsiadm(*node, "--login")
        except VolumeError as error:
            await _iscsiadm(*node, "-o", "delete", may_fail=True)
            raise VolumeError(f"iscsi: failed to attach disk: Error: {error}") from error
        # A machine that starts again must not wait for the target.
        await _iscsiadm(*node[:5], "-o", "update", "-n", "node.startup", "-v", "manual", may_fail=True)

    # Going

    async def tear_down(self, path: Path, host: Host) -> None:
        disk.unmount(path, host)
        (path / "dev").unlink(missing_ok=True)
        record = _record(path)
        if not record.exists():
            return
        released = Disk(**json.loads(record.read_text()))
        others = [Disk(**json.loads(each.read_text())) for each in record.parent.glob("*.json") if each != record]
        if not any((each.iqn, each.lun) == (released.iqn, released.lun) for each in others):
            place = disk.plugins_directory(path) / "iscsi" / released.place
            disk.unmount(place, host)
            if place.is_dir():
                place.rmdir()
            self.machine.forget(released)
        if not any(each.iqn == released.iqn for each in others):
            await _log_out(released)
        record.unlink()


async def _log_out(released: Disk) -> None:
    for portal in released.portals:
        node = ("node", "-p", portal, "-T", released.iqn, "-I", released.interface)
        await _iscsiadm(*node, "--logout", may_fail=True)
        await _iscsiadm(*node, "-o", "delete", may_fail=True)
    if released.own_interface:
        await _iscsiadm("iface", "-I", released.interface, "-o", "delete", may_fail=True)


def _records(path: Path) -> Path:
    return disk.plugins_directory(path) / "iscsi" / "volumes"


def _record(path: Path) -> Path:
    """What a pod has at `KUBELET/pods/UID/volumes/PLUGIN/NAME`."""
    return _records(path) / f"{path.parents[2].name}~{path.name}.json"


async def _secret(request: Request, host: Host) -> Mapping[str, str]:
    """The CHAP names and passwords, where they are asked for."""
    import base64

    reference = request.source.get("secretRef")
    if not reference or not (request.source.get("chapAuthDiscovery") or request.source.get("chapAuthSession")):
        return {}
    if request.pv is not None and host.cluster is not None:
        found = await host.cluster.secret_of(reference.get("namespace") or request.namespace, reference["name"])
    else:
        found = await host.objects.secret(request.namespace, reference["name"])
    return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}


async def _use_chap(at: Sequence[str], method: str, keys: Sequence[str], secret: Mapping[str, str]) -> None:
    await _iscsiadm(*at, "-o", "update", "-n", method, "-v", "CHAP")
    for key in keys:
        if secret.get(key):
            await _iscsiadm(*at, "-o", "update", "-n", key, "-v", secret[key])


async def _iscsiadm(*arguments: str, may_fail: bool = False) -> str:
    """What it prints; VolumeError when it fails."""
    code, output = await disk.run("iscsiadm", "-m", *arguments)
    if code and not may_fail:
        text = output if code == disk.MISSING else f"{output}, err exit status {code}"
        raise VolumeError(text, operation=_ATTACH)
    return output


PLUGIN = IscsiVolumes().plugin()
