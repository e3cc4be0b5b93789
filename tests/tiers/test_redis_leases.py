"""Leases in a real Redis, between objects that stand for workers, and between processes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster

from asgi_tiercache.fleet import once
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.leases import Busy, Ended, Lease
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.tiers.redisleases import LONGEST_LEASE, LOOKS, RedisBusy, RedisLease, RedisLeases
from asgi_tiercache.types import Clock, SystemClock, Write
from tests.clusters import ClusterServers, SentinelServers, ask
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder, ticks, until

AT_ONCE = 0.5
"""Seconds of real time within which a message comes, however busy the machine."""


class Worker:
    """One worker's leases."""

    def __init__(
        self,
        url: str | None = None,
        clock: Clock | None = None,
        *,
        client: AsyncRedis | RedisCluster | None = None,
        deadline: float = 5.0,
        renewed_for: float = 60.0,
    ) -> None:
        self.signals = Recorder()
        self.clock = clock or SystemClock()
        self.link = RedisLink(url, client=client)
        self.breaker = Breaker(tier="L2", deadline=deadline, clock=self.clock, signals=self.signals)
        self.leases = RedisLeases(
            self.link, self.breaker, clock=self.clock, signals=self.signals, renewed_for=renewed_for
        )
        self.tier = RedisTier(self.link)

    async def wins(self, key: str, seconds: float = 30.0) -> RedisLease:
        lease = await self.leases.acquire(key, seconds)
        assert isinstance(lease, RedisLease)
        return lease

    async def finds_busy(self, key: str, seconds: float = 30.0) -> RedisBusy:
        busy = await self.leases.acquire(key, seconds)
        assert isinstance(busy, RedisBusy)
        return busy

    async def waits(self, key: str, limit: float = 30.0, seconds: float = 30.0) -> asyncio.Task[Ended]:
        """A task that waits for the lease, and listens already."""
        busy = await self.finds_busy(key, seconds)
        waiting = asyncio.create_task(busy.wait(limit))
        heard = self.leases._messages.get()
        await until(lambda: bool(heard._subscribed) and not heard._unanswered)
        await self.link.ping(b"probe")
        await ticks(5)
        return waiting

    async def aclose(self) -> None:
        await self.leases.aclose()
        await self.link.aclose()


