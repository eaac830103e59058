"""The declarative base class of every model, and a primary key that most of them have."""

import uuid
from datetime import datetime
from typing import Annotated

from sqlalchemy import TIMESTAMP, BigInteger, MetaData, Text, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

GeneratedId = Annotated[
    uuid.UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
]


class Model(DeclarativeBase):
    """Models inherit from this class. Constraints get predictable names for migrations."""

    # INSERT and UPDATE return the values that the server computes. Reading such an attribute would
    # otherwise need a query, which an AsyncSession cannot run implicitly.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy reads it as declared

    type_annotation_map = {int: BigInteger, str: Text, datetime: TIMESTAMP(timezone=True)}  # noqa: RUF012 - SQLAlchemy reads it as declared

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
