"""What wrk and h2load print, and what is given to them."""

import pytest

from benchmarks.load import h2load, wrk

WRK = """Running 2s test @ http://127.0.0.1:8000/v2/models/fraud/infer
  1 threads and 16 connections
  2000 requests in 2.00s, 1MB read
RESULT {"requests":2000,"microseconds":2000000,"not_2xx":500,"socket_errors":1,"timeouts":2,"p50_us":385,"p90_us":700,\
"p99_us":925,"max_us":4000}
"""

H2LOAD = """starting benchmark...
finished in 3.50s, 8123.33 req/s, 2.10MB/s
requests: 24370 total, 24386 started, 24370 done, 24370 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 24370 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 6.30MB (6606270) total, 1.02MB (1067766) headers (space savings 87.00%), 4.04MB (4240380) data
                     min         max         mean         sd        +/- sd
time for request:      412us     18.25ms      1.95ms       640us    78.92%
time for connect:      101us       988us       510us       270us    56.25%
"""


def test_refusals_do_not_count_as_throughput_of_wrk():
    result = wrk.parse(WRK)
    assert result.per_second == 750
    assert result.failed == 503
    assert result.p99_us == 925


def test_h2load_figures_with_their_units():
    result = h2load.parse(H2LOAD)
    assert (result.requests, result.succeeded, result.failed) == (24370, 24370, 0)
    assert result.per_second == 8123.33
    assert result.mean_us == 1950
    assert result.max_us == 18250


@pytest.mark.parametrize("parse", [wrk.parse, h2load.parse])
def test_a_tool_that_printed_nothing_is_an_error(parse):
    with pytest.raises(wrk.LoadFailed, match="unable to connect"):
        parse("unable to connect")


def test_bodies_are_length_prefixed_so_that_any_bytes_pass(tmp_path):
    path = wrk.write_bodies(tmp_path / "bodies", [b'{"a":1}', b"\x00\n12\n"])
    assert path.read_bytes() == b'7\n{"a":1}5\n\x00\n12\n'


def test_a_grpc_message_has_its_prefix():
    assert h2load.frame(b"abc") == b"\x00\x00\x00\x00\x03abc"
