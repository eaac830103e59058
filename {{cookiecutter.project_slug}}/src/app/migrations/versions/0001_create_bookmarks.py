"""Create the tables of bookmarks and of their tags."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "bookmarks",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column(
            "updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name="pk_bookmarks"),
        sa.UniqueConstraint("url", name="uq_bookmarks_url"),
    )
    op.create_index("ix_bookmarks_created_at_id", "bookmarks", ["created_at", "id"])
    op.create_index("ix_bookmarks_title_id", "bookmarks", ["title", "id"])
    op.create_table(
        "bookmark_tags",
        sa.Column("bookmark_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bookmark_id"],
            ["bookmarks.id"],
            name="fk_bookmark_tags_bookmark_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("bookmark_id", "name", name="pk_bookmark_tags"),
    )
    op.create_index("ix_bookmark_tags_name", "bookmark_tags", ["name"])


def downgrade() -> None:
    op.drop_table("bookmark_tags")
    op.drop_table("bookmarks")
