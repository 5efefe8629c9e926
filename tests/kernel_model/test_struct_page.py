"""What a completed devdax run leaves in its struct pages (facts 4.1, 4.2, 12)."""

from collections.abc import Callable, Iterator

import pytest
from support.kernel_facts import FOUR, GIB, MIB, boot

from emu import Returned
from kernel_model import Kernel, StructPage
from kernel_model.drivers import dax_bus_probe, xe_device_probe
from kernel_model.memremap import DevPagemap, devm_memremap_pages

HEAD = FOUR.pfn  # the first struct page of the new slot
DEVICE_ZONE = 4


def plugged(release: str, struct_page: int, who: Callable[[Kernel, str], object]) -> Kernel:
    """A kernel in which `who` has probed 512 MiB around the boundary, 2 MiB by 2 MiB."""
    kernel = boot(FOUR, release, struct_page=struct_page)
    task = who(kernel, "probe")
    stop = kernel.run(task, dax_bus_probe, 64 * GIB - 256 * MIB, 512 * MIB, 2 * MIB)  # type: ignore[arg-type]
    assert stop == Returned()
    return kernel


RUNS = {
    "6.17-64": ("6.17", 64, Kernel.fork),
    "6.17-80": ("6.17", 80, Kernel.fork),
    "6.17-96": ("6.17", 96, Kernel.fork),
    "rfc-v1-64": ("rfc-v1", 64, Kernel.fork),
    "6.8-64-init_mm": ("6.8", 64, Kernel.kthread),
    "6.8-80-init_mm": ("6.8", 80, Kernel.kthread),
}


@pytest.fixture(scope="module", params=list(RUNS.values()), ids=list(RUNS))
def done(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel behind a completed run, to be looked at only."""
    with plugged(*request.param) as kernel:
        yield kernel


@pytest.mark.parametrize("pfn", [HEAD - 0x10000, HEAD - 512, HEAD, HEAD + 512, HEAD + 0xFE00])
def test_a_head_is_in_use_and_not_mapped(done: Kernel, pfn: int) -> None:
    page = done.page(pfn)

    assert (page.refcount, page.mapcount, page.compound_head) == (1, -1, None)


def test_a_head_is_reserved_device_memory_on_node_0(done: Kernel) -> None:
    page = done.page(HEAD)

    assert page.flags == DEVICE_ZONE << 51 | 1 << 14 | 1 << 6  # PG_reserved, PG_head


def test_a_head_knows_its_device(done: Kernel) -> None:
    page = done.page(HEAD)

    assert done.read(page.pgmap, 8) == b"\x04\0\0\0\x09\0\0\0"  # generic, order 9
    assert page.lru_prev == 0  # zone_device_data


@pytest.mark.parametrize("tail", [1, 2, 63, 64, 127])
def test_a_tail_is_not_counted_and_points_to_its_head(done: Kernel, tail: int) -> None:
    page = done.page(HEAD + tail)

    assert (page.refcount, page.mapcount) == (0, -1)
    assert page.compound_head == done.layout.vmemmap_base + HEAD * done.layout.sizeof_page


def test_a_tail_is_reserved_and_no_head(done: Kernel) -> None:
    page = done.page(HEAD + 2)

    assert (page.reserved, page.head, page.zone) == (True, False, DEVICE_ZONE)


def test_the_first_tail_holds_the_order_and_number_of_pages(done: Kernel) -> None:
    page = done.page(HEAD + 1)

    assert (page.flags & 0xFF, page.index >> 32) == (9, 512)


@pytest.mark.parametrize("tail", [128, 200, 511])
def test_tails_that_share_a_frame_read_the_same(tail: int) -> None:
    with plugged("6.17", 64, Kernel.fork) as kernel:
        page, original = HEAD + tail, HEAD + 64 + tail % 64

        assert kernel.page(page) == kernel.page(original)
        assert kernel.walk(kernel.layout.pfn_to_page(page)).pa == (
            kernel.walk(kernel.layout.pfn_to_page(original)).pa
        )


@pytest.mark.parametrize("struct_page", [80, 96])
def test_without_deduplication_the_last_tail_has_a_frame_of_its_own(struct_page: int) -> None:
    with plugged("6.17", struct_page, Kernel.fork) as kernel:
        places = {kernel.walk(kernel.layout.pfn_to_page(HEAD + t)).pa for t in (63, 127, 511)}

        assert len(places) == 3
        assert kernel.page(HEAD + 511).compound_head == kernel.layout.pfn_to_page(HEAD)


def test_device_private_pages_start_free(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")

    kernel.run(kernel.fork("modprobe"), xe_device_probe, 64 * GIB, 128 * MIB)

    assert (kernel.page(HEAD).refcount, kernel.page(HEAD).mapcount) == (0, -1)
    assert kernel.page(HEAD).head is False


@pytest.mark.parametrize(
    ("release", "refcount"), [("6.8", 1), ("6.13", 1), ("6.16", 0), ("6.17", 0)]
)
def test_fs_dax_pages_start_free_in_later_releases(
    make_kernel: Callable[..., Kernel], release: str, refcount: int
) -> None:
    kernel = make_kernel(release)

    kernel.run(kernel.fork("ndctl"), devm_memremap_pages, DevPagemap(3, 64 * GIB, 128 * MIB))

    assert kernel.page(HEAD).refcount == refcount


@pytest.mark.parametrize("struct_page", [64, 80, 96])
def test_init_single_page_leaves_an_unused_page_on_no_list(
    make_kernel: Callable[..., Kernel], struct_page: int
) -> None:
    kernel = make_kernel(struct_page=struct_page)
    page = 0xFFFF_EA00_0000_0000 + 100 * struct_page
    task = kernel.fork("a")

    stop = kernel.run(task, "__init_single_page", rdi=page, rsi=100, rdx=2, rcx=3)

    assert stop == Returned()
    assert kernel.page(100) == StructPage(
        flags=3 << 54 | 2 << 51,
        lru_next=page + 8,
        lru_prev=page + 8,
        mapping=0,
        index=0,
        private=0,
        mapcount=-1,
        refcount=1,
        memcg_data=0,
    )
    assert (kernel.page(100).node, kernel.page(100).zone) == (3, 2)


@pytest.mark.parametrize("struct_page", [64, 80, 96])
def test_init_single_page_touches_no_neighbour(
    make_kernel: Callable[..., Kernel], struct_page: int
) -> None:
    kernel = make_kernel(struct_page=struct_page)
    start = 0xFFFF_EA00_0000_0000
    before = kernel.read(start, 4096)

    kernel.run(kernel.fork("a"), "__init_single_page", rdi=start + 10 * struct_page)

    after = kernel.read(start, 4096)
    assert after[: 10 * struct_page] == before[: 10 * struct_page]
    assert after[11 * struct_page :] == before[11 * struct_page :]
