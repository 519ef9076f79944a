"""Tests talk to a loopback Hub in their own process as others do by ``HF_ENDPOINT``, which is read at the import."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from skyset.testing.hub import HubServer

TOKEN = "hf_alice0123456789"


def environment(hub: HubServer, home: object, token: str = TOKEN) -> dict[str, str]:
    """For a process that talks to the Hub as a user does, with a cache of its own."""
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    own = {"HF_ENDPOINT": hub.host, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {**inherited, **own, "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextlib.contextmanager
def talking_to(hub: HubServer, token: str = TOKEN) -> Iterator[None]:
    """The block's calls of ``huggingface_hub`` go to this Hub, with this token."""
    with pytest.MonkeyPatch.context() as patch:
        where = "huggingface_hub.constants"
        patch.setattr(f"{where}.ENDPOINT", hub.host)
        patch.setattr(f"{where}.HUGGINGFACE_CO_URL_TEMPLATE", hub.host + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(f"{where}.HF_HUB_OFFLINE", False)
        patch.setattr(f"{where}.HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", token)
        yield
