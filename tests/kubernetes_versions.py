"""Images of several versions of a baked service, for the roll-outs of tests."""

from dataclasses import dataclass
from pathlib import Path

from engine import docker
from kubernetes_manifests import IMAGE
from test_failures import CONCURRENTLY, FAILING

DECAF = "ENV COMMIT_SHA=decaf"


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
        return [f"{IMAGE}:{tag}" for tag in tags]


def build_versions(project: Path, folder: Path) -> Versions:
    """Build the image of a baked service, and variants of it."""
    first = f"{IMAGE}:first"
    build(first, project, "--build-arg", "COMMIT_SHA=c0ffee")

    def variant(name: str, *lines: str, migration: str = "") -> str:
        (folder / name).mkdir()
        (folder / name / "Dockerfile").write_text("\n".join([f"FROM {first}", *lines, ""]))
        (folder / name / "9000_next.py").write_text(
            migration.replace('down_revision = "0001"', f'down_revision = "{revision}"')
        )
        build(f"{IMAGE}:{name}", folder / name)
        return name

    migrations = (project / "src" / "app" / "migrations" / "versions").glob("*.py")
    revision = max(path.name.partition("_")[0] for path in migrations)
    python = docker("run", "--rm", first, "python", "-c", "import app; print(app.__path__[0])")
    more = (f"COPY 9000_next.py {python}/migrations/versions/", DECAF)
    return Versions(
        manifests=project / "deploy" / "kubernetes",
        first="first",
        second=variant("second", DECAF),
        silent=variant("silent", "ENV COMMIT_SHA=5eed", 'CMD ["sleep", "600"]'),
        migrating=variant("migrating", *more, migration=CONCURRENTLY),
        failing=variant("failing", *more, migration=FAILING),
        revision=revision,
    )


def build(tag: str, folder: Path, *options: str) -> None:
    docker("build", "--quiet", "--tag", tag, *options, str(folder), timeout=900)
