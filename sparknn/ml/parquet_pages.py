"""Sum up what the pages of a parquet file claim to hold, before anything decodes them.

A reader allocates what the header of a page says; the file's footer may say something else. A
header is a struct of Thrift's compact protocol: https://github.com/apache/parquet-format.
"""

from __future__ import annotations

from typing import Any

# Fields of a PageHeader. The headers of all kinds of data pages and of dictionaries begin with the
# number of values.
_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8


def claimed(data: bytes, column: Any) -> tuple[int, int]:
    """Return how many values, and how many bytes, the pages of a column declare.

    Parameters
    ----------
    data : bytes
        The file.
    column : pyarrow.parquet.ColumnChunkMetaData

    Raises
    ------
    IndexError, KeyError, RecursionError, ValueError
        If there are no such pages.
    """
    at = column.data_page_offset
    if column.dictionary_page_offset:
        at = min(at, column.dictionary_page_offset)
    # Of a column without values, no page is read.
    end = at + column.total_compressed_size if column.num_values else at
    n_values = n_bytes = 0
    while at < end:
        header, at = _struct(data, at)
        found = [header[kind][1] for kind in (_DATA, _DICTIONARY, _DATA_V2) if kind in header]
        if min([header[_UNCOMPRESSED], header[_COMPRESSED], *found]) < 0:
            raise ValueError("a page of a negative size")
        n_values, n_bytes = n_values + sum(found), n_bytes + header[_UNCOMPRESSED]
        at += header[_COMPRESSED]
    return n_values, n_bytes


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct that are numbers or structs, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        step, kind = head >> 4, head & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        if kind in (4, 5, 6):  # integers of 16 to 64 bits
            fields[number], at = _integer(data, at)
        elif kind == 8:  # text
            length, at = _unsigned(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at)
        elif kind not in (1, 2):  # true and false
            raise ValueError(f"a page header with a field of type {kind}")
    return fields, at + 1


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
