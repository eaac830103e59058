import enum
from typing import Literal

import pytest
from sqlalchemy import CheckConstraint, MetaData, exc, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.engine import create_migration_engine
from app.db.model import Model, NumberedId
from app.db.session import open_database
from conftest import settings_for


class Status(enum.Enum):
    NEW = "new"
    SENT = "sent-off"


class Reserved(Model):
    """The tables of this module are not among those of the service."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Model.metadata.naming_convention)


class Parcel(Reserved):
    __tablename__ = "_test_parcels"

    id: Mapped[NumberedId]
    status: Mapped[Status]
    size: Mapped[Literal["small", "large"] | None]
    kind: Mapped[str] = mapped_column(server_default="parcel")

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parcel"}  # noqa: RUF012 - SQLAlchemy reads it as declared


class Letter(Parcel):
    paper: Mapped[Literal["white", "brown"] | None]

    __mapper_args__ = {"polymorphic_identity": "letter"}  # noqa: RUF012 - SQLAlchemy reads it as declared


def test_enum_column_has_one_check_with_its_name() -> None:
    table = Reserved.metadata.tables["_test_parcels"]
    checks = [item for item in table.constraints if isinstance(item, CheckConstraint)]
    names = sorted(str(check.name) for check in checks)
    columns = ["paper", "size", "status"]  # paper is a column of the subclass
    assert names == [f"ck__test_parcels_{column}" for column in columns]


async def test_enum_column_stores_the_values_as_text(empty_database: str) -> None:
    settings = settings_for(empty_database)
    async with create_migration_engine(settings).begin() as connection:
        await connection.run_sync(Reserved.metadata.create_all)
    async with open_database(settings) as database:
        async with database.session() as session:
            session.add(Parcel(status=Status.SENT, size="small"))
        async with database.session() as session:
            parcel = await session.get_one(Parcel, 1)
            assert (parcel.status, parcel.size) == (Status.SENT, "small")
            stored = "SELECT status FROM _test_parcels"
            assert await session.scalar(text(stored)) == "sent-off"
        with pytest.raises(exc.IntegrityError, match="ck__test_parcels_status"):
            async with database.session() as session:
                await session.execute(text("UPDATE _test_parcels SET status = 'lost'"))
