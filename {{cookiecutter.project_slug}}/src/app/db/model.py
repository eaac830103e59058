"""The declarative base class of every model, and primary keys that the server generates."""

import enum
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Enum,
    Identity,
    MetaData,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column

GeneratedId = Annotated[
    uuid.UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
]


NumberedId = Annotated[int, mapped_column(Identity(), primary_key=True)]
# Text with the values of the enum. A native enum could not lose a value.
EnumText = Enum(
    enum.Enum, native_enum=False, length=None, values_callable=lambda kind: [m.value for m in kind]
)


class Model(DeclarativeBase):
    """Models inherit from this class. Constraints get predictable names for migrations."""

    # INSERT and UPDATE return the values that the server computes. Reading such an attribute would
    # otherwise need a query, which an AsyncSession cannot run implicitly.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy reads it as declared

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as declared
        int: BigInteger,
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        enum.Enum: EnumText,
        Literal: EnumText,
    }

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    def __init_subclass__(cls, **options: Any) -> None:
        """Add a check for each column of an enum, with the name of the column."""
        super().__init_subclass__(**options)
        table = cls.metadata.tables.get(str(getattr(cls, "__table__", None)))
        if table is None:
            return  # an abstract class
        # A subclass without a table of its own adds columns to that of its base class.
        checked: set[str] = table.info.setdefault("checked_enums", set())
        for column in table.columns:
            if isinstance(column.type, Enum) and column.name not in checked:
                checked.add(column.name)
                check = CheckConstraint(column.in_(column.type.enums), name=column.name)
                table.append_constraint(check)
