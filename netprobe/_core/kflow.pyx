"""kflow messages: columns of flow records in, one packed Cap'n Proto message out.

The layout is that of netprobe/kentik/kflow.capnp (kflow-wire.md, section 3), which a test compares with the
constants here. Structs are built in a scratch area and packed at once, so that a message needs memory for its
packed form only, about a quarter of the plain one.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)

# struct CHF: 29 words of data, then 14 pointers (kflow-wire.md 3.2)
cdef enum:
    CHF_DATA = 29
    CHF_POINTERS = 14
    CHF_WORDS = CHF_DATA + CHF_POINTERS
    PTR_V6_DST = 7
    PTR_V6_SRC = 8
    PTR_CUSTOM = 9
    AT_IPV4_DST = 48
    AT_IPV4_SRC = 52
    AT_SAMPLE_RATE = 132
    AT_DEVICE_ID = 136
    AT_FLAGS = 172           # bits 1376 ff.
    FLAG_SAMPLE_ADJ = 2      # bit 1377
    AT_APP_PROTOCOL = 224
    # struct Custom: 3 words of data, 1 pointer (3.3)
    CUSTOM_WORDS = 4
    TAG_UINT32 = 0
    TAG_TEXT = 2
    TAG_ADDRESS = 4
    # framing and root: struct pointer, list pointer, list tag
    HEAD_WORDS = 3
    TEXT_MAX = 384           # bytes, without the NUL that is added
    TEXT_WORDS = 49
    ADDRESS_BYTES = 17       # family, then 16
    ADDRESS_WORDS = 3
    V6_WORDS = 2
    ABSENT = 0xffffffff

cdef uint64_t U32_MAX = 0xffffffff
cdef uint64_t MAX_WORDS = (<uint64_t>1 << 29) - 1   # what a list pointer can express

# column -> (byte in the data section, bytes)
COLUMNS = {
    "in_bytes": (24, 8),
    "in_pkts": (32, 8),
    "input_port": (40, 4),
    "dport": (56, 4),
    "sport": (60, 4),
    "output_port": (64, 4),
    "proto": (68, 4),
    "tcp_flags": (88, 4),
    "tos": (92, 4),
    "vlan_in": (96, 4),
    "vlan_out": (100, 4),
    "out_bytes": (112, 8),
    "out_pkts": (120, 8),
    "src_mac": (208, 8),
    "dst_mac": (216, 8),
}
# what is computed from a column instead of being copied
DERIVED = {
    "src": (AT_IPV4_SRC, 4),
    "dst": (AT_IPV4_DST, 4),
    "sample_rate": (AT_SAMPLE_RATE, 4),
    "app_protocol": (AT_APP_PROTOCOL, 4),
}
KINDS = {"u32": TAG_UINT32, "text": TAG_TEXT, "addr": TAG_ADDRESS}


cdef struct Column:
    const uint8_t *data
    uint32_t size          # bytes per value
    uint32_t at            # byte in the data section
    uint32_t width         # 4 or 8

cdef struct Custom:
    const uint8_t *data    # numbers, or the bytes of all values
    const uint8_t *offsets # NULL for numbers; count + 1 otherwise
    const uint8_t *present # one byte per record; NULL: every record has a value
    uint32_t size          # bytes per number, or per offset
    uint32_t id
    uint32_t tag
    bint skip_zero

cdef struct Out:
    uint8_t *data
    size_t used
    size_t room
    bint failed


cdef inline uint64_t number(const uint8_t *data, uint32_t size, size_t row) noexcept nogil:
    if size == 4:
        return (<const uint32_t *>data)[row]
    if size == 8:
        return (<const uint64_t *>data)[row]
    if size == 2:
        return (<const uint16_t *>data)[row]
    return data[row]


cdef inline uint32_t short_number(const uint8_t *data, uint32_t size, size_t row) noexcept nogil:
    cdef uint64_t value = number(data, size, row)
    return <uint32_t>(U32_MAX if value > U32_MAX else value)


cdef inline uint32_t big_endian(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint64_t list_pointer(int64_t offset, uint32_t kind, uint64_t count) noexcept nogil:
    return 1 | (<uint64_t>offset & 0x3fffffff) << 2 | <uint64_t>kind << 32 | count << 35


cdef inline uint64_t struct_pointer(uint64_t offset, uint64_t words, uint64_t pointers) noexcept nogil:
    return offset << 2 | words << 32 | pointers << 48


cdef inline bint has_zero_byte(uint64_t w) noexcept nogil:
    return ((w - <uint64_t>0x0101010101010101) & ~w & <uint64_t>0x8080808080808080) != 0


cdef void emit(Out *out, const uint64_t *words, size_t n) noexcept nogil:
    """Append words in packed form; runs end where the call ends."""
    cdef size_t i = 0, run
    cdef size_t need = out.used + 10 * n + 16   # a full word: tag, 8 bytes, count
    cdef uint64_t w
    cdef uint8_t *p
    cdef uint8_t *tag
    cdef uint8_t b
    cdef int k
    if out.failed:
        return
    if need > out.room:
        need += need >> 1
        p = <uint8_t *>realloc(out.data, need)
        if p == NULL:
            out.failed = True
            return
        out.data = p
        out.room = need
    p = out.data + out.used
    while i < n:
        w = words[i]
        i += 1
        run = 0
        if w == 0:
            while i < n and run < 255 and words[i] == 0:
                run += 1
                i += 1
            p[0] = 0
            p[1] = <uint8_t>run
            p += 2
            continue
        tag = p
        p += 1
        tag[0] = 0
        for k in range(8):
            b = <uint8_t>(w >> (8 * k))
            p[0] = b
            p += b != 0
            tag[0] |= (b != 0) << k
        if tag[0] == 0xff:
            while i + run < n and run < 255 and not has_zero_byte(words[i + run]):
                run += 1
            p[0] = <uint8_t>run
            memcpy(p + 1, &words[i], 8 * run)
            p += 1 + 8 * run
            i += run
    out.used = p - out.data


cdef void clean_text(uint8_t *s, uint32_t n) noexcept nogil:
    """Put `?` for every byte that is not part of UTF-8: readers decode strictly, packets hold anything."""
    cdef uint32_t i = 0, more, k
    cdef uint8_t c, low, high
    while i < n:
        c = s[i]
        if c < 0x80:
            i += 1
            continue
        low = 0x80
        high = 0xbf
        more = 0
        if 0xc2 <= c <= 0xdf:
            more = 1
        elif 0xe0 <= c <= 0xef:
            more = 2
            if c == 0xe0:
                low = 0xa0       # shorter forms exist
            elif c == 0xed:
                high = 0x9f      # surrogates
        elif 0xf0 <= c <= 0xf4:
            more = 3
            if c == 0xf0:
                low = 0x90
            elif c == 0xf4:
                high = 0x8f      # past U+10FFFF
        if more == 0 or more >= n - i or not low <= s[i + 1] <= high:
            more = 0
        for k in range(2, more + 1):
            if s[i + k] & 0xc0 != 0x80:
                more = 0
                break
        if more == 0:
            s[i] = c'?'
        i += 1 + more


cdef inline uint32_t find(const Custom *c, size_t row, const uint8_t **at) noexcept nogil:
    """Bytes of a record's value on the wire (0 for numbers), or ABSENT."""
    cdef uint64_t start, end
    cdef uint32_t n
    cdef const uint8_t *nul
    if c.present != NULL and not c.present[row]:
        return ABSENT
    if c.offsets == NULL:
        return ABSENT if c.skip_zero and number(c.data, c.size, row) == 0 else 0
    start = number(c.offsets, c.size, row)
    end = number(c.offsets, c.size, row + 1)
    at[0] = c.data + start
    if c.tag == TAG_ADDRESS:
        return <uint32_t>(end - start) if end - start == 4 or end - start == 16 else ABSENT
    n = TEXT_MAX if end - start > TEXT_MAX else <uint32_t>(end - start)
    nul = <const uint8_t *>memchr(at[0], 0, n) if n else NULL
    if nul != NULL:
        return <uint32_t>(nul - at[0])
    if n < end - start:
        while n > TEXT_MAX - 4 and at[0][n] & 0xc0 == 0x80:   # not in the middle of a character
            n -= 1
    return n


