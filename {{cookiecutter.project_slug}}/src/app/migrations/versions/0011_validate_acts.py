"""Validate the check of the acts."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("ALTER TABLE administrative_acts VALIDATE CONSTRAINT ck_administrative_acts_act")


def downgrade() -> None:
    pass
