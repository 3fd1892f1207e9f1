"""What a pod and its containers run as, and what they may do to the machine."""

from __future__ import annotations

import re

from shipwheel.api.errors import duplicate, forbidden, invalid, not_supported, required, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_subdomain, is_valid_group_id, is_valid_user_id
from shipwheel.kinds.checks import Errors, check_one_of, check_relative_path, check_rule

_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_MAX_PATH = 4095

_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_is_sysctl = re.compile(_SYSCTL).fullmatch
_MAX_SYSCTL = 253
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def _check_ids(context: Obj, path: str, errors: Errors) -> None:
    user, group = context.get("runAsUser"), context.get("runAsGroup")
    if user is not None:
        for complaint in is_valid_user_id(user):
            errors.append(invalid(f"{path}.runAsUser", user, complaint))
    if group is not None:
        for complaint in is_valid_group_id(group):
            errors.append(invalid(f"{path}.runAsGroup", group, complaint))


# Containers


def check_security_context(context: Obj, path: str, errors: Errors, *, host_users: bool = True) -> None:
    """A container's own. `host_users`: the pod shares the machine's users (it has no user namespace)."""
    _check_ids(context, path, errors)
    mount = context.get("procMount")
    if mount is not None:
        check_one_of(mount, ("Default", "Unmasked"), f"{path}.procMount", errors)
        if host_users and mount == "Unmasked":
            errors.append(invalid(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    _check_seccomp(context.get("seccompProfile"), f"{path}.seccompProfile", errors)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(invalid(path, context, detail))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(invalid(path, context, detail))
    _check_windows(context.get("windowsOptions"), f"{path}.windowsOptions", errors)
    check_apparmor_profile(context.get("appArmorProfile"), f"{path}.appArmorProfile", errors)


# Pods


def check_pod_security_context(spec: Obj, context: Obj, path: str, errors: Errors) -> None:
    """The pod's. Fields of the spec beside it have a say, too: namespaces shared with the machine."""
    group = context.get("fsGroup")
    if group is not None:
        for complaint in is_valid_group_id(group):
            errors.append(invalid(f"{path}.fsGroup", group, complaint))
    _check_ids(context, path, errors)
    for index, gid in enumerate(context.get("supplementalGroups") or ()):
        for complaint in is_valid_group_id(gid):
            errors.append(invalid(f"{path}.supplementalGroups[{index}]", gid, complaint))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(f"{path}.shareProcessNamespace", True, detail))
    if context.get("sysctls"):
        _check_sysctls(spec, context["sysctls"], f"{path}.sysctls", errors)
    for field, supported in (
        ("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
        ("supplementalGroupsPolicy", ("Merge", "Strict")),
        ("seLinuxChangePolicy", ("MountOption", "Recursive")),
    ):
        if context.get(field) is not None:
            check_one_of(context[field], supported, f"{path}.{field}", errors)
    _check_seccomp(context.get("seccompProfile"), f"{path}.seccompProfile", errors)
    _check_windows(context.get("windowsOptions"), f"{path}.windowsOptions", errors)
    check_apparmor_profile(context.get("appArmorProfile"), f"{path}.appArmorProfile", errors)


def _check_sysctls(spec: Obj, sysctls: list[Obj], path: str, errors: Errors) -> None:
    seen = set()
    for index, sysctl in enumerate(sysctls):
        here = f"{path}[{index}].name"
        name = sysctl.get("name", "")
        if not name:
            errors.append(required(here))
        elif len(name) > _MAX_SYSCTL or not _is_sysctl(name):
            detail = f"must have at most {_MAX_SYSCTL} characters and match regex ^{_SYSCTL}$"
            errors.append(invalid(here, name, detail))
        elif name in seen:
            errors.append(duplicate(here, name))
        seen.add(name)
        dotted = _dotted(name)
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid(here, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            errors.append(invalid(here, name, "may not be specified when 'hostIPC' is true"))


def _dotted(sysctl: str) -> str:
    """A sysctl's name with dots; it may be written with slashes, in which case dots stand for slashes."""
    first = re.search(r"[./]", sysctl)
    if first is None or first[0] == ".":
        return sysctl
    return sysctl.translate(str.maketrans("./", "/."))


# Profiles


def _check_seccomp(profile: Obj | None, path: str, errors: Errors) -> None:
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        errors.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILE_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))
    if kind == "Localhost":
        if local is None:
            detail = "must be set when seccomp type is Localhost"
            errors.append(required(f"{path}.localhostProfile", detail))
        else:
            check_relative_path(local, f"{path}.localhostProfile", errors)
    elif local is not None:
        detail = "can only be set when seccomp type is Localhost"
        errors.append(invalid(f"{path}.localhostProfile", profile, detail))


def check_apparmor_profile(profile: Obj | None, path: str, errors: Errors) -> None:
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    here = f"{path}.localhostProfile"
    if kind == "Localhost":
        if local is None:
            errors.append(required(here, "must be set when AppArmor type is Localhost"))
            return
        if local.strip() != local:
            errors.append(invalid(here, local, "must not be padded with whitespace"))
        elif not local:
            errors.append(required(here, "must be set when AppArmor type is Localhost"))
        if len(local) > _MAX_PATH:
            errors.append(too_long(here, _MAX_PATH))
    elif kind in ("RuntimeDefault", "Unconfined"):
        if local is not None:
            errors.append(invalid(here, local, "can only be set when AppArmor type is Localhost"))
    elif not kind:
        errors.append(required(f"{path}.type", "type is required when appArmorProfile is set"))
    else:
        errors.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))