@contextlib.asynccontextmanager
async def workers(url: str, number: int = 2, **options: Any) -> AsyncIterator[list[Worker]]:
    made = [Worker(url, **options) for _ in range(number)]
    try:
        async with asyncio.timeout(30):
            yield made
    finally:
        for worker in made:
            await worker.aclose()


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `body`, after which no task of its own is left."""

    async def checked() -> None:
        await body()
        await ticks(3)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(checked())


@pytest.fixture
def key() -> str:
    return f"lease-test:{secrets.token_hex(4)}"


def name(key: str) -> str:
    return key + "{}lease"


@pytest.fixture(params=["server", "cluster", "sentinel"])
def url(request: pytest.FixtureRequest) -> str:
    fixture = {"server": "redis_server", "cluster": "redis_cluster", "sentinel": "redis_sentinels"}[request.param]
    server: RedisServer | ClusterServers | SentinelServers = request.getfixturevalue(fixture)
    return server.url


@pytest.fixture
def client(each_redis: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(each_redis.url, decode_responses=True) as found:
        yield found


# ---- one wins, the others hear ----


@pytest.mark.parametrize("ended", [Ended.STORED, Ended.NOTHING, Ended.GONE])
def test_one_wins_and_its_end_wakes_the_others_at_once(url: str, key: str, ended: Ended) -> None:
    async def body() -> None:
        async with workers(url, 3) as (first, *others):
            lease = await first.wins(key)
            waiting = [await other.waits(key) for other in others]
            assert not any(wait.done() for wait in waiting)
            started = time.perf_counter()
            lease.end(ended)
            assert await asyncio.gather(*waiting) == [ended, ended]
            assert time.perf_counter() - started < AT_ONCE
            await lease.released()
            (await others[0].wins(key)).end(Ended.STORED)
            assert [worker.signals.seen for worker in (first, *others)] == [[], [], []]

    run(body)


def test_it_is_the_same_on_each_version_and_under_either_protocol(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        for protocol in (2, 3):
            async with workers(f"{each_redis.url}?protocol={protocol}") as (first, second):
                lease = await first.wins(key)
                waiting = await second.waits(key)
                lease.end(Ended.STORED)
                assert await waiting is Ended.STORED
                await lease.released()

    run(body)


def test_keys_have_leases_of_their_own(redis_server: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(redis_server.url) as (first, second):
            await first.wins(key)
            await second.wins(key + "/")
            await second.wins(key + "{x}")
            await second.wins(key + "\udcff")
            await second.finds_busy(key)

    run(body)


def test_all_who_wait_in_one_worker_share_a_subscription(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            leases = [await first.wins(f"{key}{number}") for number in range(3)]
            waiting = [await second.waits(f"{key}{number % 3}") for number in range(12)]
            assert len(subscribers(each_redis, key)) == 3
            assert connections(each_redis, subscribed=True) == 1
            for lease in leases:
                lease.end(Ended.STORED)
            assert await asyncio.gather(*waiting) == [Ended.STORED] * 12

    run(body)


def subscribers(server: RedisServer, key: str) -> list[Any]:
    found: list[Any] = ask(server, "PUBSUB", "CHANNELS", f"{key}*")
    return found


def connections(server: RedisServer, *, subscribed: bool) -> int:
    with Redis.from_url(server.url, decode_responses=True) as client:
        return sum((int(each["sub"]) > 0) is subscribed for each in client.client_list())


def test_what_nobody_waits_for_any_more_is_unsubscribed_with_the_next_and_in_the_end_closed(
    each_redis: RedisServer, key: str
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, clock=clock) as (first, second):
            for number in range(3):
                lease = await first.wins(f"{key}{number}")
                waiting = await second.waits(f"{key}{number}")
                lease.end(Ended.STORED)
                await waiting
                await lease.released()
                assert len(subscribers(each_redis, key)) == 1
            for _ in range(3):
                clock.tick(10.0)
                await ticks(5)
            assert not second.leases._messages.get().connected
            await until(lambda: not connections(each_redis, subscribed=True))
            await first.wins(key)
            waiting = await second.waits(key)  # opened anew
            assert len(subscribers(each_redis, key)) == 1
            waiting.cancel()

    run(body)


def test_an_end_between_the_question_and_the_subscription_is_not_slept_through(
    each_redis: RedisServer, key: str
) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            lease = await first.wins(key)
            busy = await second.finds_busy(key)
            lease.end(Ended.STORED)
            await lease.released()
            started = time.perf_counter()
            assert await busy.wait(30.0) is Ended.GONE
            assert time.perf_counter() - started < AT_ONCE

    run(body)


def test_a_client_that_was_given_will_do(redis_server: RedisServer, redis_cluster: ClusterServers, key: str) -> None:
    async def body() -> None:
        async with (
            AsyncRedis.from_url(redis_server.url, max_connections=2, socket_timeout=0.2) as one,
            RedisCluster(host="127.0.0.1", port=redis_cluster.nodes[0].port, socket_timeout=0.2) as many,
        ):
            for client, url in ((one, redis_server.url), (many, redis_cluster.url)):
                async with workers(url, 1) as (other,):
                    worker = Worker(client=client)
                    lease = await other.wins(key)
                    waiting = await worker.waits(key)
                    await asyncio.sleep(0.3)  # longer than that client lets a reply take
                    assert worker.leases._messages.get().connected
                    lease.end(Ended.STORED)
                    assert await waiting is Ended.STORED
                    assert worker.signals.seen == []
                    await worker.aclose()

    asyncio.run(body())


# ---- how leases end ----


def test_a_dead_holder_delays_by_what_is_left_of_its_lease(url: str, key: str) -> None:
    async def body() -> None:
        async with workers(url) as (first, second):
            await first.link.command("SET", name(key), "dead", "PX", 400)
            started = time.perf_counter()
            assert await (await second.finds_busy(key)).wait(30.0) is Ended.GONE
            assert 0.3 < time.perf_counter() - started < 0.4 + AT_ONCE
            await second.wins(key)

    run(body)


def test_a_holder_killed_in_the_midst_of_its_work_delays_by_its_lease(each_redis: RedisServer, key: str) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from tests.tiers.test_redis_leases import Worker

        async def body():
            await Worker({each_redis.url!r}).wins({key!r}, 0.9)
            print("held", flush=True)
            await asyncio.sleep(60)

        asyncio.run(body())
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        async def body() -> None:
            async with workers(each_redis.url, 1) as (worker,):
                assert await (await worker.finds_busy(key, 0.9)).wait(1.5) is Ended.PATIENCE  # it is renewed
                waiting = await worker.waits(key, 30.0)
                holder.send_signal(signal.SIGKILL)
                killed = time.perf_counter()
                assert await waiting is Ended.GONE
                assert time.perf_counter() - killed < 0.9 + AT_ONCE
                await worker.wins(key)

        run(body)


def test_a_wait_ends_when_patience_does(each_redis: RedisServer, key: str) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, clock=clock) as (first, second):
            await first.wins(key)
            waiting = await second.waits(key, 2.0)
            clock.tick(1.9)
            await ticks(5)
            assert not waiting.done()
            clock.tick(0.1)
            assert await waiting is Ended.PATIENCE
            assert await (await second.finds_busy(key)).wait(0.0) is Ended.PATIENCE
            assert await (await second.finds_busy(key)).wait(-1.0) is Ended.PATIENCE

    run(body)


def test_a_renewed_lease_is_looked_at_again_once_it_would_have_run_out(each_redis: RedisServer, key: str) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, clock=clock) as (first, second):
            lease = await first.wins(key)
            waiting = await second.waits(key, 100.0)
            with counting(each_redis) as counted:
                clock.tick(31.0)  # real time goes on: in Redis the lease is still there
                await until(lambda: counted() == {"pttl": 1, "evalsha": 1, "get": 1, "pexpire": 1})
            assert not waiting.done()
            lease.end(Ended.STORED)
            assert await waiting is Ended.STORED

    run(body)


def test_a_lease_is_renewed_at_a_third_of_its_time_until_it_ends(
    each_redis: RedisServer, key: str, client: Redis
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, 1, clock=clock) as (worker,):
            lease = await worker.wins(key, 30.0)
            for _ in range(4):
                await ticks(3)
                client.pexpire(name(key), 5_000)
                clock.tick(10.0)
                await until(lambda: lease._until == clock.monotonic() + 30.0)
                assert client.pttl(name(key)) > 25_000
                assert not lease.lost
            lease.end(Ended.STORED)
            await lease.released()
            assert client.exists(name(key)) == 0

    run(body)


def test_a_lease_is_not_renewed_for_ever(each_redis: RedisServer, key: str, client: Redis) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, 1, clock=clock, renewed_for=25.0) as (worker,):
            lease = await worker.wins(key, 30.0)
            with counting(each_redis) as counted:
                for _ in range(5):
                    await until(lambda: clock.sleeping == 1)
                    clock.tick(10.0)
                await lease.released()  # the task has ended
                assert counted()["pexpire"] == 2
            assert lease.lost

    run(body)


@pytest.mark.parametrize("foreign", [True, False])
def test_a_lease_that_was_overwritten_or_evicted_is_noticed_and_left_alone(
    each_redis: RedisServer, key: str, client: Redis, foreign: bool
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, 1, clock=clock) as (worker,):
            lease = await worker.wins(key)
            await ticks(3)
            if foreign:
                client.set(name(key), "somebody else's", px=20_000)
            else:
                client.delete(name(key))
            assert not lease.lost
            clock.tick(10.0)
            await until(lambda: lease.lost)
            lease.end(Ended.STORED)
            await lease.released()
            assert client.get(name(key)) == ("somebody else's" if foreign else None)

    run(body)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("ended", [Ended.STORED, Ended.NOTHING, Ended.GONE])
def test_who_waits_hears_of_what_was_stored_though_the_lease_was_taken_from_its_holder(
    each_redis: RedisServer, key: str, client: Redis, ended: Ended, noticed: bool
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(each_redis.url, 2, clock=clock) as (holder, waiter):
            lease = await holder.wins(key)
            waiting = await waiter.waits(key)
            client.set(name(key), "somebody else's")
            if noticed:
                clock.tick(10.0)
                await until(lambda: lease.lost)
            lease.end(ended)
            await lease.released()
            await waiter.link.ping(b"probe")
            await ticks(5)
            assert client.get(name(key)) == "somebody else's"
            if ended is Ended.STORED:
                assert await asyncio.wait_for(waiting, AT_ONCE) is Ended.STORED
            else:
                assert not waiting.done()
                waiting.cancel()

    run(body)


def test_an_end_does_not_delete_the_lease_of_somebody_else(each_redis: RedisServer, key: str, client: Redis) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            lease = await first.wins(key)
            client.delete(name(key))
            await second.wins(key)
            lease.end(Ended.STORED)
            lease.end(Ended.NOTHING)
            await lease.released()
            await first.finds_busy(key)

    run(body)


@pytest.mark.parametrize("foreign", ["string", "list", "long"])
def test_what_stands_in_the_place_of_a_lease_does_not_stay_there(
    each_redis: RedisServer, key: str, client: Redis, foreign: str
) -> None:
    async def body() -> None:
        async with workers(each_redis.url, 1) as (worker,):
            if foreign == "list":
                client.rpush(name(key), "x")
            else:
                client.set(name(key), "x", ex=None if foreign == "string" else 10 * round(LONGEST_LEASE))
            started = time.perf_counter()
            assert await (await worker.finds_busy(key, 0.3)).wait(30.0) is Ended.GONE
            assert time.perf_counter() - started < 0.3 + AT_ONCE
            await worker.wins(key)

    run(body)


@pytest.mark.parametrize("garbage", ["", "x", "stored?"])
def test_a_message_of_somebody_else_only_makes_one_look(
    each_redis: RedisServer, key: str, client: Redis, garbage: str
) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            await first.wins(key)
            waiting = await second.waits(key)
            client.publish(name(key), garbage)
            assert await waiting is Ended.GONE

    run(body)


def test_times_beyond_all_bounds_are_taken_for_the_longest_or_the_shortest(
    each_redis: RedisServer, key: str, client: Redis
) -> None:
    async def body() -> None:
        async with workers(each_redis.url, 1) as (worker,):
            lease = await worker.wins(key, 1e300)
            assert 0 < client.pttl(name(key)) <= LONGEST_LEASE * 1000
            lease.end(Ended.NOTHING)
            await lease.released()
            assert isinstance(await worker.leases.acquire(key, -1.0), Lease)

    run(body)


# ---- Redis that refuses, hangs, or talks garbage ----


def test_a_redis_that_is_not_there_costs_nothing_worth_mentioning(key: str) -> None:
    async def body() -> None:
        async with workers("redis://127.0.0.1:1", 1, clock=TickingClock()) as (worker,):
            for _ in range(3):
                assert await worker.leases.acquire(key, 5.0) is None
            assert worker.breaker.is_open
            started = time.perf_counter()
            for _ in range(100):
                assert await worker.leases.acquire(key, 5.0) is None
            assert time.perf_counter() - started < 0.1  # 1 ms each

    run(body)


def test_a_redis_that_hangs_costs_one_deadline(own_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1, deadline=0.2, clock=TickingClock()) as (worker,):
            lease = await worker.wins(key + "held")
            own_redis.pause()
            started = time.perf_counter()
            assert await worker.leases.acquire(key, 5.0) is None
            assert time.perf_counter() - started < 0.2 + AT_ONCE
            started = time.perf_counter()
            assert await worker.leases.acquire(key, 5.0) is None
            lease.end(Ended.STORED)
            await ticks(5)
            assert time.perf_counter() - started < 0.1
            own_redis.resume()

    run(body)


def test_a_lease_that_ends_while_redis_hangs_keeps_nobody_waiting_once_it_is_well(
    own_redis: RedisServer, key: str
) -> None:
    """As little as one that was asked for just before: Redis reads that when it comes back, and gives it to nobody."""
    clock = TickingClock()

    async def body() -> None:
        async with workers(own_redis.url, 2, deadline=0.3, clock=clock) as (first, second):
            (await first.wins(key)).end(Ended.STORED)
            lease = await first.wins(key + "held")
            own_redis.pause()
            assert await first.leases.acquire(key + "asked for", 30.0) is None
            lease.end(Ended.STORED)
            await ticks(5)
            own_redis.resume()
            for each in ("held", "asked for"):
                assert await until_free(second, key + each)

    async def until_free(worker: Worker, key: str) -> bool:
        """Whether the lease is free long before it runs out."""
        for _ in range(500):
            clock.tick(0.1)
            if isinstance(lease := await worker.leases.acquire(key, 30.0), Lease):
                lease.end(Ended.GONE)
                return True
            await asyncio.sleep(0.01)
        return False

    run(body)


def test_a_redis_that_hangs_when_somebody_wants_to_wait_costs_one_deadline(own_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 2, deadline=0.2, clock=TickingClock()) as (first, second):
            await first.wins(key)
            busy = await second.finds_busy(key)
            own_redis.pause()
            started = time.perf_counter()
            assert await busy.wait(30.0) is Ended.NOTHING
            assert time.perf_counter() - started < 0.2 + AT_ONCE
            own_redis.resume()

    run(body)


def test_a_connection_for_messages_that_hangs_is_replaced(own_redis: RedisServer, key: str) -> None:
    """Redis is well again, but that connection would go on hanging: it must cost one deadline, not one each."""
    clock = TickingClock()

    async def body() -> None:
        async with workers(own_redis.url, 2, deadline=0.2, clock=clock) as (first, second):
            await first.wins(key)
            (await second.waits(key)).cancel()
            before = second.leases._messages.get()._opened
            busy = await second.finds_busy(key)
            own_redis.pause()
            assert await busy.wait(30.0) is Ended.NOTHING
            own_redis.resume()
            clock.tick(5.0)
            while second.breaker.is_open:
                await second.leases.acquire(key, 5.0)
                await asyncio.sleep(0.01)
            (await second.waits(key)).cancel()
            assert second.leases._messages.get()._opened not in (None, before)

    run(body)


def test_who_waits_when_the_connection_for_messages_is_cut_looks_for_himself(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url, 2) as (first, second):
            lease = await first.wins(key)
            waiting = await second.waits(key)
            ask(each_redis, "CLIENT", "KILL", "TYPE", "pubsub")
            with counting(each_redis) as counted:
                await until(lambda: counted().get("pttl", 0) >= 2)
            lease.end(Ended.STORED)
            assert await waiting is Ended.GONE
            waiting = await waits_again(first, second, key)
            assert not waiting.done()
            waiting.cancel()

    async def waits_again(first: Worker, second: Worker, key: str) -> asyncio.Task[Ended]:
        await first.wins(key + "2")
        return await second.waits(key + "2")

    run(body)


def test_a_full_redis_has_no_leases_and_its_breaker_stays_closed(own_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1) as (worker,):
            lease = await worker.wins(key)
            ask(own_redis, "CONFIG", "SET", "maxmemory", "1")
            for _ in range(4):
                assert await worker.leases.acquire(key + "2", 5.0) is None
            assert not worker.breaker.is_open
            failed = worker.signals.of(TierFailed)
            assert {(each.tier, each.operation) for each in failed} == {("L2", "lease")}
            assert "maxmemory" in failed[0].error
            lease.end(Ended.NOTHING)  # what is held can still be let go
            await lease.released()
            assert ask(own_redis, "EXISTS", name(key)) == 0
            assert worker.signals.of(BreakerChanged) == []

    run(body)


@pytest.mark.parametrize("reply", [b"+PONG\r\n", b":1\r\n", b"$3\r\nabc\r\n", b"*0\r\n", b"HTTP/1.1 400\r\n\r\n", b""])
def test_garbage_means_to_compute_without(key: str, reply: bytes) -> None:
    async def body() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while b"SET" not in await reader.read(10_000):
                    writer.write(b"+OK\r\n" * 3)
                writer.write(reply)
                await writer.drain()
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with workers(f"redis://127.0.0.1:{port}?protocol=2", 1, deadline=1.0) as (worker,):
                assert await worker.leases.acquire(key, 5.0) is None

    asyncio.run(body())


# ---- rights ----


def user(server: RedisServer, *words: str) -> str:
    made = f"user-{secrets.token_hex(4)}"
    ask(
        server, "ACL", "SETUSER", made, "on", f">{made}", "resetkeys", "resetchannels", "~lease-test:*", "+@all", *words
    )
    return f"redis://{made}:{made}@127.0.0.1:{server.port}"


def test_a_user_without_channels_waits_by_looking_now_and_then(each_redis: RedisServer, key: str) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(user(each_redis), clock=clock) as (first, second):
            for _ in range(2):
                lease = await first.wins(key)
                waiting = asyncio.create_task((await second.finds_busy(key)).wait(30.0))
                with counting(each_redis) as counted:
                    for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
                        await until(lambda: clock.sleeping == 3)  # with the lease's keeper and the connection's
                        clock.tick(pause - 0.01)
                        assert clock.sleeping == 3
                        clock.tick(0.01)
                    await until(lambda: clock.sleeping == 3)
                    assert counted()["pttl"] == 7
                lease.end(Ended.STORED)
                await lease.released()
                clock.tick(1.0)
                assert await waiting is Ended.GONE
            refused = [each.error for each in second.signals.of(TierFailed)]
            assert len(refused) == 1  # remembered
            assert "channel" in refused[0]
            assert not second.breaker.is_open
            assert first.signals.seen == []

    run(body)


def test_a_user_who_may_not_look_does_not_wait(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(user(each_redis, "-pttl")) as (first, second):
            await first.wins(key)
            assert await (await second.finds_busy(key)).wait(30.0) is Ended.NOTHING

    run(body)


# ---- several loops, closing, cancelling ----


def test_one_object_serves_several_event_loops(redis_server: RedisServer, key: str) -> None:
    worker, other = Worker(redis_server.url), Worker(redis_server.url)

    async def body() -> None:
        lease = await other.wins(key)
        waiting = await worker.waits(key)
        lease.end(Ended.STORED)
        assert await waiting is Ended.STORED
        await lease.released()
        # Neither is closed: the end of the loop has to do.

    asyncio.run(body())
    uvloop.run(body())
    asyncio.run(body())


def test_closing_ends_what_is_held(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            await first.wins(key)
            waiting = await second.waits(key)
            await first.leases.aclose()
            assert await waiting is Ended.GONE
            await first.leases.aclose()
            await second.wins(key)

    run(body)


def test_a_worker_that_closes_while_it_waits_looks_once_more_and_goes_on(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            lease = await first.wins(key)
            waiting = await second.waits(key)
            await second.leases.aclose()
            lease.end(Ended.STORED)
            assert await waiting is Ended.GONE

    run(body)


def test_each_moment_of_a_cancellation_leaves_no_task_and_nobody_waiting(each_redis: RedisServer, key: str) -> None:
    """In `acquire`, in `wait` and in the look between; what Redis has heard of is let go again."""

    async def asks(worker: Worker, key: str) -> None:
        lease = await worker.leases.acquire(key, 30.0)
        if isinstance(lease, Busy):
            await lease.wait(30.0)
        elif lease is not None:
            lease.end(Ended.STORED)

    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            await first.wins(f"{key}held")
            await (await second.waits(f"{key}held", 0.01))
            for steps in range(25):
                for target in (f"{key}held", f"{key}{steps}"):
                    task = asyncio.create_task(asks(second, target))
                    for _ in range(steps):
                        await asyncio.sleep(0 if steps % 2 else 0.0005)
                    task.cancel()
                    await asyncio.wait([task])
                    assert second.leases._messages.get()._waiting == {}
            await until(lambda: not second.leases._held.get())
            assert [steps for steps in range(25) if ask(each_redis, "EXISTS", name(f"{key}{steps}"))] == []
            # And it still works.
            lease = await first.wins(key)
            waiting = await second.waits(key)
            lease.end(Ended.STORED)
            assert await waiting is Ended.STORED

    run(body)


def test_one_who_leaves_while_subscribing_disturbs_nobody(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url) as (first, second):
            leases = [await first.wins(f"{key}{number}") for number in range(2)]
            waiting = await second.waits(f"{key}0")
            messages = second.leases._messages.get()
            leaving = asyncio.create_task((await second.finds_busy(f"{key}1")).wait(30.0))
            await until(lambda: bool(messages._unanswered))
            leaving.cancel()
            await asyncio.wait([leaving])
            for lease in leases:
                lease.end(Ended.STORED)
            assert await waiting is Ended.STORED
            assert messages.connected

    run(body)


# ---- what it costs ----


@contextlib.contextmanager
def counting(server: RedisServer) -> Iterator[Callable[[], dict[str, int]]]:
    """How often the server has run each command since; those of scripts count, those of connecting do not."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        client.ping()
        ours = {"config|resetstat", "config", "info", "client|setinfo", "client", "hello", "ping", "select", "auth"}

        def counted() -> dict[str, int]:
            stats: dict[str, Any] = client.info("commandstats")
            calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
            return {name: times for name, times in calls.items() if name not in ours}

        client.config_resetstat()
        yield counted


