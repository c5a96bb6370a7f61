"""Arrays of anything that exports a buffer (numpy, array, memoryview), item by item without Python objects."""
from cpython.buffer cimport Py_buffer
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef struct Items:
    Py_buffer view
    int kind                 # 'i' signed, 'u' unsigned and bool, 'f' floating, 's' bytes, 'w' UCS-4 text
    size_t size              # bytes per item
    Py_ssize_t n
    Py_ssize_t stride
    const uint8_t *base

cdef bint is_array(object value)                       # a buffer that is not one item by itself
cdef object unwrap(object value)                       # the array behind a column of pandas and the like
cdef list objects_of(object value)                     # the items of an array of Python objects; None: of another kind
cdef bint is_missing(object item)                      # None, NaN, pandas.NA
cdef int open_items(Items *items, object value) except -1   # TypeError for formats that are not in the list
cdef int open_numbers(Items *items, object value) except -1 # of kinds i, u and f only, TypeError for others
cdef void close_items(Items *items)
# the text of item i: UTF-8, numpy's padding removed; `room` has 2 * size + 24 bytes. -1: bytes that are not ASCII
cdef Py_ssize_t item_text(const Items *items, Py_ssize_t i, uint8_t *room) noexcept nogil

cdef inline const uint8_t *item_at(const Items *items, Py_ssize_t i) noexcept nogil:
    return items.base + i * items.stride

cdef inline int64_t item_int(const Items *items, Py_ssize_t i) noexcept nogil:
    """Of kinds i and u; a uint64 keeps its bits."""
    cdef const uint8_t *p = item_at(items, i)
    cdef int16_t v16
    cdef int32_t v32
    cdef int64_t v64
    if items.size == 8:
        memcpy(&v64, p, 8)
        return v64
    if items.size == 4:
        memcpy(&v32, p, 4)
        return v32 if items.kind == c'i' else <int64_t><uint32_t>v32
    if items.size == 2:
        memcpy(&v16, p, 2)
        return v16 if items.kind == c'i' else <int64_t><uint16_t>v16
    return <int64_t><int8_t>p[0] if items.kind == c'i' else <int64_t>p[0]

cdef inline double item_double(const Items *items, Py_ssize_t i) noexcept nogil:
    """Of kinds i, u and f."""
    cdef double d
    cdef float f
    if items.kind == c'f':
        if items.size == 8:
            memcpy(&d, item_at(items, i), 8)
            return d
        memcpy(&f, item_at(items, i), 4)
        return f
    if items.kind == c'u':
        return <double><uint64_t>item_int(items, i)
    return <double>item_int(items, i)
