"""A loopback Hugging Face Hub, as strict as the real one, that ``HF_ENDPOINT`` alone leads to; see ``server``."""

from skyset.testing.hub.server import HubServer

__all__ = ["HubServer"]
