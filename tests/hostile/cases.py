"""All cases with a name, whichever file declares them."""

from tests.hostile import contents  # noqa: F401
from tests.hostile import elsewhere  # noqa: F401
from tests.hostile import makes  # noqa: F401
from tests.hostile import rows_of_bytes  # noqa: F401
from tests.hostile import storage  # noqa: F401
from tests.hostile.structured import STRUCTURED

__all__ = ["STRUCTURED"]
