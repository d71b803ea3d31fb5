"""The stand-in for a CUDA device refuses what CUDA refuses: what is tested on it means something."""

from __future__ import annotations

import pytest
import torch
from standin import NOT_YET, StandIn

from parrot_nb.engine.embedded.device import Arrival, CaptureError, Device


@pytest.fixture
def standin():
    with StandIn(num_devices=2) as made:
        yield made


@pytest.fixture
def device(standin):
    made = Device(torch.device("cuda", 1))
    with made.entered():
        yield made


def test_tensors_compute_on_it_and_hold_values(device):
    x = torch.arange(6, dtype=torch.float32, device=device.place).view(2, 3)
    x[0] = 7
    x[:, 2].add_(torch.ones(2, device=device.place))
    assert x.is_cuda
    assert x.device == device.place
    assert x.tolist() == [[7, 7, 8], [3, 4, 6]]
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2, 3, device="cuda:0")


def test_it_counts_launches_copies_and_waits(device, standin):
    x = device.send(torch.ones(4))
    y = (x + 1).view(2, 2) * 2
    arrival = device.fetch(y)
    assert sum(standin.counts.launches.values()) == 2
    assert standin.counts.copies == {"pinned": 1, "fetched": 1}
    assert not standin.counts.waits
    assert arrival.wait()[0].tolist() == [[4, 4], [4, 4]]
    assert standin.counts.waits == {"event": 1}
    torch.ones(4).to(device.place)
    assert standin.counts.copies["pageable"] == 1
    x.tolist()
    assert standin.counts.copies["fetched and waited for"] == 1


def test_pinned_memory_that_is_read_too_early_holds_nothing(device):
    pinned = torch.empty(2, pin_memory=True)
    pinned.copy_(torch.ones(2, device=device.place), non_blocking=True)
    assert pinned.tolist() == [NOT_YET, NOT_YET]
    torch.cuda.synchronize()
    assert pinned.tolist() == [1, 1]


def test_pinned_memory_that_is_written_too_early_is_noticed(device):
    pinned = torch.zeros(2, pin_memory=True)
    pinned.to(device.place, non_blocking=True)
    with pytest.raises(AssertionError, match="pending"):
        pinned.fill_(3)
    pinned.to(device.place, non_blocking=True)
    torch.cuda.synchronize()
    pinned.fill_(5)


def test_a_graph_replays_on_the_same_memory(device, standin):
    x, total = torch.ones(3, device=device.place), torch.zeros(3, device=device.place)

    def step():
        total.add_(x)
        return total * 2

    replay = device.capture(step)
    total.zero_()
    x.fill_(5)
    launches = standin.counts.launches.total()
    assert replay().tolist() == [10, 10, 10]
    assert replay().tolist() == [20, 20, 20]
    assert standin.counts.launches.total() == launches
    assert standin.counts.replays == 2


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[[0, 1]],
        lambda x: x + torch.ones(3).to(x.device),
        lambda x: x.cpu(),
        lambda _: torch.cuda.synchronize(),
        lambda _: torch.cuda.empty_cache(),
    ],
)
def test_what_a_capture_forbids_fails_it(device, standin, forbidden, monkeypatch):
    x = torch.ones(3, device=device.place)
    calls = iter(range(9))

    def step():
        return x.clone() if next(calls) < 1 else forbidden(x)  # only while it is captured

    with pytest.raises(CaptureError, match="not permitted"):
        device.capture(step)
    assert not standin.open_pools
    assert device.capture(lambda: x * 2)().tolist() == [2, 2, 2]


def test_memory_runs_out_and_is_kept_until_it_is_given_back(standin):
    device = Device(torch.device("cuda"))
    with device.entered():
        x = torch.zeros(2**27, dtype=torch.float32, device=device.place)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(2**28, dtype=torch.float32, device=device.place)
        del x
        assert torch.cuda.mem_get_info(device.place)[0] == 2**29
        assert device.free_bytes() == 2**30


def test_a_lost_device_raises_for_ever(device, standin):
    standin.fail("launch", RuntimeError("CUDA error: device-side assert triggered"), sticky=True)
    assert not device.is_lost()
    x = torch.empty(2, device=device.place)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="assert"):
            x.add_(1)
    assert device.is_lost()


def test_an_event_waits_for_what_was_before_it_alone(device, standin):
    x = torch.ones(1000, device=device.place)
    first = device.fetch(x)
    for _ in range(100):
        x.mul_(1)
    first.wait()
    before = standin.now
    torch.cuda.synchronize()
    assert standin.now > before


def test_on_a_cpu_nothing_is_moved():
    device, x = Device(torch.device("cpu")), torch.ones(2)
    with device.entered():
        assert device.send(x) is x
        arrival = device.fetch(x)
    assert isinstance(arrival, Arrival)
    x.zero_()
    assert arrival.wait()[0].tolist() == [1, 1]
    assert not device.is_lost()