cdef class Batch:
    """Columns of `count` records, checked; keeps the buffers. Nothing is copied, so they must not change."""
    cdef readonly Py_ssize_t count
    cdef list views
    cdef Column *columns
    cdef Py_ssize_t n_columns
    cdef Custom *customs
    cdef Py_ssize_t n_customs
    cdef const uint8_t *l3
    cdef const uint8_t *src
    cdef const uint8_t *dst
    cdef Column sample_rate
    cdef Column app_protocol

    def __cinit__(self, Py_ssize_t count, columns, customs=()):
        cdef Column column
        cdef Custom *c
        cdef Py_ssize_t i
        self.count = count
        self.views = []
        customs = list(customs)
        self.columns = <Column *>calloc(len(columns) + 1, sizeof(Column))
        self.customs = <Custom *>calloc(len(customs) + 1, sizeof(Custom))
        if self.columns == NULL or self.customs == NULL:
            raise MemoryError
        for name, values in columns.items():
            if name in ("src", "dst", "l3"):
                data = self.view(name, values)
                width = 1 if name == "l3" else 16
                if data.nbytes != count * width:
                    raise ValueError(f"column {name}: {data.nbytes} bytes, not {width} for each of {count} records")
                if name == "l3":
                    self.l3 = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
                elif name == "src":
                    self.src = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
                else:
                    self.dst = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
                continue
            self.numbers(name, values, &column)
            if name == "sample_rate":
                self.sample_rate = column
            elif name == "app_protocol":
                self.app_protocol = column
            elif name in COLUMNS:
                column.at, column.width = COLUMNS[name]
                self.columns[self.n_columns] = column
                self.n_columns += 1
            else:
                raise ValueError(f"unknown column: {name}")
        for number_, kind, values, offsets, present, skip_zero in customs:
            name = f"custom {number_}"
            c = &self.customs[self.n_customs]
            c.id = number_ & 0xffffffff
            c.tag = KINDS[kind]
            c.skip_zero = skip_zero
            if present is not None:
                data = self.view(name, present)
                if data.nbytes != count:
                    raise ValueError(f"{name}: {data.nbytes} marks for {count} records")
                c.present = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
            if c.tag == TAG_UINT32:
                self.numbers(name, values, &column)
                c.data = column.data
                c.size = column.size
            else:
                self.strings(name, values, offsets, c)
            self.n_customs += 1

    def __dealloc__(self):
        free(self.columns)
        free(self.customs)

    cdef object view(self, name, values):
        data = memoryview(values)
        if not data.c_contiguous:
            raise ValueError(f"{name}: not contiguous")
        self.views.append(data)
        return data

    cdef int numbers(self, name, values, Column *column) except -1:
        data = self.view(name, values)
        if data.itemsize not in (1, 2, 4, 8) or data.format.lstrip("@=<") not in tuple("?bBhHiIlLqQ"):
            raise ValueError(f"{name}: values of type {data.format} are not integers")
        if data.nbytes != self.count * data.itemsize:
            raise ValueError(f"{name}: {data.nbytes // data.itemsize} values for {self.count} records")
        column.data = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
        column.size = data.itemsize
        return 0

    cdef int strings(self, name, values, offsets, Custom *c) except -1:
        cdef Py_ssize_t i
        cdef uint64_t before = 0, now, limit
        data = self.view(name, values)
        marks = self.view(name, offsets)
        limit = data.nbytes
        if marks.itemsize not in (4, 8) or marks.nbytes != (self.count + 1) * marks.itemsize:
            raise ValueError(f"{name}: {self.count} records need {self.count + 1} offsets of 4 or 8 bytes")
        c.data = <const uint8_t *>PyMemoryView_GET_BUFFER(data).buf
        c.offsets = <const uint8_t *>PyMemoryView_GET_BUFFER(marks).buf
        c.size = marks.itemsize
        for i in range(self.count + 1):
            now = number(c.offsets, c.size, i)
            if now < before or now > limit:
                raise ValueError(f"{name}: offset {i} leads astray")
            before = now
        return 0


