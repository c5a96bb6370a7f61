"""Flow records as lines of text, whatever stands between the values, without a Python object per value."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from netprobe._core.app_flow cimport AppEntry, AppRows
from netprobe._core.app_flow import APP_COLUMNS
from netprobe._core.wire.text cimport IP_TEXT, ipv4_text, ipv6_text

cdef enum:
    KIND_ADDR = 0
    KIND_MAC = 1
    KIND_U8 = 2
    KIND_U16 = 3
    KIND_U32 = 4
    KIND_U64 = 5
    KIND_I64 = 6
    ADDR_BYTES = 16
    MAC_BYTES = 6
    VALUE_MAX = 64               # most bytes of a value in quotes
    KEY_MAX = 64                 # ... of a name with its marks
    APPS = 16
    SLOTS = 11                   # of an AppEntry: four texts, four numbers, three addresses
    TEXTS = 4
    NUMS = 4
    ADDRS = 3
    ESCAPED = 6                  # most bytes that one byte of a text becomes

KINDS = {"addr": (KIND_ADDR, ADDR_BYTES), "mac": (KIND_MAC, MAC_BYTES), "u1": (KIND_U8, 1), "u2": (KIND_U16, 2),
         "u4": (KIND_U32, 4), "u8": (KIND_U64, 8), "i8": (KIND_I64, 8)}
# the first slot of each kind, in the order of AppEntry.has
FIRST_SLOT = {"text": 0, "number": TEXTS, "address": TEXTS + NUMS}

cdef const char *HEX = b"0123456789abcdef"
# two digits at a time
cdef char PAIRS[200]
cdef int _i
for _i in range(100):
    PAIRS[2 * _i] = <char>(48 + _i // 10)
    PAIRS[2 * _i + 1] = <char>(48 + _i % 10)

cdef struct Key:
    uint32_t n
    char text[KEY_MAX]           # what stands before a value

cdef struct Escape:
    uint8_t n                    # 0: the byte itself
    char text[ESCAPED]

cdef struct Member:
    Key key
    int kind
    int has_absent
    int64_t absent
    const uint8_t *data


cdef inline uint8_t *put_number(uint8_t *out, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef uint32_t at = 20, pair
    if value < 10:
        out[0] = <uint8_t>(48 + value)
        return out + 1
    while value >= 100:
        pair = <uint32_t>(value % 100) * 2
        value //= 100
        at -= 2
        digits[at] = PAIRS[pair]
        digits[at + 1] = PAIRS[pair + 1]
    if value >= 10:
        at -= 2
        digits[at] = PAIRS[value * 2]
        digits[at + 1] = PAIRS[value * 2 + 1]
    else:
        at -= 1
        digits[at] = <char>(48 + value)
    memcpy(out, digits + at, 20 - at)
    return out + (20 - at)


cdef inline uint8_t *put_signed(uint8_t *out, int64_t value) noexcept nogil:
    if value < 0:
        out[0] = c'-'
        return put_number(out + 1, ~<uint64_t>value + 1)
    return put_number(out, <uint64_t>value)


cdef inline uint8_t *put_key(uint8_t *out, const Key *key) noexcept nogil:
    # a length that the compiler knows makes two moves of it; what is too much is overwritten
    if key.n <= 32:
        memcpy(out, key.text, 32)
    else:
        memcpy(out, key.text, KEY_MAX)
    return out + key.n


cdef inline uint8_t *put_mac(uint8_t *out, const uint8_t *mac) noexcept nogil:
    cdef int i
    out[0] = c'"'
    out += 1
    for i in range(MAC_BYTES):
        if i:
            out[0] = c':'
            out += 1
        out[0] = HEX[mac[i] >> 4]
        out[1] = HEX[mac[i] & 15]
        out += 2
    out[0] = c'"'
    return out + 1


cdef inline uint8_t *put_address(uint8_t *out, const uint8_t *addr, bint six) noexcept nogil:
    out[0] = c'"'
    out += 1
    out += ipv6_text(addr, out) if six else ipv4_text(addr, out)
    out[0] = c'"'
    return out + 1


cdef uint8_t *put_text(uint8_t *out, const uint8_t *text, uint32_t n, const Escape *escapes) noexcept nogil:
    cdef const Escape *e
    cdef uint32_t i
    out[0] = c'"'
    out += 1
    for i in range(n):
        e = &escapes[text[i]]
        if e.n == 0:
            out[0] = text[i]
            out += 1
        else:
            memcpy(out, e.text, ESCAPED)
            out += e.n
    out[0] = c'"'
    return out + 1


cdef int make_key(Key *key, bytes text) except -1:
    if len(text) > KEY_MAX:
        raise ValueError(text)
    key.n = <uint32_t>len(text)
    memcpy(key.text, <const char *>text, len(text))
    return 0


cdef class TextRows:
    """Renders columns of flow records as lines of text."""
    cdef Member *members
    cdef uint32_t n
    cdef list names
    cdef list sizes
    cdef Key keys[APPS][SLOTS]
    cdef Escape escapes[256]
    cdef Key absent
    cdef Key end
    cdef uint8_t *out
    cdef size_t room
    cdef size_t row_max          # most bytes of a row without application fields

    def __cinit__(self, columns, fields, *, bytes absent, bytes end, escapes):
        cdef uint32_t i
        self.n = <uint32_t>len(columns)
        self.members = <Member *>calloc(self.n + 1, sizeof(Member))
        if self.members == NULL:
            raise MemoryError
        self.names = []
        self.sizes = []
        for i, (name, before, kind, unknown) in enumerate(columns):
            if kind not in KINDS:
                raise ValueError(f"{name}: {kind}")
            self.members[i].kind, size = KINDS[kind]
            self.members[i].has_absent = unknown is not None
            self.members[i].absent = 0 if unknown is None else unknown
            make_key(&self.members[i].key, before)
            self.names.append(name)
            self.sizes.append(size)
        self.row_max = <size_t>self.n * (KEY_MAX + VALUE_MAX) + 2 * KEY_MAX
        for name, before in fields.items():
            kind, app, slot = APP_COLUMNS[name]
            make_key(&self.keys[<int>app][<int>FIRST_SLOT[kind] + <int>slot], before)
        make_key(&self.absent, absent)
        make_key(&self.end, end)
        for byte, text in escapes.items():
            if not 0 <= byte < 256 or not 0 < len(text) <= ESCAPED:
                raise ValueError(f"{byte}: {text}")
            self.escapes[<int>byte].n = <uint8_t>len(text)
            memcpy(self.escapes[<int>byte].text, <const char *><bytes>text, len(text))

    def __dealloc__(self):
        free(self.members)
        free(self.out)

    def render(self, Py_ssize_t rows, columns, AppRows apps=None):
        """One line per row, with what `apps` has for it behind the columns."""
        cdef Py_buffer *views = <Py_buffer *>calloc(self.n + 2, sizeof(Py_buffer))
        cdef uint32_t held = 0, i
        cdef const uint8_t *l3
        cdef size_t used = 0, at = 0, end = 0, wanted
        cdef const AppEntry *entry = NULL
        cdef Py_ssize_t row
        cdef int failed = 0
        if views == NULL:
            raise MemoryError
        try:
            for i in range(self.n + 1):
                name = self.names[i] if i < self.n else "l3"
                PyObject_GetBuffer(columns[name], &views[held], PyBUF_SIMPLE)
                held += 1
                if views[i].len < rows * <Py_ssize_t>(self.sizes[i] if i < self.n else 1):
                    raise ValueError(f"the column {name} has fewer than {rows} rows")
                if i < self.n:
                    self.members[i].data = <const uint8_t *>views[i].buf
            l3 = <const uint8_t *>views[self.n].buf
            if apps is not None:
                end = apps.used
            with nogil:
                for row in range(rows):
                    wanted = self.row_max
                    if at < end:
                        entry = <const AppEntry *>(apps.data + at)
                        if entry.row == row:
                            wanted += entry.size * ESCAPED + SLOTS * (KEY_MAX + VALUE_MAX)
                    if used + wanted > self.room and not self.grow(used + wanted):
                        failed = 1
                        break
                    used = self.put_row(used, row, l3[row] == 6)
                    if at < end and entry.row == row:
                        used = self.put_fields(used, entry)
                        at += entry.size
                    used = <size_t>(put_key(self.out + used, &self.end) - self.out)
            if failed:
                raise MemoryError
            return PyBytes_FromStringAndSize(<const char *>self.out, used)
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(views)

    cdef int grow(self, size_t wanted) noexcept nogil:
        cdef size_t room = self.room if self.room else 1 << 20
        cdef uint8_t *grown
        while room < wanted:
            room *= 2
        grown = <uint8_t *>realloc(self.out, room)
        if grown == NULL:
            return 0
        self.out = grown
        self.room = room
        return 1

    cdef size_t put_row(self, size_t used, Py_ssize_t row, bint six) noexcept nogil:
        cdef uint8_t *out = self.out + used
        cdef const Member *m
        cdef uint32_t i
        cdef uint64_t value
        for i in range(self.n):
            m = &self.members[i]
            out = put_key(out, &m.key)
            if m.kind == KIND_U8:
                value = m.data[row]
            elif m.kind == KIND_U32:
                value = (<const uint32_t *>m.data)[row]
            elif m.kind == KIND_U16:
                value = (<const uint16_t *>m.data)[row]
            elif m.kind == KIND_U64:
                value = (<const uint64_t *>m.data)[row]
            elif m.kind == KIND_I64:
                value = (<const uint64_t *>m.data)[row]
                if not m.has_absent or <int64_t>value != m.absent:
                    out = put_signed(out, <int64_t>value)
                    continue
            elif m.kind == KIND_ADDR:
                out = put_address(out, m.data + row * ADDR_BYTES, six)
                continue
            else:
                out = put_mac(out, m.data + row * MAC_BYTES)
                continue
            if m.has_absent and <int64_t>value == m.absent:
                out = put_key(out, &self.absent)
            else:
                out = put_number(out, value)
        return <size_t>(out - self.out)

    cdef size_t put_fields(self, size_t used, const AppEntry *e) noexcept nogil:
        cdef uint8_t *out = self.out + used
        cdef const uint8_t *text = <const uint8_t *>e + sizeof(AppEntry)
        cdef const Key *keys = &self.keys[e.app & (APPS - 1)][0]
        cdef uint32_t i
        for i in range(<uint32_t>SLOTS):
            if e.has >> i & 1 and keys[i].n:
                out = put_key(out, &keys[i])
                if i < TEXTS:
                    out = put_text(out, text, e.text_len[i], self.escapes)
                elif i < TEXTS + NUMS:
                    out = put_number(out, e.num[i - TEXTS])
                else:
                    out = put_address(out, &e.addr[i - TEXTS - NUMS][0], e.addr_len == ADDR_BYTES)
            if i < TEXTS and e.has >> i & 1:
                text += e.text_len[i]
        return <size_t>(out - self.out)
