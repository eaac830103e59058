"""The command `app mails`."""

import click


@click.command()
@click.option("--all", "every", is_flag=True, help="Print all of them, the newest last.")
def mails(*, every: bool) -> None:
    """Print the newest mail that development has kept instead of sending it."""
    from email import message_from_bytes
    from email.policy import default

    from app.mail.transport import FOLDER

    files = sorted(FOLDER.glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise click.ClickException(f"{FOLDER} has no mail")
    for file in files if every else files[-1:]:
        mail = message_from_bytes(file.read_bytes(), policy=default)
        body = mail.get_body(["plain"])
        text = body.get_content() if body else ""
        click.echo(f"To: {mail['To']}\nSubject: {mail['Subject']}\n\n{text}")
