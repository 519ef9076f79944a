"""All cases with a name, whichever file declares them."""

from tests.hostile import (
    contents,  # noqa: F401
    elsewhere,  # noqa: F401
    makes,  # noqa: F401
    rows_of_bytes,  # noqa: F401
    storage,  # noqa: F401
)
from tests.hostile.structured import STRUCTURED

__all__ = ["STRUCTURED"]
