"""Text that a person wrote with any editor, and passwords as other programs read them."""

from __future__ import annotations

import codecs
import unicodedata

BOM = "\ufeff"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def text_of(raw: bytes) -> str:
    """UTF-8, or what a byte order mark at the beginning says: Windows' Notepad and PowerShell write
    one.

    The mark is no part of the text.

    Raises `UnicodeDecodeError`.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding)
    return raw.decode("utf-8")


def normalized(password: str) -> str:
    """The one form under which a new wallet is kept: NFKC, as ethers has it.

    The same letters typed on another system open it.
    """
    return unicodedata.normalize("NFKC", password)


def forms_of(password: str) -> tuple[str, ...]:
    """What may have been meant by a password, the likeliest first.

    Other programs (geth, web3) and earlier versions of this one took the password as it was typed,
    which on some systems is decomposed, and earlier versions took a byte order mark in a password
    file for a part of the password.
    """
    forms = [normalized(password), password]
    forms += [unicodedata.normalize(form, password) for form in ("NFC", "NFD")]
    forms.append(BOM + password)
    return tuple(dict.fromkeys(forms))
