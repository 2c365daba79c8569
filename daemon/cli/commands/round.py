"""`round`: the story of a round from the journal on disk."""

from __future__ import annotations

import sys

import click
import msgspec

from daemon.cli.invocation import Invocation, global_options, invocation_of, is_terminal
from daemon.cli.terminal.columns import output_width
from daemon.cli.terminal.round_text import headline, round_text
from daemon.home.layout import JOURNAL_FILE
from daemon.journal_reader import JournalReader
from daemon.round_story import RoundStories
from protocol.errors import UserError
from protocol.status.figures import quantity

MAX_LISTED = 10_000


@click.command()
@click.argument("number", metavar="[N]", type=click.IntRange(min=0), required=False)
@click.option(
    "--last",
    type=click.IntRange(1, MAX_LISTED),
    metavar="COUNT",
    help="List the last COUNT rounds, one on each line.",
)
@global_options(hidden=True)
@click.pass_context
def round(context: click.Context, number: int | None, last: int | None) -> None:
    """Tell how a round went: phases, lost members, certificate.

    N is the number of the round. Default: the last one in the journal. The node does not have to
    run.

    The story has each view of the round with the leader, the plan and its reason, the phases with
    times in UTC, and why the view failed. The certificate follows with its voters, then the members
    with work that counts and with lost work.

    "round N view V" is the same in the journals and logs of all members. To see the other side of a
    failure, run this command on another member's home, or search its hypergpud.log for
    "round N view V".
    """
    invocation = invocation_of(context)
    if number is not None and last is not None:
        raise click.UsageError("Give N or --last, not both.")
    reader = JournalReader(invocation.home / JOURNAL_FILE)
    stories = RoundStories(keep=last or 1, only=number).read(reader)
    if reader.unreadable:
        invocation.say(f"Skipped {quantity(reader.unreadable, 'unreadable line')} of the journal.")
    if not stories.stories:
        raise _no_story(invocation, number, stories)
    width = output_width(terminal=is_terminal(sys.stdout))
    if last is not None:
        if invocation.as_json:
            invocation.result(msgspec.json.encode(stories.stories).decode())
        else:
            invocation.result("\n".join(headline(story) for story in stories.stories))
        return
    story = stories.stories[-1]
    invocation.result(
        msgspec.json.encode(story).decode() if invocation.as_json else round_text(story, width)
    )


def _no_story(invocation: Invocation, number: int | None, stories: RoundStories) -> UserError:
    path = invocation.home / JOURNAL_FILE
    if stories.first is None:
        return UserError(
            "NO_ROUND",
            f"No round in {path}.",
            why="this node has not begun a round yet, or --home names another home",
            fix="hypergpud start, or hypergpud round --home PATH",
        )
    return UserError(
        "NO_ROUND",
        f"Round {number} is not in {path}.",
        why=f"the journal has the rounds {stories.first} to {stories.last}",
        fix=f"hypergpud round {stories.last}",
    )
