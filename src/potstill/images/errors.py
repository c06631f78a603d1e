"""Why a file is not a usable photo."""

from potstill.errors import DataError


class BadPhotoError(DataError):
    """This file is not a usable photo. `code` is a short stable word for tables."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
