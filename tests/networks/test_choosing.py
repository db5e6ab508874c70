"""A sandbox is asked itself where it reaches the API, on whatever network it is."""

from typing import Any

import pytest

from bubblewrap_world import require_bubblewrap
from leasehold.orchestrator import choosing
from networks.conftest import (
    AWAY,
    AWAY6,
    EVERYWHERE,
    EVERYWHERE6,
    HOME,
    HOME6,
    LOOPBACK,
    NOBODY,
    Network,
)

pytestmark = pytest.mark.slow


def answers(told: dict[str, Any]) -> dict[str, str]:
    return {one["url"]: one["answer"] for one in told["runtime"]["tried"]}


def assert_reports(told: dict[str, Any], url: str) -> None:
    """It was given this URL, and has reported there with its token."""
    assert told["runtime"]["url"] == url, told["runtime"]
    assert told["stdout"] == f"url={url}\n"
    assert told["percent"] == 7
    assert answers(told)[url] == "ok"


def assert_none(told: dict[str, Any]) -> None:
    """It was given no URL, and its run has worked all the same."""
    assert told["runtime"]["url"] is None, told["runtime"]
    assert told["stdout"] == "url=\n"
    assert told["percent"] is None
    assert "ok" not in answers(told).values()


def test_a_loopback_is_reached_by_sandboxes_that_share_it(network: Network) -> None:
    told = network.carry("home", api_bind=f"127.0.0.1:{LOOPBACK}")
    assert_reports(told, f"http://127.0.0.1:{LOOPBACK}")


def test_a_loopback_is_nothing_to_other_machines(network: Network) -> None:
    told = network.carry("away", api_bind=f"127.0.0.1:{LOOPBACK}")
    assert_none(told)
    assert set(answers(told)) == {
        f"http://127.0.0.1:{LOOPBACK}",
        f"http://{AWAY}:{LOOPBACK}",
        f"http://[{AWAY6}]:{LOOPBACK}",
    }


def test_who_listens_everywhere_is_found_by_an_address_of_the_machine(
    network: Network,
) -> None:
    told = network.carry("home", api_bind=f"0.0.0.0:{EVERYWHERE}")
    assert_reports(told, f"http://{HOME}:{EVERYWHERE}")
    assert told["runtime"]["tried"][0]["source"] == "interface"


def test_an_address_of_ipv6_is_found_as_well(network: Network) -> None:
    told = network.carry("home", api_bind=f"[::]:{EVERYWHERE6}")
    assert_reports(told, f"http://[{HOME6}]:{EVERYWHERE6}")
    assert answers(told)[f"http://{HOME}:{EVERYWHERE6}"] != "ok"
    told = network.carry("away", public_url=f"http://[{HOME6}]:{EVERYWHERE6}")
    assert_reports(told, f"http://[{HOME6}]:{EVERYWHERE6}")


def test_a_name_that_leads_to_a_stranger_is_not_believed(network: Network) -> None:
    told = network.carry(
        "away", public_url=f"http://runs.test:{EVERYWHERE}", api_names="nowhere.test,api.test"
    )
    assert answers(told)[f"http://runs.test:{EVERYWHERE}"] == "another deployment"
    assert_reports(told, f"http://api.test:{EVERYWHERE}")


def test_one_that_never_answers_costs_a_bounded_time(network: Network) -> None:
    public = f"http://{HOME}:{EVERYWHERE}"
    quick = network.carry("away", public_url=public)
    told = network.carry("away", runtime_url=f"http://{NOBODY}:{EVERYWHERE}", public_url=public)
    assert_reports(told, public)
    assert_reports(quick, public)
    assert told["took_s"] - quick["took_s"] < choosing.ALL_S + 5
    assert answers(told)[f"http://{NOBODY}:{EVERYWHERE}"] != "ok"


def test_without_a_network_there_is_no_url_and_the_run_works(network: Network) -> None:
    told = network.carry(
        "alone", public_url=f"http://{HOME}:{EVERYWHERE}", api_bind=f"127.0.0.1:{LOOPBACK}"
    )
    assert_none(told)


def test_nobody_is_asked_where_no_api_is_known(network: Network) -> None:
    told = network.carry("home")
    assert told["runtime"] is None
    assert told["stdout"] == "url=\n"


def test_behind_bubblewrap_the_sandboxes_own_network_decides(network: Network) -> None:
    require_bubblewrap()
    bind = {"provider": "bubblewrap", "api_bind": f"127.0.0.1:{LOOPBACK}"}
    assert_none(network.carry("home", config={"network": "none"}, **bind))
    told = network.carry("home", config={"network": "full"}, **bind)
    assert_reports(told, f"http://127.0.0.1:{LOOPBACK}")
