"""Columns as an Arrow stream of one record batch, without any Arrow library.

The C data and stream interfaces (https://arrow.apache.org/docs/format/CDataInterface.html), handed over in a capsule
as the Arrow PyCapsule interface has it. Nothing is copied: the exported arrays keep the columns' memory alive.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free

cdef enum:
    FLAG_NULLABLE = 2
    NO_MEMORY = 12               # ENOMEM

cdef struct ArrowSchema:
    const char *format
    const char *name
    const char *metadata
    int64_t flags
    int64_t n_children
    ArrowSchema **children
    ArrowSchema *dictionary
    void (*release)(ArrowSchema *) noexcept
    void *private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void **buffers
    ArrowArray **children
    ArrowArray *dictionary
    void (*release)(ArrowArray *) noexcept
    void *private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept
    int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept
    const char *(*get_last_error)(ArrowArrayStream *) noexcept
    void (*release)(ArrowArrayStream *) noexcept
    void *private_data


cdef class Table:
    """What an export keeps alive: names, formats, and the memory of the columns."""
    cdef int64_t rows
    cdef int done                # the one batch has been handed out
    cdef list names              # bytes
    cdef list formats            # bytes
    cdef list data               # addresses
    cdef list valid              # addresses of validity bitmaps, 0 where nothing is null
    cdef list nullable           # may be null, in whichever batch
    cdef list nulls              # how many; -1 unknown
    cdef list offsets            # addresses of int32 offsets of texts, 0 for other types
    cdef object keep

    def __init__(self, columns, int64_t rows, keep):
        self.rows = rows
        self.names = [c[0].encode() for c in columns]
        self.formats = [c[1].encode() for c in columns]
        self.data = [c[2] for c in columns]
        self.valid = [c[3] or 0 for c in columns]
        self.nullable = [c[3] is not None for c in columns]
        self.nulls = [c[4] for c in columns]
        self.offsets = [c[5] if len(c) > 5 else 0 for c in columns]
        self.keep = keep


cdef inline void hold(void **place, object thing):
    Py_INCREF(thing)
    place[0] = <void *>thing


cdef inline void let_go(void **place):
    cdef object thing
    if place[0] != NULL:
        thing = <object>place[0]
        place[0] = NULL
        Py_DECREF(thing)


cdef void release_schema(ArrowSchema *s) noexcept with gil:
    cdef int64_t i
    for i in range(s.n_children):
        if s.children[i] != NULL:
            if s.children[i].release != NULL:
                s.children[i].release(s.children[i])
            free(s.children[i])
    free(s.children)
    let_go(&s.private_data)
    s.release = NULL


cdef void release_array(ArrowArray *a) noexcept with gil:
    cdef int64_t i
    for i in range(a.n_children):
        if a.children[i] != NULL:
            if a.children[i].release != NULL:
                a.children[i].release(a.children[i])
            free(a.children[i])
    free(a.children)
    free(a.buffers)
    let_go(&a.private_data)
    a.release = NULL


cdef int fill_schema(Table t, ArrowSchema *out) except -1:
    cdef int64_t i, n = len(t.names)
    cdef ArrowSchema *child
    out.format = b"+s"
    out.name = b""
    out.metadata = NULL
    out.flags = 0
    out.n_children = 0
    out.dictionary = NULL
    out.private_data = NULL
    out.children = <ArrowSchema **>calloc(n + 1, sizeof(ArrowSchema *))
    if out.children == NULL:
        raise MemoryError
    out.release = release_schema
    hold(&out.private_data, t)
    for i in range(n):
        child = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if child == NULL:
            release_schema(out)
            raise MemoryError
        out.children[i] = child
        out.n_children = i + 1
        child.format = <bytes>t.formats[i]
        child.name = <bytes>t.names[i]
        child.flags = FLAG_NULLABLE if t.nullable[i] else 0
        child.release = release_schema
        hold(&child.private_data, t)
    return 0


cdef int fill_array(Table t, ArrowArray *out) except -1:
    cdef int64_t i, n = len(t.names)
    cdef ArrowArray *child
    out.length = t.rows
    out.null_count = 0
    out.offset = 0
    out.n_buffers = 1
    out.n_children = 0
    out.dictionary = NULL
    out.private_data = NULL
    out.buffers = <const void **>calloc(1, sizeof(void *))
    out.children = <ArrowArray **>calloc(n + 1, sizeof(ArrowArray *))
    if out.children == NULL or out.buffers == NULL:
        free(out.children)
        free(out.buffers)
        raise MemoryError
    out.release = release_array
    hold(&out.private_data, t)
    for i in range(n):
        child = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if child != NULL:
            child.buffers = <const void **>calloc(3, sizeof(void *))
        if child == NULL or child.buffers == NULL:
            free(child)
            release_array(out)
            raise MemoryError
        out.children[i] = child
        out.n_children = i + 1
        child.length = t.rows
        child.null_count = t.nulls[i]
        child.n_buffers = 2
        child.buffers[0] = <const void *><uintptr_t>t.valid[i]
        child.buffers[1] = <const void *><uintptr_t>t.data[i]
        if t.offsets[i]:
            child.n_buffers = 3
            child.buffers[1] = <const void *><uintptr_t>t.offsets[i]
            child.buffers[2] = <const void *><uintptr_t>t.data[i]
        child.release = release_array
        hold(&child.private_data, t)
    return 0


cdef int get_schema(ArrowArrayStream *s, ArrowSchema *out) noexcept with gil:
    try:
        fill_schema(<Table>s.private_data, out)
    except MemoryError:
        return NO_MEMORY
    return 0


cdef int get_next(ArrowArrayStream *s, ArrowArray *out) noexcept with gil:
    cdef Table t = <Table>s.private_data
    if t.done:
        out.release = NULL           # the end
        return 0
    try:
        fill_array(t, out)
    except MemoryError:
        return NO_MEMORY
    t.done = 1
    return 0


cdef const char *get_last_error(ArrowArrayStream *s) noexcept:
    return NULL


cdef void release_stream(ArrowArrayStream *s) noexcept with gil:
    let_go(&s.private_data)
    s.release = NULL


cdef void forget_capsule(object capsule) noexcept:
    # a consumer that took the stream has set its release to NULL
    cdef ArrowArrayStream *s = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if s.release != NULL:
        s.release(s)
    free(s)


def stream_capsule(columns, rows, keep):
    """A capsule "arrow_array_stream" of one batch.

    columns: (name, Arrow format, address of the values, address of the validity bitmap, nulls), and for texts ("u")
    the address of their int32 offsets. The bitmap is 0 where nothing is null, None in columns that never have nulls:
    all batches of a run must have one schema. keep: whatever owns that memory.
    """
    cdef ArrowArrayStream *s = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
    if s == NULL:
        raise MemoryError
    try:
        table = Table(columns, rows, keep)
    except BaseException:
        free(s)
        raise
    s.get_schema = get_schema
    s.get_next = get_next
    s.get_last_error = get_last_error
    s.release = release_stream
    hold(&s.private_data, table)
    return PyCapsule_New(s, "arrow_array_stream", forget_capsule)
