"""Real services that fail in the middle of real work: nothing is lost, doubled or left over."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

import services
from chaos.servers import PostgresServer
from living import wait_for
from rabbitmq import MissingRabbitError
from real.stage import Broker, Stage, forget, impatient_neighbour, make_broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer()
    except services.MissingServiceError as error:
        services.missing(error)
    yield server
    server.close()


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    try:
        server = make_broker(request.param)
    except (services.MissingServiceError, MissingRabbitError) as error:
        services.missing(services.MissingServiceError(str(error)))
    yield server
    server.close()


@pytest.fixture(scope="module")
def stage(
    postgres: PostgresServer, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("stage"), postgres, broker)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def whole(stage: Stage) -> None:
    """Each test begins with workers that consume, whatever the last one did to them."""
    stage.ready()


def test_a_run_says_its_lines_ends_with_its_code_and_leaves_nothing(stage: Stage) -> None:
    stage.proven(stage.load(trouble=lambda: None))
    failed = stage.finished(stage.submit("echo no >&2; exit 3"))
    assert (failed["status"], failed["exit_code"]) == ("failed", 3)
    late = stage.finished(stage.submit("sleep 60", timeout_s=1))
    assert late["status"] == "timed_out"
    stage.proven([], status="succeeded")


def test_a_broker_that_forgets_everything(stage: Stage) -> None:
    def forgets() -> None:
        for _ in range(3):
            forget(stage.broker, "leasehold", "leasehold.beat", "leasehold.provider.local")
            time.sleep(0.3)

    stage.proven(stage.load(trouble=forgets))


def test_a_broker_that_is_killed_and_comes_back(stage: Stage) -> None:
    def restarts() -> None:
        stage.broker.kill()
        stage.submit("echo accepted without a broker")
        stage.broker.start()

    stage.proven(stage.load(trouble=restarts))
    # Celery's known fault: connected again, and taking nothing.
    stage.ready()
    stage.proven(stage.load(trouble=lambda: None))


def test_a_worker_that_does_not_outlive_a_restart_of_the_broker(stage: Stage) -> None:
    killed: list[int] = []

    def ends_with_the_broker() -> None:
        stage.broker.kill()
        killed.append(stage.kill("steps"))
        stage.broker.start()

    # Celery's other known fault: the worker exits. Its agent starts another.
    ids = stage.load(trouble=ends_with_the_broker)
    assert stage.ready(besides=tuple(killed))["steps"] not in killed
    stage.proven(ids)


def test_an_agent_and_its_workers_killed_at_once(stage: Stage) -> None:
    before: list[int] = []

    def dies() -> None:
        before.extend(stage.home.workers().values())
        stage.agent.send(signal.SIGKILL)
        for pid in before:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stage.agent.ended()
        stage.agent = stage.hire()

    ids = stage.load(trouble=dies)
    stage.ready(besides=tuple(before))
    stage.proven(ids)


def test_a_drained_agent_leaves_its_commands_to_the_next(stage: Stage) -> None:
    def drains() -> None:
        stage.agent.send(signal.SIGTERM)
        assert stage.agent.ended(within_s=90) == 0
        stage.agent = stage.hire()

    stage.proven(stage.load(trouble=drains))


def test_a_command_of_20_s_beside_a_visibility_timeout_of_one(stage: Stage) -> None:
    with impatient_neighbour(stage):
        long = [stage.submit("sleep 20; echo slept") for _ in range(3)]
        ids = stage.load(trouble=lambda: time.sleep(2))
        for run_id in long:
            assert stage.finished(run_id)["status"] == "succeeded"
    assert [stage.starts(run_id) for run_id in long] == [1] * len(long)
    stage.proven(ids)


def test_a_broker_that_accepts_and_never_answers(stage: Stage) -> None:
    def hangs() -> None:
        with stage.to_broker.stalled():
            stage.submit("echo accepted beside a hanging broker")
            time.sleep(8)

    stage.proven(stage.load(trouble=hangs))
    stage.ready()


def test_connections_to_the_broker_that_are_cut_again_and_again(stage: Stage) -> None:
    def cuts() -> None:
        for _ in range(5):
            stage.to_broker.cut()
            time.sleep(0.4)

    stage.proven(stage.load(trouble=cuts))
    assert stage.agent.popen.poll() is None
    stage.ready()


def test_a_database_restarted_in_immediate_mode(stage: Stage) -> None:
    def crashes() -> None:
        stage.postgres.stop(immediate=True)
        stage.postgres.start()

    stage.proven(stage.load(trouble=crashes))
    stage.ready()


def test_answers_to_commits_that_never_come(stage: Stage) -> None:
    lost = stage.to_postgres.lost_answers

    def loses() -> None:
        for _ in range(4):
            stage.to_postgres.lose_answers(2)
            stage.submit("echo in between")
            wait_for(
                "commits whose answers are lost",
                lambda: not stage.to_postgres.armed,
                within_s=60,
            )

    stage.proven(stage.load(trouble=loses))
    assert stage.to_postgres.lost_answers - lost == 8
    stage.ready()
