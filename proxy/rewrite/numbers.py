"""Telephone numbers: the international form of E.164, and masks."""

from __future__ import annotations

from typing import Final

__all__ = ["DialPlan", "mask"]

_SEPARATORS: Final = str.maketrans("", "", " -.()/")
_MIN_DIGITS: Final = 7
_MAX_DIGITS: Final = 15


class DialPlan:
    """How numbers are written in one country.

    Attributes:
        country: the country code, such as "1" or "49".
        international: what is dialed before a country code, such as "011" or "00".
        trunk: what is dialed before an area code, such as "0"; "" for none.
        national_digits: how many digits a national number has without the trunk prefix; 0 for any.
    """

    __slots__ = ("country", "international", "national_digits", "trunk")

    def __init__(
        self, country: str, international: str | None = None, trunk: str | None = None, national_digits: int = 0
    ) -> None:
        north_america = country == "1"
        self.country = country
        self.international = international or ("011" if north_america else "00")
        self.trunk = trunk if trunk is not None else ("" if north_america else "0")
        self.national_digits = national_digits or (10 if north_america else 0)

    def e164(self, text: str) -> str | None:
        """A number as `+` and digits (RFC 3966 global number); None for what is no telephone number.

        Visual separators go. Emergency and service numbers (fewer than 7 digits) are none and stay as they are.
        """
        number = text.translate(_SEPARATORS)
        if not number.isascii():
            return None
        if number.startswith("+"):
            digits = number[1:]
            return number if digits.isdigit() and _MIN_DIGITS <= len(digits) <= _MAX_DIGITS else None
        if not number.isdigit():
            return None
        if number.startswith(self.international):
            digits = number[len(self.international) :]
        elif self.trunk and number.startswith(self.trunk):
            digits = self.country + number[len(self.trunk) :]
        elif self.national_digits and len(number) == self.national_digits:
            digits = self.country + number
        elif number.startswith(self.country) and (
            not self.national_digits or len(number) == len(self.country) + self.national_digits
        ):
            digits = number
        else:
            return None
        return f"+{digits}" if _MIN_DIGITS <= len(digits) <= _MAX_DIGITS else None


def mask(text: str, keep: int) -> str:
    """All letters and digits but the last `keep` characters as `*`; a short text is masked whole."""
    if len(text) <= keep:
        keep = 0
    head = "".join(["*" if char.isalnum() else char for char in text[: len(text) - keep]])
    return head + text[len(text) - keep :]
