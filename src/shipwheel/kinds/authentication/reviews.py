"""Who is it? TokenReview asks about a token, SelfSubjectReview about oneself."""

from __future__ import annotations

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError, bad_request
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Call, Resource, Server, UserInfo
from shipwheel.kinds.declare import older, served

_GROUP = "authentication.k8s.io"


def user_to_json(user: UserInfo) -> Obj:
    """A user as reviews show it."""
    info: Obj = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


async def _review_token(server: Server, call: Call) -> Obj:
    review = dict(call.body or {})
    spec = review.get("spec") or {}
    if not spec.get("token"):
        raise bad_request("token is required for TokenReview in authentication")
    wanted = spec.get("audiences") or list(server.means("audiences"))
    user, audiences, error = await server.authenticate_token(spec["token"], wanted)
    status: Obj = {"user": {}}
    if user is not None:
        if not set(wanted) & set(audiences):
            raise ApiError(500, "InternalError", "Internal error occurred: error validating audiences")
        status = {"authenticated": True, "user": user_to_json(user), "audiences": list(audiences)}
    if error:
        status["error"] = error
    review["status"] = status
    return review


async def _review_self(server: Server, call: Call) -> Obj:
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": str(call.version.group_version),
        "metadata": {"creationTimestamp": rfc3339(server.clock.now())},
        "status": {"userInfo": user_to_json(call.user)},
    }


RESOURCES = (
    Resource(
        kind="TokenReview",
        plural="tokenreviews",
        singular="tokenreview",
        namespaced=False,
        versions=(
            served(_GROUP, "v1", "TokenReview"),
            older(_GROUP, "v1beta1", "TokenReview", since="1.19", until="1.22", replacement=f"{_GROUP}/v1"),
        ),
        verbs=("create",),
        call=_review_token,
    ),
    Resource(
        kind="SelfSubjectReview",
        plural="selfsubjectreviews",
        singular="selfsubjectreview",
        namespaced=False,
        versions=(served(_GROUP, "v1", "SelfSubjectReview"),),
        verbs=("create",),
        call=_review_self,
    ),
)
