"""Lifecycle hooks: what a container is asked to do right after it started, or before it is stopped."""

from __future__ import annotations

from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.handlers import HandlerFault, describe_dial, http_get, http_request
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault
from shipwheel.kubelet.words import quoted, rpc_error

_HTTP_SECONDS = 3600.0
"""A hook over HTTP is limited only by whoever waits for it."""


class HookFault(Exception):
    """The hook failed; the message names it."""


@dataclass(frozen=True, slots=True)
class Hooks:
    runtime: Runtime
    clock: Clock

    async def run(self, pod: Obj, container: Obj, container_id: str, handler: Obj, pod_ip: str) -> None:
        """Carry out a LifecycleHandler; HookFault when it fails."""
        where = f'for Container "{container["name"]}" in Pod "{podspec.describe(pod)}" failed'
        if "exec" in handler:
            await self._exec(handler["exec"].get("command") or [], container_id, where)
        elif "httpGet" in handler:
            action = handler["httpGet"]
            error = await self._http(action, container, pod_ip)
            if error:
                raise HookFault(f"HTTP lifecycle hook ({action.get('path', '')}) {where} - error: {error}")
        elif "sleep" in handler:
            await self.clock.sleep(handler["sleep"]["seconds"])
        else:
            raise HookFault(f"Cannot run handler: invalid handler: {handler}")

    async def _exec(self, command: list[str], container_id: str, where: str) -> None:
        listed = "[" + " ".join(command) + "]"
        try:
            result = await self.runtime.exec_sync(container_id, command, 0)
        except RuntimeFault as fault:
            raise HookFault(
                f'Exec lifecycle hook ({listed}) {where} - error: {rpc_error(fault)}, message: ""'
            ) from fault
        if result.exit_code:
            output = (result.stdout + result.stderr).decode(errors="replace")
            raise HookFault(
                f"Exec lifecycle hook ({listed}) {where} - error: command '{' '.join(command)}' exited with "
                f"{result.exit_code}: {result.stderr.decode(errors='replace')}, message: {quoted(output)}"
            )

    async def _http(self, action: Obj, container: Obj, pod_ip: str) -> str:
        """What went wrong, or nothing. Any answer will do."""
        try:
            url, headers = http_request(action, container, pod_ip)
            if not any(name.lower() == "user-agent" for name, _ in action.get("httpHeaders") or ()):
                headers = [(name, "kube-lifecycle/1.36" if name == "User-Agent" else value) for name, value in headers]
        except HandlerFault as fault:
            return str(fault)
        error = await self._get(url, headers)
        if error.startswith("tls:") and url.startswith("https:"):
            # The hook asked for HTTPS where only HTTP is spoken: upstream falls back, without credentials.
            plain = [(name, value) for name, value in headers if name.lower() != "authorization"]
            fallback = await self._get("http:" + url.removeprefix("https:"), plain)
            if not fallback:
                return ""
        return f'Get "{url}": {error}' if error else ""

    async def _get(self, url: str, headers: list[tuple[str, str]]) -> str:
        try:
            await http_get(url, headers, _HTTP_SECONDS)
        except HandlerFault as fault:
            return str(fault)
        except OSError as error:
            return describe_dial(url, error)
        return ""
