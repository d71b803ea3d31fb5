"""The page cache by itself: what is shared, what is given up first, and when contexts wait for one another."""

from __future__ import annotations

from parrot_nb.engine.embedded.budget import BEYOND, LEFT_OUT_STEPS, Budget
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.plan import plan_step
from parrot_nb.engine.protocol import Kind, Pace, Priority

SIZE = 4


def context(cache: PageCache, number: int, tokens: str, *, priority: int = 0, kind: Kind = Kind.LATENCY) -> Context:
    made = Context(number, Priority(kind, (priority,)), cache, [ord(c) for c in tokens])
    made.generation = object.__new__(Generation)  # so that its last token is computed, too
    made.generation.num_sampled = 0
    return made


def compute(cache: PageCache, *contexts: Context, max_tokens: int = 1000) -> dict[int, int]:
    """One step: what each computed."""
    rows = plan_step(contexts, cache, Budget(max_tokens, max_tokens))
    for one, count in rows:
        end = one.lease.num_cached + count
        one.lease.begin(end)
        one.computed(end)
    return {one.id: count for one, count in rows}


def computed(cache: PageCache, tokens: str) -> None:
    """A text that was computed by somebody who is gone."""
    one = context(cache, 99, tokens)
    compute(cache, one)
    one.lease.release()


def cached(cache: PageCache, tokens: str) -> int:
    """How many tokens of a text are found."""
    one = context(cache, 98, tokens + "?")
    one.lease.adopt()
    found = one.lease.num_cached
    one.lease.release()
    return found


def test_full_pages_are_found_by_whoever_comes_next():
    cache = PageCache(10, SIZE)
    computed(cache, "abcdefghij")
    assert cached(cache, "abcdefgh") == 8
    assert cached(cache, "abcdxxxx") == 4
    assert cached(cache, "bcde") == 0
    assert (cache.num_free, cache.num_cached, cache.num_owned) == (7, 3, 0)


def test_all_but_the_last_token_are_reused():
    cache = PageCache(10, SIZE)
    computed(cache, "abcdefgh")
    again = context(cache, 1, "abcdefgh")
    again.lease.adopt()
    assert again.lease.num_cached == 4
    again.lease.extend(8)
    assert again.lease.copy(7) == (cache.root.children[tuple(b"abcd")].children[tuple(b"efgh")].page, again.lease.pages[1], 3)


def test_a_prefix_that_several_need_is_computed_once():
    cache = PageCache(40, SIZE)
    prefix = "0123456789abcdef"
    contexts = [context(cache, i, prefix + f"own{i}") for i in range(3)]
    assert compute(cache, *contexts) == {0: 20, 1: 4, 2: 4}, "and in one step: what is new is written before it is read"
    assert {tuple(c.lease.pages[:4]) for c in contexts} == {tuple(contexts[0].lease.pages[:4])}
    unshared = PageCache(40, SIZE, shares=False)
    alone = [context(unshared, i, prefix + f"own{i}") for i in range(3, 5)]
    assert [count for _, count in plan_step(alone, unshared, Budget(1000, 1000))] == [20, 20]


def test_who_parts_from_the_one_that_computes_waits_only_for_what_they_share():
    cache = PageCache(40, SIZE)
    first, other = context(cache, 0, "aaaabbbbccccdddd"), context(cache, 1, "aaaaxxxxyyyy")
    assert compute(cache, first, other, max_tokens=8) == {0: 8}
    assert compute(cache, first, other, max_tokens=16) == {0: 8, 1: 8}


def test_the_more_urgent_computes():
    cache = PageCache(40, SIZE)
    late, urgent = context(cache, 0, "aaaabbbb1", priority=1), context(cache, 1, "aaaabbbb2", priority=0)
    assert compute(cache, late, urgent) == {1: 9, 0: 1}


def test_short_ends_may_exceed_the_budget_by_a_quarter_and_no_more():
    cache = PageCache(80, SIZE)
    contexts = [context(cache, i, "0123456789abcdef" + f"o{i}") for i in range(8)]
    assert compute(cache, *contexts, max_tokens=16) == {0: 16, 1: 2, 2: 2}
    contexts[0].generation = None
    assert compute(cache, *contexts[3:], max_tokens=16) == {3: 2, 4: 2, 5: 2, 6: 2, 7: 2}
    longer = [context(cache, i, "ABCDEFGHIJKLMNOP" + f"{i}end") for i in range(10, 12)]
    assert compute(cache, *longer, max_tokens=16) == {10: 16}, "who has more than a page to go waits for its turn"


def test_what_is_filled_ahead_of_its_time_waits_for_who_computes_it():
    cache = PageCache(40, SIZE)
    now, later = context(cache, 0, "aaaabbbb1"), context(cache, 1, "aaaabbbb2222", kind=Kind.AHEAD)
    assert compute(cache, now, later) == {0: 9}
    assert compute(cache, later) == {1: 4}
    assert later.lease.reused_tokens == 8


def test_without_deduplication_each_computes_its_own():
    cache = PageCache(40, SIZE)
    contexts = [context(cache, i, f"aaaabbbb{i}") for i in range(2)]
    rows = plan_step(contexts, cache, Budget(1000, 1000), deduplicate=False)
    assert [count for _, count in rows] == [9, 9]
    assert not set(contexts[0].lease.pages) & set(contexts[1].lease.pages)