# Windows

_MAX_CREDENTIAL_SPEC_KIB = 64
_MAX_DOMAIN = 256
_MAX_USER = 104
_control_character = re.compile(r"[\x00-\x1f\x7f]").search
_net_bios = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}').fullmatch
_DNS_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_dns_domain = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*").fullmatch
_bad_user_character = re.compile(r'["/\\:;|=,+*?<>@\[\]]').search
_dots_and_spaces = re.compile(r"[. ]+").fullmatch


def _check_windows(options: Obj | None, path: str, errors: Errors) -> None:
    if options is None:
        return
    name = options.get("gmsaCredentialSpecName")
    if name is not None:
        check_rule(is_dns1123_subdomain, name, f"{path}.gmsaCredentialSpecName", errors)
    spec = options.get("gmsaCredentialSpec")
    if spec is not None:
        here = f"{path}.gmsaCredentialSpec"
        if not spec:
            errors.append(invalid(here, spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec) > _MAX_CREDENTIAL_SPEC_KIB * 1024:
            detail = f"gmsaCredentialSpec size must be under {_MAX_CREDENTIAL_SPEC_KIB} KiB"
            errors.append(invalid(here, spec, detail))
    user_name = options.get("runAsUserName")
    if user_name is not None:
        for complaint in _user_name_complaints(user_name):
            errors.append(invalid(f"{path}.runAsUserName", user_name, f"runAsUserName{complaint}"))


def _user_name_complaints(user_name: str) -> list[str]:
    if not user_name:
        return [" cannot be an empty string"]
    if _control_character(user_name):
        return [" cannot contain control characters"]
    if user_name.count("\\") > 1:
        return [" cannot contain more than one backslash"]
    domain, separator, user = user_name.rpartition("\\")
    complaints = []
    if len(domain) >= _MAX_DOMAIN:
        complaints.append(f"'s Domain length must be under {_MAX_DOMAIN} characters")
    if separator and not _net_bios(domain) and not _dns_domain(domain):
        complaints.append("'s Domain doesn't match the NetBios nor the DNS format")
    if not user:
        complaints.append("'s User cannot be empty")
    elif len(user) > _MAX_USER:
        complaints.append(f"'s User length must not be longer than {_MAX_USER} characters")
    if _dots_and_spaces(user):
        complaints.append("'s User cannot contain only periods or spaces")
    if _bad_user_character(user):
        complaints.append("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return complaints


def check_host_process(spec: Obj, containers: list[tuple[str, Obj]], path: str, errors: Errors) -> None:
    """Host process containers (Windows) come all together, on the machine's network."""

    def host_process(context: Obj | None) -> bool | None:
        return ((context or {}).get("windowsOptions") or {}).get("hostProcess")

    of_pod = host_process(spec.get("securityContext"))
    count = 0
    for here, container in containers:
        own = host_process(container.get("securityContext"))
        if of_pod is not None and own is not None and of_pod != own:
            shown = "true" if of_pod else "false"
            detail = f"pod hostProcess value must be identical if both are specified, was {shown}"
            errors.append(invalid(f"{here}.securityContext.windowsOptions.hostProcess", own, detail))
        count += bool(of_pod if own is None else own)
    if count == 0:
        return
    if count != len(containers):
        detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errors.append(invalid(path, "", detail))
    if not spec.get("hostNetwork"):
        detail = "hostNetwork must be true if pod contains any hostProcess containers"
        errors.append(invalid(f"{path}.hostNetwork", False, detail))


_NOT_ON_WINDOWS_POD = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
)
_NOT_ON_WINDOWS_SPEC = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_NOT_ON_WINDOWS_CONTAINER = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def check_operating_system(spec: Obj, containers: list[tuple[str, Obj]], path: str, errors: Errors) -> None:
    """Nothing is asked that the declared operating system does not have (KEP-2802)."""
    name = spec["os"].get("name")
    if not name:
        errors.append(required(f"{path}.os.name"))
    elif name not in ("linux", "windows"):
        errors.append(not_supported(f"{path}.os", name, ("linux", "windows")))
    contexts = [
        (f"{here}.securityContext", container["securityContext"])
        for here, container in containers
        if container.get("securityContext")
    ]
    of_pod = spec.get("securityContext") or {}
    if name == "linux":
        for here, context in [(f"{path}.securityContext", of_pod), *contexts]:
            if context.get("windowsOptions") is not None:
                detail = "windows options cannot be set for a linux pod"
                errors.append(forbidden(f"{here}.windowsOptions", detail))
    elif name == "windows":
        detail = "cannot be set for a windows pod"
        for field in _NOT_ON_WINDOWS_POD:
            if of_pod.get(field) not in (None, []):
                errors.append(forbidden(f"{path}.securityContext.{field}", detail))
        for field in _NOT_ON_WINDOWS_SPEC:
            value = spec.get(field)
            if value is not None and (value or field in ("hostUsers", "shareProcessNamespace")):
                errors.append(forbidden(f"{path}.{field}", detail))
        for here, context in contexts:
            for field in _NOT_ON_WINDOWS_CONTAINER:
                if context.get(field) is not None:
                    errors.append(forbidden(f"{here}.{field}", detail))
