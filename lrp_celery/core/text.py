"""Text that every database accepts: bounded, without NUL and lone surrogates."""

from __future__ import annotations

ELLIPSIS = "…"


def clean(text: str, limit: int | None = None) -> str:
    """Return `text` without NUL and lone surrogates, cut to `limit` characters.

    A cut text ends with an ellipsis, which counts. PostgreSQL refuses NUL, and no driver
    can encode a lone surrogate, so a text that is not cleaned may cost the whole row.
    """
    # ASCII has no surrogates, and most texts are that.
    cleaned = text.replace("\x00", "")
    if not cleaned.isascii():
        cleaned = cleaned.encode("utf-8", "ignore").decode("utf-8")
    if limit is None or len(cleaned) <= limit:
        return cleaned
    return cleaned[: limit - 1] + ELLIPSIS


def clean_tail(text: str, limit: int) -> str:
    """Like `clean`, but keep the end of the text: of a traceback the last lines matter most."""
    cleaned = clean(text)
    if len(cleaned) <= limit:
        return cleaned
    return ELLIPSIS + cleaned[1 - limit :]


def bounded(text: str | None, limit: int) -> str | None:
    """Like `clean`, but None stays None."""
    return None if text is None else clean(text, limit)


def dotted_name(kind: type) -> str:
    """Return where a class is found; builtins by their bare name."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