def test_a_free_lease_costs_one_command_and_its_end_another(each_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(each_redis.url, 1) as (worker,):
            (await worker.wins(key + "first")).end(Ended.STORED)
            await until(lambda: not worker.leases._held.get())
            with counting(each_redis) as counted:
                lease = await worker.wins(key)
                assert counted() == {"set": 1}
                lease.end(Ended.STORED)
                await lease.released()
                assert counted() == {"set": 1, "evalsha": 1, "get": 1, "del": 1, "publish": 1}

    run(body)


def test_four_workers_and_one_cold_key_cost_23_commands_those_of_scripts_included(
    each_redis: RedisServer, key: str
) -> None:
    clock = SystemClock()
    calls: list[Worker] = []

    async def request(worker: Worker) -> bytes | None:
        async def look() -> bytes | None:
            return (await worker.tier.get_many([key]))[0]

        async def work(lease: Lease) -> bytes | None:
            calls.append(worker)
            await asyncio.sleep(0.3)
            await worker.tier.set_many([Write(key, b"value", 10.0)])
            lease.end(Ended.STORED)
            return b"value"

        return await look() or await once(
            worker.leases, key, look=look, work=work, seconds=5.0, patience=5.0, clock=clock
        )

    async def body() -> None:
        async with workers(each_redis.url, 4) as fleet:
            for worker in fleet:
                await worker.tier.get_many(["warm"])
            lease = await fleet[0].wins(key)
            lease.end(Ended.NOTHING)
            await lease.released()  # the script is known
            with counting(each_redis) as counted:
                started = time.perf_counter()
                assert await asyncio.gather(*map(request, fleet)) == [b"value"] * 4
                assert time.perf_counter() - started < 0.3 + AT_ONCE
                await until(lambda: not fleet[0].leases._held.get())
                spent = counted()
            assert len(calls) == 1
            assert spent == {
                "get": 4 + 1 + 3 + 1,  # each at first, the winner again, each that waited; and the script
                "set": 4 + 1,
                "subscribe": 3,
                "pttl": 3,
                **{"evalsha": 1, "del": 1, "publish": 1},
            }
            assert sum(spent.values()) == 23

    run(body)


# ---- a Redis that hangs while somebody waits ----


def test_who_waits_for_a_lease_hears_in_a_deadline_or_two_that_redis_hangs(own_redis: RedisServer, key: str) -> None:
    """Nothing else asks Redis meanwhile, and neither the lease nor the patience of those who wait is near its end."""

    async def body() -> None:
        async with workers(own_redis.url, deadline=0.3) as (first, second):
            await first.wins(key)
            waiting = [await second.waits(key) for _ in range(3)]
            own_redis.pause()
            started = time.monotonic()
            async with asyncio.timeout(10):
                assert await asyncio.gather(*waiting) == [Ended.NOTHING] * 3
            sys.stderr.write(f"waited for {time.monotonic() - started:.2f} s\n")
            assert second.breaker.is_open
            own_redis.resume()

    asyncio.run(body())


def test_who_waits_for_a_lease_hears_at_once_that_others_have_found_redis_to_hang(
    redis_server: RedisServer, key: str
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(redis_server.url, deadline=0.3, clock=clock) as (first, second):
            await first.wins(key)
            waiting = await second.waits(key)
            second.breaker.failed("get", TimeoutError())
            clock.tick(0.3 / 2 / LOOKS)
            async with asyncio.timeout(10):
                assert await waiting is Ended.NOTHING

    asyncio.run(body())


def test_however_many_wait_one_ping_asks_for_all_and_none_does_when_nobody_waits(
    own_redis: RedisServer, key: str
) -> None:
    clock = TickingClock()

    async def body() -> None:
        async with workers(own_redis.url, clock=clock, deadline=4.0) as (first, second):
            leases = [await first.wins(key + str(number)) for number in range(5)]
            waiting = [await second.waits(key + str(number)) for number in range(5)]
            with Redis.from_url(own_redis.url) as client:

                def pings() -> int:
                    times: int = client.info("commandstats")["cmdstat_ping"]["calls"]
                    return times

                before = pings()
                for number in range(3):
                    for _ in range(LOOKS):
                        clock.tick(2.0 / LOOKS)
                        await ticks(5)
                    await until(lambda number=number: pings() == before + number + 1)  # type: ignore[misc]
                    # Those who wait and the keepers of the leases, the connection, the watch.
                    await until(lambda: clock.sleeping == 12)
                for lease in leases:
                    lease.end(Ended.STORED)
                assert await asyncio.gather(*waiting) == [Ended.STORED] * 5
                for _ in range(3):
                    clock.tick(2.0)
                    await ticks(5)
                await second.link.ask(b"GET", b"nothing")
                assert pings() == before + 3

    asyncio.run(body())


def test_while_redis_takes_no_writes_no_lease_is_asked_for(own_redis: RedisServer, key: str) -> None:
    async def body() -> None:
        async with workers(own_redis.url, number=1) as (worker,):
            worker.breaker.writes.failed()
            with counting(own_redis) as counted:
                assert await worker.leases.acquire(key, 3.0) is None
                assert "set" not in counted()

    asyncio.run(body())
