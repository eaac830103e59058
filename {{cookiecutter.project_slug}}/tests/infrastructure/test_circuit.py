"""The circuit opens after failures in a row, tries again after a pause, and closes."""

import pytest

from app.circuit import Circuit


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(max_failures=3, pause_seconds=10, clock=clock)


@pytest.fixture
def open_circuit(circuit: Circuit) -> Circuit:
    for _ in range(3):
        assert circuit.allows_call()
        circuit.record_failure()
    return circuit


def test_circuit_opens_after_the_maximum_of_failures_in_a_row(circuit: Circuit) -> None:
    for _ in range(2):
        circuit.record_failure()
    circuit.record_success()
    for _ in range(2):
        circuit.record_failure()
        assert circuit.allows_call()
    circuit.record_failure()
    assert not circuit.allows_call()


def test_open_circuit_allows_one_call_after_each_pause(open_circuit: Circuit, clock: Clock) -> None:
    for _ in range(2):
        clock.now += 9.9
        assert not open_circuit.allows_call()
        clock.now += 0.1
        assert open_circuit.allows_call()  # and it is cancelled: its end is not recorded
        assert not open_circuit.allows_call()


def test_success_after_the_pause_closes_the_circuit(open_circuit: Circuit, clock: Clock) -> None:
    clock.now += 10
    assert open_circuit.allows_call()
    open_circuit.record_success()
    for _ in range(2):
        assert open_circuit.allows_call()
        open_circuit.record_failure()
    assert open_circuit.allows_call()


def test_failure_after_the_pause_begins_another_pause(open_circuit: Circuit, clock: Clock) -> None:
    clock.now += 10
    assert open_circuit.allows_call()
    clock.now += 5  # the call fails late
    open_circuit.record_failure()
    clock.now += 9.9
    assert not open_circuit.allows_call()
    clock.now += 0.1
    assert open_circuit.allows_call()
