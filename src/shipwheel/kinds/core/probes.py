"""Probes and lifecycle hooks: what is done to a container to learn how it is, or to let it know."""

from __future__ import annotations

from shipwheel.api.errors import forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_http_header_name
from shipwheel.kinds.checks import Errors, check_nonnegative, check_port, check_rule

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_TIMES = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


# Defaults


def default_probes(container: Obj) -> None:
    for field in PROBES:
        probe = container.get(field)
        if probe is not None:
            _default_probe(probe)
    lifecycle = container.get("lifecycle")
    if lifecycle is not None:
        for hook in ("postStart", "preStop"):
            if lifecycle.get(hook) is not None:
                _default_http_get(lifecycle[hook])


def _default_probe(probe: Obj) -> None:
    if not probe.get("timeoutSeconds"):
        probe["timeoutSeconds"] = 1
    if not probe.get("periodSeconds"):
        probe["periodSeconds"] = 10
    if not probe.get("successThreshold"):
        probe["successThreshold"] = 1
    if not probe.get("failureThreshold"):
        probe["failureThreshold"] = 3
    _default_http_get(probe)


def _default_http_get(handler: Obj) -> None:
    http = handler.get("httpGet")
    if http is not None:
        if not http.get("path"):
            http["path"] = "/"
        if not http.get("scheme"):
            http["scheme"] = "HTTP"


# Validation


def check_probes(container: Obj, grace_period: int | None, path: str, errors: Errors) -> None:
    for field in PROBES:
        probe = container.get(field)
        if probe is None:
            continue
        here = f"{path}.{field}"
        _check_handler(probe, _PROBE_HANDLERS, grace_period, here, errors)
        for time in _TIMES:
            check_nonnegative(probe.get(time), f"{here}.{time}", errors)
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            errors.append(invalid(f"{here}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
        if field == "readinessProbe":
            if grace is not None:
                detail = "must not be set for readinessProbes"
                errors.append(invalid(f"{here}.terminationGracePeriodSeconds", grace, detail))
        elif probe.get("successThreshold", 1) != 1:
            errors.append(invalid(f"{here}.successThreshold", probe["successThreshold"], "must be 1"))


def check_lifecycle(lifecycle: Obj, grace_period: int | None, os_name: str | None, path: str, errors: Errors) -> None:
    """`os_name` is what the pod declares to run on; None: nothing."""
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            _check_handler(lifecycle[hook], _HOOK_HANDLERS, grace_period, f"{path}.{hook}", errors)
    signal = lifecycle.get("stopSignal")
    if signal is not None:
        here = f"{path}.stopSignal"
        if os_name is None:
            errors.append(forbidden(here, "may not be set for containers with empty `spec.os.name`"))
        elif os_name == "windows" and signal not in ("SIGKILL", "SIGTERM"):
            errors.append(not_supported(here, signal, ("SIGKILL", "SIGTERM")))
        elif os_name == "linux" and signal not in LINUX_SIGNALS:
            errors.append(not_supported(here, signal, LINUX_SIGNALS))


def _check_handler(handler: Obj, kinds: tuple[str, ...], grace_period: int | None, path: str, errors: Errors) -> None:
    """Exactly one way of asking, and that one complete."""
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        errors.append(required(path, "must specify a handler type"))
        return
    first, *others = given
    _check_action(first, handler[first], grace_period, f"{path}.{first}", errors)
    for kind in others:
        errors.append(forbidden(f"{path}.{kind}", "may not specify more than 1 handler type"))


def _check_action(kind: str, action: Obj, grace_period: int | None, path: str, errors: Errors) -> None:
    if kind == "exec":
        if not action.get("command"):
            errors.append(required(f"{path}.command"))
    elif kind == "httpGet":
        if not action.get("path"):
            errors.append(required(f"{path}.path"))
        check_port(action.get("port"), f"{path}.port", errors)
        if action.get("scheme") not in ("HTTP", "HTTPS"):
            errors.append(not_supported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
        for header in action.get("httpHeaders") or ():
            check_rule(is_http_header_name, header.get("name", ""), f"{path}.httpHeaders", errors)
    elif kind in ("tcpSocket", "grpc"):
        check_port(action.get("port"), f"{path}.port", errors)
    else:
        seconds = action.get("seconds", 0)
        if grace_period is not None and not 0 <= seconds <= grace_period:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_period})"
            errors.append(invalid(path, seconds, detail))


LINUX_SIGNALS = (
    "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT",
    "SIGIO", "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGRTMAX",
    *(f"SIGRTMAX-{n}" for n in (1, 10, 11, 12, 13, 14, 2, 3, 4, 5, 6, 7, 8, 9)), "SIGRTMIN",
    *(f"SIGRTMIN+{n}" for n in (1, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 8, 9)), "SIGSEGV", "SIGSTKFLT",
    "SIGSTOP", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2",
    "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ",
)  # fmt: skip
