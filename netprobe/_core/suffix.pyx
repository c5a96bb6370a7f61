"""Public suffix set: the rules in one hash table, looked up at each dot of a name from its end."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from netprobe._core.packet cimport mix64


cdef inline uint64_t step(uint64_t h, uint8_t c) noexcept nogil:
    return (h ^ c) * <uint64_t>0x100000001b3


cdef uint64_t SEED = <uint64_t>0xcbf29ce484222325


cdef inline uint64_t finish(uint64_t h) noexcept nogil:
    h = mix64(h)
    return h if h else 1


cdef class SuffixSet:
    """Rules as publicsuffix.org writes them: plain, `*.x` and `!x`; ASCII (A-labels), lower case."""

    def __cinit__(self, rules):
        cdef uint32_t size = 8, cell, at = 0
        cdef uint64_t h
        cdef bytes text
        cdef int flag
        cdef SuffixRule *r
        items = []
        self.depth = 1       # the last label is looked at without any rule
        for rule in rules:
            flag = RULE_PLAIN
            if rule.startswith("!"):
                rule, flag = rule[1:], RULE_EXCEPTION
            elif rule.startswith("*."):
                rule, flag = rule[2:], RULE_WILDCARD
            text = rule.encode("ascii")
            if not 0 < len(text) < 255 or b"*" in text:
                raise ValueError(f"public suffix rule {rule!r} is not of a known form")
            items.append((text, flag))
            self.depth = max(self.depth, text.count(b".") + 1 + (flag == RULE_WILDCARD))
        while size < 2 * len(items):
            size *= 2
        self.mask = size - 1
        self.rules = <SuffixRule *>calloc(size, sizeof(SuffixRule))
        self.texts = <uint8_t *>malloc(sum(len(text) for text, _ in items) + 1)
        if self.rules == NULL or self.texts == NULL:
            raise MemoryError
        for text, flag in items:
            h = SEED
            for c in reversed(text):
                h = step(h, c)
            h = finish(h)
            cell = <uint32_t>h & self.mask
            while True:
                r = &self.rules[cell]
                if r.hash == 0:
                    r.hash = h
                    r.text = at
                    r.length = <uint8_t>len(text)
                    memcpy(self.texts + at, <const uint8_t *>text, len(text))
                    at += <uint32_t>len(text)
                    break
                if r.hash == h and self.texts[r.text:r.text + r.length] == text:
                    break
                cell = (cell + 1) & self.mask
            r.flags |= <uint8_t>flag
        self.n_texts = at

    def __dealloc__(self):
        free(self.rules)
        free(self.texts)

    cdef uint32_t length(self, const uint8_t *name, uint32_t n) noexcept nogil:
        cdef uint64_t h = SEED, full
        cdef uint32_t i = n, cell, size, best = 0, previous = 0
        cdef int labels = 0, wild = 0, flags
        if n == 0 or name[n - 1] == c'.':
            return 0
        while labels < self.depth:
            # from the dot (or start) at i back over one label
            while i > 0 and name[i - 1] != c'.':
                i -= 1
                h = step(h, name[i])
            size = n - i
            labels += 1
            if labels == 1 or wild:
                best = size          # the rule "*" that holds when no other does; or a wildcard's label
            full = finish(h)
            cell = <uint32_t>full & self.mask
            flags = 0
            while self.rules[cell].hash:
                if self.rules[cell].hash == full and self.rules[cell].length == size \
                        and memcmp(self.texts + self.rules[cell].text, name + i, size) == 0:
                    flags = self.rules[cell].flags
                    break
                cell = (cell + 1) & self.mask
            if flags & RULE_EXCEPTION:
                best = previous      # wins over everything: the rule without its first label
                break
            if flags & RULE_PLAIN:
                best = size
            wild = flags & RULE_WILDCARD
            previous = size
            if i == 0:
                break
            i -= 1
            h = step(h, c'.')
        # a name without a dot has no level above its suffix to look for
        if best == n and labels == 1:
            return 0
        return best + 1

    def suffix_length(self, name: bytes) -> int:
        """s of the metrics spec 7.6 for a lower-cased name: suffix and the dot before it; 0 for none."""
        return self.length(name, <uint32_t>len(name))


_loaded = None


def icann_rules(text: str):
    """The rules of the ICANN section of a public suffix list, non-ASCII ones as A-labels."""
    inside = False
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("//"):
            if "===BEGIN ICANN DOMAINS===" in line:
                inside = True
            elif "===END ICANN DOMAINS===" in line:
                inside = False
            continue
        if not inside or not line:
            continue
        rule = line.split()[0].lower()
        if not rule.isascii():
            mark = "!" if rule.startswith("!") else ""
            rule = mark + ".".join(
                label if label.isascii() else label.encode("idna").decode("ascii")
                for label in rule[len(mark):].split(".")
            )
        yield rule


def public_suffixes():
    """The set of the installed `publicsuffixlist` package, read once per process."""
    global _loaded
    if _loaded is None:
        import publicsuffixlist

        with open(publicsuffixlist.PSLFILE, encoding="utf-8") as source:
            _loaded = SuffixSet(icann_rules(source.read()))
    return _loaded
