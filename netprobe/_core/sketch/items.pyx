"""Arrays of anything that exports a buffer, read item by item."""
from cpython.buffer cimport (
    PyBUF_RECORDS_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer)
from libc.string cimport memcpy


cdef bint is_array(object value):
    return PyObject_CheckBuffer(value) and not isinstance(value, (bytes, bytearray))


cdef object unwrap(object value):
    """What stands behind a column of pandas, polars and the like: its array; anything else as it is."""
    if isinstance(value, (int, float, str, bytes)) or PyObject_CheckBuffer(value):
        return value
    array = getattr(value, "__array__", None)
    return value if array is None else array()


cdef list objects_of(object value):
    # columns of text are such arrays in pandas, and in chunks of flows
    if getattr(getattr(value, "dtype", None), "char", None) != "O":
        return None
    return value.ravel().tolist()


cdef bint is_missing(object item):
    if isinstance(item, float):
        return item != item
    return item is None or type(item).__name__ == "NAType"


cdef int classify(Items *items, str text) except -1:
    cdef str form = text.lstrip("@=<")
    if text[:1] in (">", "!") and items.size > 1 and not text.endswith("s"):
        raise TypeError("an array in the other byte order: convert it with .astype(dtype.newbyteorder('='))")
    if form.lstrip("0123456789") == "s":
        items.kind = c's'
    elif form.lstrip("0123456789") == "w":
        items.kind = c'w'
    elif form in ("b", "h", "i", "l", "q", "n"):
        items.kind = c'i'
    elif form in ("B", "H", "I", "L", "Q", "N", "?"):
        items.kind = c'u'
    elif form in ("f", "d"):
        items.kind = c'f'
    else:
        raise TypeError(f"cannot count items of array format {text!r}")
    return 0


cdef int open_items(Items *items, object value) except -1:
    PyObject_GetBuffer(value, &items.view, PyBUF_RECORDS_RO)
    try:
        items.size = items.view.itemsize
        classify(items, (<bytes>items.view.format).decode() if items.view.format != NULL else "B")
        items.base = <const uint8_t *>items.view.buf
        if items.view.ndim == 1:
            items.n = items.view.shape[0]
            items.stride = items.view.strides[0]
        elif PyBuffer_IsContiguous(&items.view, b"C"):
            items.n = items.view.len // items.view.itemsize if items.view.itemsize else 0
            items.stride = items.view.itemsize
        else:
            raise TypeError("an array of several dimensions must be contiguous")
    except BaseException:
        PyBuffer_Release(&items.view)
        raise
    return 0


cdef int open_numbers(Items *items, object value) except -1:
    open_items(items, value)
    if items.kind in (c's', c'w'):
        close_items(items)
        raise TypeError("values are numbers, not text")
    return 0


cdef void close_items(Items *items):
    PyBuffer_Release(&items.view)


cdef Py_ssize_t write_int(int64_t value, bint is_signed, uint8_t *out) noexcept nogil:
    cdef uint8_t digits[24]
    cdef uint64_t left = <uint64_t>value
    cdef Py_ssize_t at = 24
    if is_signed and value < 0:
        left = 0 - left
    while True:
        at -= 1
        digits[at] = <uint8_t>(48 + left % 10)
        left //= 10
        if left == 0:
            break
    if is_signed and value < 0:
        at -= 1
        digits[at] = c'-'
    memcpy(out, digits + at, 24 - at)
    return 24 - at


cdef Py_ssize_t item_text(const Items *items, Py_ssize_t i, uint8_t *room) noexcept nogil:
    cdef const uint8_t *p = item_at(items, i)
    cdef Py_ssize_t n = items.size
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t j
    cdef uint32_t c
    if items.kind == c's':
        while n > 0 and p[n - 1] == 0:
            n -= 1
        for j in range(n):
            if p[j] >= 0x80:
                return -1
        memcpy(room, p, n)
        return n
    if items.kind != c'w':
        return write_int(item_int(items, i), items.kind == c'i', room)
    n >>= 2
    while n > 0:
        memcpy(&c, p + 4 * (n - 1), 4)
        if c != 0:
            break
        n -= 1
    for j in range(n):
        memcpy(&c, p + 4 * j, 4)
        if c > 0x10FFFF or 0xD800 <= c < 0xE000:
            c = 0xFFFD               # not a character: no UTF-8 exists for it
        if c < 0x80:
            room[at] = <uint8_t>c
            at += 1
        elif c < 0x800:
            room[at] = <uint8_t>(0xC0 | c >> 6)
            room[at + 1] = <uint8_t>(0x80 | c & 63)
            at += 2
        elif c < 0x10000:
            room[at] = <uint8_t>(0xE0 | c >> 12)
            room[at + 1] = <uint8_t>(0x80 | c >> 6 & 63)
            room[at + 2] = <uint8_t>(0x80 | c & 63)
            at += 3
        else:
            room[at] = <uint8_t>(0xF0 | c >> 18)
            room[at + 1] = <uint8_t>(0x80 | c >> 12 & 63)
            room[at + 2] = <uint8_t>(0x80 | c >> 6 & 63)
            room[at + 3] = <uint8_t>(0x80 | c & 63)
            at += 4
    return at
