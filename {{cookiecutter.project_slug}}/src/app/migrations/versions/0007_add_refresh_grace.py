"""Add the grace period of refresh tokens, and the last use of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:

    op.add_column("sessions", sa.Column("previous_digest", sa.LargeBinary(), nullable=True))
    op.add_column(
        "sessions",
        sa.Column(
            "last_used_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
    )


def downgrade() -> None:

    op.drop_column("sessions", "last_used_at")
    op.drop_column("sessions", "previous_digest")
