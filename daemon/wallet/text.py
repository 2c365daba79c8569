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
    """Decode UTF-8, or the encoding that a byte order mark names.

    Windows' Notepad and PowerShell write such a mark. It is not part of the text. Raises
    `UnicodeDecodeError`.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding)
    return raw.decode("utf-8")


def normalized(password: str) -> str:
    """Return a password in the form that new wallets use: NFKC, as in ethers.

    So the same letters typed on another system open the wallet.
    """
    return unicodedata.normalize("NFKC", password)


def forms_of(password: str) -> tuple[str, ...]:
    """Return the forms of a password that may open a wallet, the likeliest first.

    geth, web3 and earlier versions of this program use a password as it is typed, which on some
    systems is decomposed. Earlier versions also included a password file's byte order mark.
    """
    forms = [normalized(password), password]
    forms += [unicodedata.normalize(form, password) for form in ("NFC", "NFD")]
    forms.append(BOM + password)
    return tuple(dict.fromkeys(forms))
