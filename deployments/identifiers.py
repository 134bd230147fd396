"""Identifiers that nobody can guess, for a tenth of the price of one call to the operating system each."""

from secrets import token_hex

_DIGITS = 32
_AT_ONCE = 256


class Identifiers:
    """Calls give 128 random bits of the operating system in hexadecimal digits; thread-safe."""

    def __init__(self) -> None:
        self._left: list[str] = []

    def __call__(self) -> str:
        try:
            return self._left.pop()
        except IndexError:
            digits = token_hex(_DIGITS * _AT_ONCE // 2)
            left = [digits[i : i + _DIGITS] for i in range(0, len(digits), _DIGITS)]
            identifier = left.pop()
            self._left = left
            return identifier


new_identifier = Identifiers()
