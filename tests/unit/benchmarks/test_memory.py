import pytest

from benchmarks import memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("resident", "flat"),
    [
        ([200 * MIB] * 100, True),
        ([i * 10 * MIB for i in range(20)] + [200 * MIB] * 80, True),  # the warm-up may grow
        ([200 * MIB + i * MIB for i in range(100)], False),
        ([20 * MIB + i * MIB // 10 for i in range(100)], False),
        ([20 * MIB + i * MIB // 50 for i in range(100)], True),  # below 4 MiB
        ([1 * MIB, 900 * MIB], True),  # two samples say nothing
    ],
)
def test_flat(resident, flat):
    assert memory.is_flat(resident) is flat


def test_growth_ignores_single_outliers():
    resident = [100 * MIB] * 100
    resident[-3] = 500 * MIB
    assert memory.growth(resident) == 0


def test_command_lines_lose_their_paths():
    words = ["/home/someone/.venv/bin/python3", "-m", "headrace.app.gateway", "/tmp/headrace-x/gateway-0.json"]
    assert memory.short_command(words) == "python3 -m headrace.app.gateway gateway-0.json"
