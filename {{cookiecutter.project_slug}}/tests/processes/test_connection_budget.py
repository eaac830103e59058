"""The connections of all replicas in the report of `app check`."""

from processes import ROOT, Finished, environment, run


def check(database_url: str, **variables: str) -> Finished:
    return run(["app", "check"], environment(database_url, **variables), ROOT)


def test_check_without_a_number_of_replicas_compares_nothing(database_url: str) -> None:
    assert "connections" not in check(database_url).stdout


def test_check_reports_the_connections_of_all_replicas(database_url: str) -> None:
    result = check(database_url, MAX_REPLICAS="2", DATABASE_POOL_SIZE="3")
    assert result.returncode == 0, result.stdout
    assert "connections ok      2 replicas x 1 x (3 + 2)" in result.stdout


def test_check_fails_for_more_connections_than_postgresql_accepts(database_url: str) -> None:
    result = check(database_url, MAX_REPLICAS="1000")
    assert result.returncode == 1
    assert "connections failed  1000 replicas x 1 x (16 + 2)" in result.stdout
    assert "lower DATABASE_POOL_SIZE" in result.stdout


def test_check_behind_a_pooler_compares_nothing(database_url: str) -> None:
    result = check(database_url, MAX_REPLICAS="1000", DATABASE_UNPOOLED_URL=database_url)
    assert result.returncode == 0, result.stdout
    assert "connections ok      not compared" in result.stdout
