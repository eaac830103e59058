from manifests import load, values_of


def test_workers_of_the_config_map_are_those_of_the_autoscaler() -> None:
    largest = load("components/worker-scaling/autoscaler.yaml")["spec"]["maxReplicas"]
    rolling = load("components/worker/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]
    assert values_of("production")["MAX_WORKERS"] == str(2 * largest + rolling["maxSurge"])
