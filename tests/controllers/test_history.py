"""What revisions keep of their owners."""

from __future__ import annotations

import json

from shipwheel.controllers.history import data_of, template_of


def test_the_data_has_sorted_keys_as_go_writes_them() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}, "metadata": {"labels": {"b": "1", "a": "2"}}}
    data = data_of({"spec": {"template": template}})
    assert json.dumps(data) == json.dumps(data, sort_keys=True)
    assert data["spec"]["template"]["$patch"] == "replace"
    assert template_of({"data": data}) == template
