"""A person at `pagewalk tui`: keys pressed, and what the screen shows then."""

import asyncio
from itertools import groupby
from typing import NamedTuple

from textual.widgets import Input

from pagewalk.tui.app import Stepper
from pagewalk.tui.panes import EventsPane

WIDE = (132, 36)
SMALL = (80, 24)


class Pasted(str):
    """What is pasted into the line that asks, at once."""


class Seen(NamedTuple):
    """What there is after some keys: where we are, the screen's text, and what was said."""

    at: int
    screen: str
    said: list[str]
    moment: object
    app: Stepper


def press(playback, *keys, at=None, size=WIDE, resize=None, click=None, toasts=False):
    """Begin at a moment, the end by default, press keys, and look at the screen.

    What is said is on it only with `toasts`.
    """
    app = Stepper(playback, playback.nr_events if at is None else at)

    async def drive():
        async with app.run_test(size=size, notifications=toasts) as pilot:
            for is_text, some in groupby(keys, key=lambda key: isinstance(key, Pasted)):
                if is_text:
                    app.query_one(Input).value += next(some)
                else:
                    await pilot.press(*some)
            if click is not None:
                await pilot.click(EventsPane, offset=click)
            if resize is not None:
                await pilot.resize_terminal(*resize)
            await app.workers.wait_for_complete()
            await pilot.pause()
            strips = app.screen._compositor.render_strips()
            screen = "\n".join(strip.text for strip in strips)
            said = [one.message for one in app._notifications]
            return Seen(app.moment.at, screen, said, app.moment, app)

    return asyncio.run(drive())


def answer(key, text):
    """The keys that ask a question, and answer it."""
    return key, Pasted(text), "enter"