def test_pages_that_a_failing_step_should_have_filled_are_nobodys():
    cache = PageCache(40, SIZE)
    computed(cache, "aaaa")
    contexts = [context(cache, i, f"aaaabbbbcccc{i}") for i in range(3)]
    for one, count in plan_step(contexts, cache, Budget(1000, 1000)):
        one.lease.begin(one.lease.num_cached + count)
    assert (cache.num_owned, cache.num_cached) == (6, 0)
    for one in contexts:
        one.lease.failed()
    assert [list(one.lease.pages) for one in contexts] == [[0]] * 3, "what was there before the step stays theirs"
    assert (cache.num_owned, cache.num_cached) == (1, 0)
    for one in contexts:
        one.lease.release()
    assert (cache.num_owned, cache.num_cached) == (0, 1)
    assert cached(cache, "aaaabbbbcccc") == 4


def test_what_is_unused_longest_goes_first_and_leaves_before_what_they_hang_on():
    cache = PageCache(4, SIZE)
    computed(cache, "aaaabbbb")
    computed(cache, "cccc")
    assert cached(cache, "aaaabbbb") == 8  # used last
    cache.give_back(cache.take(2))
    assert cached(cache, "cccc") == 0
    assert cached(cache, "aaaabbbb") == 8
    cache.give_back(cache.take(3))
    assert cached(cache, "aaaabbbb") == 4


def test_what_is_expected_stays_and_of_that_the_soonest_longest():
    cache = PageCache(4, SIZE)
    for text in ("aaaa", "bbbb", "cccc", "dddd"):
        computed(cache, text)
    cache.expect("soon", list(b"aaaa..."), 1)
    cache.expect("later", list(b"bbbb"), 2)
    order = []
    for count in (1, 2, 3, 4):
        pages = cache.take(count)
        order.append([text for text in ("aaaa", "bbbb", "cccc", "dddd") if cached(cache, text)])
        cache.give_back(pages)
    assert order == [["aaaa", "bbbb", "dddd"], ["aaaa", "bbbb"], ["aaaa"], []]


def test_what_is_expected_no_longer_goes_like_the_rest():
    cache = PageCache(3, SIZE)
    for text in ("aaaa", "bbbb", "cccc"):
        computed(cache, text)
    cache.expect("a", list(b"aaaa"), 1)
    cache.expect("b", list(b"bbbb"), 2)
    cache.give_back(cache.take(2))
    assert cached(cache, "aaaa") == 4
    computed(cache, "dddd")
    cache.forget("a")
    cache.forget("nobody said this")
    cache.give_back(cache.take(2))
    assert cached(cache, "aaaa") == 0
    assert cached(cache, "dddd") == 4


def test_the_least_urgent_gives_up_its_pages():
    cache = PageCache(4, SIZE)
    idle, low, high = context(cache, 0, "iiiii"), context(cache, 1, "lllllll", priority=1), context(cache, 2, "hhhhh", priority=0)
    compute(cache, idle)
    idle.generation = None
    assert compute(cache, low) == {1: 7}
    low.tokens.append(1)
    assert compute(cache, idle, low, high) == {1: 1, 2: 5}
    assert (idle.lease.num_cached, low.lease.num_cached) == (0, 8)
    idle.truncate([])
    urgent = context(cache, 3, "uuuuuuuuuuuuuuuu", priority=-1)
    assert compute(cache, idle, low, high, urgent) == {3: 16}
    assert (low.lease.num_cached, high.lease.num_cached, cache.num_owned) == (0, 0, 4)


def test_what_adopts_pages_while_a_step_is_planned_can_be_preempted():
    """Else the most urgent one finds nobody who could give it a page, nothing is planned, and the engine sleeps for ever."""
    cache = PageCache(4, SIZE)
    urgent, low = context(cache, 1, "mmmmMMMM", priority=0), context(cache, 2, "vvvvVVVV", priority=1)
    assert (compute(cache, urgent), compute(cache, low)) == ({1: 8}, {2: 8})
    urgent.tokens += b"!!!"
    low.tokens += b"??"
    waiting = [
        context(cache, 3, "oooo1", priority=2),
        context(cache, 4, "vvvvVVVV!!", priority=2),
    ]  # the second begins with what is cached
    for one in waiting:
        one.num_left_out = LEFT_OUT_STEPS
    assert 1 in compute(cache, urgent, low, *waiting)


def test_a_pace_that_leaves_no_room_does_not_stop_who_holds_the_pages_that_it_needs():
    cache = PageCache(4, SIZE)
    writes, prompt = context(cache, 2, "dddd", priority=1), context(cache, 1, "abcdefghijklmnop", priority=0)
    writes.pace = prompt.pace = Pace(1e-3)
    assert (compute(cache, writes), compute(cache, prompt, max_tokens=12)) == ({2: 4}, {1: 12})
    writes.tokens.append(7)  # for which there is no page, but with the more urgent prompt
    assert compute(cache, writes, prompt, max_tokens=0) == {1: 4}
    assert compute(cache, writes, prompt, max_tokens=0) == {2: 4}, "those of the prompt, which has nothing to do now"


def test_those_left_out_too_long_come_a_few_at_a_time():
    cache = PageCache(400, SIZE)
    contexts = [context(cache, i, "0123456789abcdef" + f"{i:02}" * 6) for i in range(20)]
    for one in contexts:
        one.num_left_out = LEFT_OUT_STEPS
    sizes = []
    while any(one.num_pending for one in contexts):
        sizes.append(sum(compute(cache, *contexts, max_tokens=16).values()))
    assert max(sizes) <= 16 + 16 // BEYOND
    assert sum(sizes) == 16 + 20 * 12


def test_pages_come_in_a_row_where_there_are_such():
    cache = PageCache(10, SIZE, shares=False)
    pages = cache.take(10)
    cache.give_back([pages[i] for i in (0, 2, 5, 6, 7)])
    assert cache.take(3) == [5, 6, 7]
    assert cache.take(2) == [0, 2]
