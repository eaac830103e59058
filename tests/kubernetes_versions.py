"""Images of several versions of a baked service, for the roll-outs of tests."""

from dataclasses import dataclass
from pathlib import Path

from engine import docker
from kubernetes import SERVICE
from test_failures import CONCURRENTLY, FAILING, with_migration


@dataclass(frozen=True)
class Versions:
    """Tags of images of one service, and its manifests.

    Attributes:
        manifests: the service's deploy/kubernetes.
        first: the commit c0ffee.
        second: the same code, with the commit decaf.
        silent: a version whose server never listens.
        migrating: the second version, with one more migration.
        failing: a version whose migration fails.
        revision: the last migration of the first version.
    """

    manifests: Path
    first: str
    second: str
    silent: str
    migrating: str
    failing: str
    revision: str

    def images(self) -> list[str]:
        tags = (self.first, self.second, self.silent, self.migrating, self.failing)
        return [f"{SERVICE}:{tag}" for tag in tags]


def build_versions(project: Path, folder: Path) -> Versions:
    """Build the image of a baked service, and variants of it."""
    first = f"{SERVICE}:test-cluster-first"
    build(first, project, "--build-arg", "COMMIT_SHA=c0ffee")

    def variant(name: str, *lines: str) -> str:
        (folder / name).mkdir()
        (folder / name / "Dockerfile").write_text("\n".join([f"FROM {first}", *lines, ""]))
        build(f"{SERVICE}:test-cluster-{name}", folder / name)
        return f"test-cluster-{name}"

    migrations = (project / "src" / "app" / "migrations" / "versions").glob("*.py")
    revision = max(path.name.partition("_")[0] for path in migrations)

    def migration(text: str) -> str:
        text = text.replace('down_revision = "0001"', f'down_revision = "{revision}"')
        return with_migration(first, text, folder / "migration").rpartition(":")[2]

    return Versions(
        manifests=project / "deploy" / "kubernetes",
        first="test-cluster-first",
        second=variant("second", "ENV COMMIT_SHA=decaf"),
        silent=variant("silent", "ENV COMMIT_SHA=5eed", 'CMD ["sleep", "600"]'),
        migrating=migration(CONCURRENTLY),
        failing=migration(FAILING),
        revision=revision,
    )


def build(tag: str, folder: Path, *options: str) -> None:
    docker("build", "--quiet", "--tag", tag, *options, str(folder), timeout=900)