cdef class Packer:
    """One message in the making."""
    cdef Out out
    cdef uint32_t *need       # per record: words behind the structs
    cdef uint16_t *have       # per record: custom columns
    cdef uint64_t *scratch
    cdef uint32_t device
    cdef uint64_t total       # records
    cdef uint64_t dropped

    def __cinit__(self, uint64_t total, Py_ssize_t customs, uint32_t device, uint64_t dropped):
        self.total = total
        self.device = device
        self.dropped = dropped
        self.need = <uint32_t *>malloc(total * sizeof(uint32_t) + 1)
        self.have = <uint16_t *>malloc(total * sizeof(uint16_t) + 1)
        self.scratch = <uint64_t *>malloc(
            (CHF_WORDS + 2 * V6_WORDS + 1 + customs * (CUSTOM_WORDS + TEXT_WORDS)) * sizeof(uint64_t)
        )
        if self.need == NULL or self.have == NULL or self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.out.data)
        free(self.need)
        free(self.have)
        free(self.scratch)

    cdef uint64_t measure(self, Batch batch, size_t start, size_t stop, size_t first) noexcept nogil:
        """Words that the records need behind the list of structs."""
        cdef size_t row
        cdef Py_ssize_t c
        cdef uint32_t n, words, have
        cdef uint64_t total = 0
        cdef const uint8_t *at
        for row in range(start, stop):
            have = 0
            words = 0
            for c in range(batch.n_customs):
                n = find(&batch.customs[c], row, &at)
                if n == <uint32_t>ABSENT:
                    continue
                have += 1
                words += CUSTOM_WORDS
                if batch.customs[c].tag == TAG_TEXT:
                    words += n // 8 + 1
                elif batch.customs[c].tag == TAG_ADDRESS:
                    words += ADDRESS_WORDS
            if have:
                words += 1
            if batch.l3 != NULL and batch.l3[row] == 6:
                words += 2 * V6_WORDS
            self.have[first + row - start] = <uint16_t>have
            self.need[first + row - start] = words
            total += words
        return total

    cdef uint32_t rate(self, Batch batch, size_t row) noexcept nogil:
        """Sampling rate x 100, raised for what was dropped (kflow-wire.md 2.6)."""
        cdef uint64_t value = 1
        cdef float raised
        if batch.sample_rate.data != NULL:
            value = number(batch.sample_rate.data, batch.sample_rate.size, row)
            if value == 0:
                value = 1
            elif value > U32_MAX:
                value = U32_MAX
        value *= 100
        if self.dropped:
            raised = <float>value * <float>(self.total + self.dropped) / <float>self.total
            value = U32_MAX if raised >= <float>4294967040.0 else <uint64_t>raised
        return <uint32_t>(U32_MAX if value > U32_MAX else value)

    cdef uint64_t structs(self, Batch batch, size_t start, size_t stop, size_t first, uint64_t content) noexcept nogil:
        """Pack the fixed parts; `content` is the word where the first record's other values will stand."""
        cdef uint64_t *w = self.scratch
        cdef uint8_t *b = <uint8_t *>w
        cdef size_t row, index
        cdef Py_ssize_t c
        cdef Column *column
        cdef uint64_t value, at
        cdef uint32_t app
        for row in range(start, stop):
            index = first + row - start
            memset(w, 0, CHF_WORDS * sizeof(uint64_t))
            for c in range(batch.n_columns):
                column = &batch.columns[c]
                value = number(column.data, column.size, row)
                if column.width == 8:
                    (<uint64_t *>(b + column.at))[0] = value
                else:
                    (<uint32_t *>(b + column.at))[0] = <uint32_t>value
            (<uint32_t *>(b + AT_SAMPLE_RATE))[0] = self.rate(batch, row)
            (<uint32_t *>(b + AT_DEVICE_ID))[0] = self.device
            b[AT_FLAGS] = FLAG_SAMPLE_ADJ
            app = 0
            if batch.app_protocol.data != NULL:
                app = <uint32_t>number(batch.app_protocol.data, batch.app_protocol.size, row)
            (<uint32_t *>(b + AT_APP_PROTOCOL))[0] = app ^ <uint32_t>0xffffffff   # the field's default
            at = HEAD_WORDS + index * CHF_WORDS + CHF_DATA                       # word of the first pointer
            value = content
            if batch.l3 != NULL and batch.l3[row] == 6:
                w[CHF_DATA + PTR_V6_DST] = list_pointer(value - (at + PTR_V6_DST) - 1, 2, 16)
                value += V6_WORDS
                w[CHF_DATA + PTR_V6_SRC] = list_pointer(value - (at + PTR_V6_SRC) - 1, 2, 16)
                value += V6_WORDS
            else:
                if batch.dst != NULL:
                    (<uint32_t *>(b + AT_IPV4_DST))[0] = big_endian(batch.dst + 16 * row)
                if batch.src != NULL:
                    (<uint32_t *>(b + AT_IPV4_SRC))[0] = big_endian(batch.src + 16 * row)
            if self.have[index]:
                w[CHF_DATA + PTR_CUSTOM] = list_pointer(
                    value - (at + PTR_CUSTOM) - 1, 7, <uint64_t>self.have[index] * CUSTOM_WORDS
                )
            emit(&self.out, w, CHF_WORDS)
            content += self.need[index]
        return content

    cdef void contents(self, Batch batch, size_t start, size_t stop, size_t first) noexcept nogil:
        """Pack the addresses of IPv6 and the custom columns."""
        cdef uint64_t *w = self.scratch
        cdef uint64_t *item
        cdef size_t row, index, at, far
        cdef Py_ssize_t c
        cdef Custom *custom
        cdef const uint8_t *value = NULL
        cdef uint32_t n
        for row in range(start, stop):
            index = first + row - start
            if self.need[index] == 0:
                continue
            memset(w, 0, self.need[index] * sizeof(uint64_t))
            at = 0
            if batch.l3 != NULL and batch.l3[row] == 6:
                if batch.dst != NULL:
                    memcpy(w, batch.dst + 16 * row, 16)
                if batch.src != NULL:
                    memcpy(w + V6_WORDS, batch.src + 16 * row, 16)
                at = 2 * V6_WORDS
            if self.have[index]:
                w[at] = struct_pointer(self.have[index], CUSTOM_WORDS - 1, 1)
                at += 1
                far = at + <size_t>self.have[index] * CUSTOM_WORDS
                for c in range(batch.n_customs):
                    custom = &batch.customs[c]
                    n = find(custom, row, &value)
                    if n == <uint32_t>ABSENT:
                        continue
                    item = w + at
                    item[0] = custom.id
                    item[1] = custom.tag
                    if custom.tag == TAG_UINT32:
                        item[0] |= <uint64_t>short_number(custom.data, custom.size, row) << 32
                    elif custom.tag == TAG_TEXT:
                        item[3] = list_pointer(far - (at + 3) - 1, 2, n + 1)
                        if n:
                            memcpy(w + far, value, n)
                            clean_text(<uint8_t *>(w + far), n)
                        far += n // 8 + 1
                    else:
                        item[3] = list_pointer(far - (at + 3) - 1, 2, ADDRESS_BYTES)
                        (<uint8_t *>(w + far))[0] = 4 if n == 4 else 6
                        memcpy(<uint8_t *>(w + far) + 1, value, n)
                        far += ADDRESS_WORDS
                    at += CUSTOM_WORDS
            emit(&self.out, w, self.need[index])


