"""How upstream's messages write things: durations as Go does, runtime errors as gRPC's Go library does."""

from __future__ import annotations

from shipwheel.kubelet.runtime.base import RuntimeFault


def go_duration(seconds: float) -> str:
    """`1m30s`, `1.5s`, `250ms`, `0s`, at a precision of milliseconds."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def rpc_error(fault: RuntimeFault) -> str:
    """`rpc error: code = NotFound desc = ...`."""
    return rpc_text(fault.code, fault.message)


def rpc_text(status: str, message: str) -> str:
    """The same from a status's name (`NOT_FOUND`) and what was said."""
    code = "OK" if status == "OK" else status.title().replace("_", "")
    return f"rpc error: code = {code} desc = {message}"


def quoted(text: str) -> str:
    """Go's `%q`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped.replace(chr(10), chr(92) + "n").replace(chr(9), chr(92) + "t")}"'
