"""Create the tables of log-ins with providers. Accounts may have no password."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        "-- squawk-ignore ban-drop-constraint\nALTER TABLE administrative_acts DROP CONSTRAINT ck_administrative_acts_act"
    )
    op.create_table(
        "provider_links",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column(
            "last_used_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_provider_links_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_links")),
        sa.UniqueConstraint(
            "account_id", "issuer", name=op.f("uq_provider_links_account_id_issuer")
        ),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_provider_links_issuer_subject")),
    )
    op.create_table(
        "provider_logins",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_provider_logins_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_provider_logins")),
    )
    op.create_index(
        op.f("ix_provider_logins_account_id"), "provider_logins", ["account_id"], unique=False
    )
    op.create_index(
        op.f("ix_provider_logins_expires_at"), "provider_logins", ["expires_at"], unique=False
    )
    op.execute(
        "-- squawk-ignore ban-drop-not-null\nALTER TABLE accounts ALTER COLUMN password_hash DROP NOT NULL"
    )
    op.add_column("administrative_acts", sa.Column("provider", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_administrative_acts_act"),
        "administrative_acts",
        "act IN ('grant', 'revoke', 'disable', 'enable', 'link', 'unlink', 'take-over')",
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_administrative_acts_act"), "administrative_acts", type_="check")
    op.drop_column("administrative_acts", "provider")
    # No password has an empty hash, and the version before refuses such log-ins.
    op.execute("UPDATE accounts SET password_hash = '' WHERE password_hash IS NULL")
    op.execute(
        "-- squawk-ignore adding-not-nullable-field\nALTER TABLE accounts ALTER COLUMN password_hash SET NOT NULL"
    )
    op.drop_index(op.f("ix_provider_logins_expires_at"), table_name="provider_logins")
    op.drop_index(op.f("ix_provider_logins_account_id"), table_name="provider_logins")
    op.drop_table("provider_logins")
    op.drop_table("provider_links")
    op.create_check_constraint(
        op.f("ck_administrative_acts_act"),
        "administrative_acts",
        "act IN ('grant', 'revoke', 'disable', 'enable')",
        postgresql_not_valid=True,
    )