def pack(parts, uint32_t device_id, uint64_t dropped=0):
    """The packed message, segment table included, of (Batch, first, behind the last) parts, in that order.

    `dropped`: records lost since the last message, which raises every sampling rate. ValueError for no record
    at all and for more than one segment can hold (about 12 million).
    """
    cdef Packer packer
    cdef Batch batch
    cdef size_t start, stop
    cdef uint64_t total = 0, first, content, words = 0
    cdef Py_ssize_t customs = 0
    cdef uint64_t[4] head
    parts = list(parts)
    for batch, start, stop in parts:
        if start > stop or stop > <size_t>batch.count:
            raise ValueError(f"records {start} to {stop} of {batch.count}")
        total += stop - start
        customs = max(customs, batch.n_customs)
    if total == 0:
        raise ValueError("no records")
    if total > MAX_WORDS // CHF_WORDS or customs > 1000:
        raise ValueError("too much for one message")
    packer = Packer(total, customs, device_id, dropped)
    first = 0
    for batch, start, stop in parts:
        with nogil:
            words += packer.measure(batch, start, stop, first)
            first += stop - start
    content = HEAD_WORDS + total * CHF_WORDS
    if content + words > MAX_WORDS:
        raise ValueError("too much for one message")
    # segment table: one segment, so many words; then root, list, list's tag
    head[0] = (content + words) << 32
    head[1] = struct_pointer(0, 0, 1)
    head[2] = list_pointer(0, 7, total * CHF_WORDS)
    head[3] = struct_pointer(total, CHF_DATA, CHF_POINTERS)
    emit(&packer.out, head, 4)
    first = 0
    for batch, start, stop in parts:
        with nogil:
            content = packer.structs(batch, start, stop, first, content)
            first += stop - start
    first = 0
    for batch, start, stop in parts:
        with nogil:
            packer.contents(batch, start, stop, first)
            first += stop - start
    if packer.out.failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>packer.out.data, packer.out.used)
