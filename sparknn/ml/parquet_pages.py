"""Sum up what a parquet file declares that it holds, before anything decodes it.

A reader allocates what the headers of pages say; the footer may say something else. Both are
structs of Thrift's compact protocol: https://github.com/apache/parquet-format. They are parsed
here because pyarrow ends the process at some damaged footers when asked for a column's metadata.
"""

from __future__ import annotations

from typing import Any

# Ids of fields.
_ROW_GROUPS, _COLUMNS, _METADATA = 4, 1, 3
_N_VALUES, _SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 5, 7, 9, 11
_UNCOMPRESSED, _COMPRESSED = 2, 3
# The headers of data pages, dictionaries and newer data pages: each has the number of values first.
_PAGES = (5, 7, 8)
# Bytes of values of a fixed size: of a field, true and false have none.
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}


def declared(data: bytes) -> tuple[int, int]:
    """Return how many values, and how many bytes, all pages of a file declare.

    Raises
    ------
    IndexError, KeyError, RecursionError, TypeError, ValueError
        If it is damaged, or no parquet file.
    """
    if len(data) < 12 or data[-4:] != b"PAR1":
        raise ValueError("a file that is not parquet, or was truncated")
    footer, _ = _struct(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    n_values = n_bytes = 0
    for group in footer[_ROW_GROUPS]:
        for column in group[_COLUMNS]:
            found = _of_column(data, column[_METADATA])
            n_values, n_bytes = n_values + found[0], n_bytes + found[1]
    return n_values, n_bytes


def _of_column(data: bytes, column: dict[int, Any]) -> tuple[int, int]:
    at = min(column[_DATA_OFFSET], column.get(_DICTIONARY_OFFSET) or column[_DATA_OFFSET])
    # Of a column without values, no page is read.
    end = at + column[_SIZE] if column[_N_VALUES] else at
    n_values = n_bytes = 0
    while at < end:
        header, at = _struct(data, at)
        found = [header[kind][1] for kind in _PAGES if kind in header]
        if min([header[_UNCOMPRESSED], header[_COMPRESSED], *found]) < 0:
            raise ValueError("a page of a negative size")
        n_values, n_bytes = n_values + sum(found), n_bytes + header[_UNCOMPRESSED]
        at += header[_COMPRESSED]
    return n_values, n_bytes


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct, and where it ends."""
    if at < 0:
        raise ValueError("a place before the file's start")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        if number in fields:
            raise ValueError(f"field {number} twice")
        fields[number], at = _value(data, at, head & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    """Return a value that is a number, a struct or a list, or None, and where it ends."""
    if kind in _FIXED:
        return None, at + _FIXED[kind]
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 8:  # text
        size, at = _unsigned(data, at)
        return None, at + size
    if kind == 12:
        return _struct(data, at)
    if kind != 9:
        raise ValueError(f"a value of type {kind}")
    size, kind, at = data[at] >> 4, data[at] & 15, at + 1
    if size == 15:
        size, at = _unsigned(data, at)
    values = []
    for _ in range(size):
        # In lists, true and false have a byte.
        value, at = (None, at + 1) if kind in (1, 2) else _value(data, at, kind)
        values.append(value)
        if at > len(data):
            raise ValueError("a list that does not end")
    return values, at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")
