"""The table of open transactions against a plain dict, and its bounds."""

from hypothesis import given, settings
from hypothesis import strategies as st
from netprobe._core.xact import _Table

TTL = 1000

keys = st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1))
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "find", "remove", "purge"]),
        keys,
        st.integers(0, 2),
        st.integers(0, 30),
    ),
    max_size=300,
)


@given(steps)
@settings(max_examples=200)
def test_like_a_dict(moves):
    table, model, now, size = _Table(18, TTL), {}, 0, 0
    for what, key, which, passed in moves:
        now += passed
        at = (key or 1, which)  # key 0 stands for an empty cell, and is taken as 1
        if what == "start":
            size += 1
            table.start(key, which, now, size)
            model[at] = (now, size)
        elif what == "find":
            assert table.find(key, which) == model.get(at)
        elif what == "remove":
            assert table.remove(key, which) == (model.pop(at, None) is not None)
        else:
            old = [k for k, (start, _) in model.items() if start + TTL <= now]
            assert table.purge(now) == tuple(sum(k[1] == m for k in old) for m in range(3))
            for k in old:
                del model[k]
        assert table.active == len(model)
    assert table.check() == 0
    assert all(table.find(key, which) == value for (key, which), value in model.items())
    assert table.evicted == 0


def flood(lg_max: int, count: int, ttl: int = 10**9) -> _Table:
    table = _Table(lg_max, ttl)
    for i in range(count):
        table.start((i * 0x9E3779B97F4A7C15 + 1) % (1 << 64), i % 3, i)
    return table


def test_grows_then_evicts_the_older():
    table = flood(10, 5000)
    assert table.capacity == 1024
    assert table.check() == 0
    assert table.active + table.evicted == 5000
    assert 850 < table.active <= 896
    # what just came is there; what was first is not
    assert table.find((4999 * 0x9E3779B97F4A7C15 + 1) % (1 << 64), 4999 % 3) is not None
    survivors = [i for i in range(5000) if table.find((i * 0x9E3779B97F4A7C15 + 1) % (1 << 64), i % 3)]
    assert len(survivors) == table.active
    assert sum(survivors) / len(survivors) > 4000


def test_no_eviction_while_there_is_room_to_grow():
    table = flood(18, 100_000)
    assert (table.active, table.evicted) == (100_000, 0)
    assert table.capacity == 1 << 18


def test_expired_ones_thrown_out_for_room_are_counted_at_the_purge():
    table = flood(8, 3000, ttl=100)
    assert sum(table.expired) > 0
    assert table.active + table.evicted + sum(table.expired) == 3000
    gone, left = table.expired, table.active
    purged = table.purge(3000)
    assert sum(purged) == sum(gone) + left - table.active
    assert table.expired == (0, 0, 0)
    assert table.check() == 0
    assert table.purge(3000) == (0, 0, 0)


def test_full_table_can_be_emptied():
    table = flood(8, 20_000)
    full = table.active
    assert (table.capacity, table.check()) == (256, 0)
    assert 200 < full <= 224  # seven eighths
    assert sum(table.purge(10**12)) == full
    assert (table.active, table.check()) == (0, 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=1500), st.integers(0, 1 << 60))
@settings(max_examples=50)
def test_sound_when_full(moves, salt):
    table, now = _Table(8, 50), 0
    for key in range(300):
        table.start(key + salt, 0, now)
    for start, key in moves:
        now += 1
        if start:
            table.start(key + salt, 0, now)
            assert table.find(key + salt, 0) is not None
        else:
            table.remove(key + salt, 0)
            assert table.find(key + salt, 0) is None
    assert table.check() == 0
    table.purge(now)
    assert table.check() == 0


def test_same_key_in_another_map_is_another():
    """Also where the table is so full that they lie among each other."""
    table = _Table(8, 10**9)
    keys = range(1, 81)
    for key in keys:
        for which in (0, 1):
            table.start(key, which, 0, 2 * key + which)
    assert (table.active, table.evicted, table.capacity) == (160, 0, 256)
    for key in keys:
        assert [table.find(key, which) for which in range(3)] == [(0, 2 * key), (0, 2 * key + 1), None]


def test_purge_at_exactly_the_ttl():
    table = _Table(18, TTL)
    table.start(7, 1, 500)
    assert table.purge(500 + TTL - 1) == (0, 0, 0)
    assert table.purge(500 + TTL) == (0, 1, 0)


def test_same_input_same_table():
    one, two = flood(9, 4000), flood(9, 4000)
    found = [
        [bool(t.find((i * 0x9E3779B97F4A7C15 + 1) % (1 << 64), i % 3)) for i in range(4000)]
        for t in (one, two)
    ]
    assert found[0] == found[1]
