"""Tests talk to a loopback Hub in their own process as others do by ``HF_ENDPOINT``, which is read at the import."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyset.testing.hub import HubServer

TOKEN = "hf_alice0123456789"


def environment(hub: HubServer, home: object, token: str = TOKEN, xet: bool = False) -> dict[str, str]:
    """For a process that talks to the Hub as a user does, with a cache of its own, by LFS or by Xet."""
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    own = {"HF_ENDPOINT": hub.host, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": str(int(not xet))}
    return {**inherited, **own, "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextlib.contextmanager
def talking_to(hub: HubServer, token: str = TOKEN, xet: Path | None = None) -> Iterator[None]:
    """The block's calls of ``huggingface_hub`` go to this Hub, with this token: by LFS, or by Xet with this cache."""
    with pytest.MonkeyPatch.context() as patch:
        where = "huggingface_hub.constants"
        patch.setattr(f"{where}.ENDPOINT", hub.host)
        patch.setattr(f"{where}.HUGGINGFACE_CO_URL_TEMPLATE", hub.host + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(f"{where}.HF_HUB_OFFLINE", False)
        patch.setattr(f"{where}.HF_HUB_DISABLE_XET", xet is None)
        patch.setenv("HF_TOKEN", token)
        if xet is not None:
            patch.setenv("HF_XET_CACHE", str(xet))
            patch.setattr("huggingface_hub.utils._xet._GLOBAL_XET_HOLDER._session", None)
        yield
