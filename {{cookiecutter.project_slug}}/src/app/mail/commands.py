"""The command `app mails`."""

import click


@click.command()
@click.option("--all", "every", is_flag=True, help="Print all of them, the newest last.")
def mails(*, every: bool) -> None:
    """Print the newest mail that development has caught."""
    from app.dev.mail.folder import FOLDER, find_mails

    found = find_mails()
    if not found:
        raise click.ClickException(f"{FOLDER} has no mail")
    for mail in found if every else found[-1:]:
        headers = mail.message
        click.echo(f"To: {headers['To']}\nSubject: {headers['Subject']}\n\n{mail.text}")
