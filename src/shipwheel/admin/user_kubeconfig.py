"""The kubeconfig of whoever is at the keyboard: a cluster's context goes in with `up` and out with `down`."""

from __future__ import annotations

import os
from pathlib import Path

from shipwheel.admin.layout import Layout, Settings, home, invoking_user
from shipwheel.client.kubeconfig import merge_into_file, read_file, remove_from_file


def publish(layout: Layout) -> None:
    """Merge the administrator's context into the user's kubeconfig, as kind does it."""
    path = user_file()
    merge_into_file(path, read_file(layout.kubeconfig("admin")))
    user = invoking_user()
    if user is not None:
        for each in (path.parent, path, layout.kubeconfig("admin")):
            os.chown(each, user.pw_uid, user.pw_gid)


def withdraw(settings: Settings) -> None:
    """Take it out again."""
    path = user_file()
    if path.exists():
        remove_from_file(path, settings.context)


def user_file() -> Path:
    """The file that the user's kubectl reads and writes: the first of `$KUBECONFIG`, or the usual one."""
    listed = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    return Path(listed[0]) if listed else home() / ".kube" / "config"
